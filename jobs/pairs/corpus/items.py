"""The items: copied beside the labels, and cut by id, so that pairs are made where both texts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.config.templates import Template
from jobs.pairs.partitions import PartitionWriter, hashes, partition_of, read_partition
from jobs.pairs.sessions.together import ITEM_SALT
from jobs.pairs.settings import CorpusSettings
from jobs.pairs.tasks import write_object
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.reading.files import read_chunks
from jobs.stages.ingest.reading.values import id_column


@dataclass(frozen=True)
class ItemTask:
    """What all tasks need."""

    url: str
    settings: CorpusSettings
    storage: StorageSettings
    partitions: int


def read_items(store: Store, folder: str, number: int, task: ItemTask) -> dict[str, Any]:
    """One file of items as "items" (id, query text, templates, same, different, anchors), "ids", and `tables/corpus`."""
    writer = PartitionWriter(store, f"{folder}/items-{number:05d}", task.partitions)
    objects: dict[str, int] = {}
    rows = 0
    ids, groups = [], []
    for turn, chunk in enumerate(read_chunks(task.url, task.storage)):
        if not chunk.table.num_rows:
            continue
        table = rename(chunk, {}, ["id"], "items")
        for setting in ("anchors", "same", "different"):
            column = getattr(task.settings, setting)
            if column is not None:
                Template(f"{{{column}}}", f"corpus.{setting}").check(table.column_names, chunk.file)
        own = id_column(table, "id", chunk)
        keys = hashes(own, ITEM_SALT)
        different = _joined(table, task.settings.different)
        short = pa.table(
            {
                "id": own,
                "query": _rendered(table, task.settings.query, "corpus.query", chunk.file),
                "templates": _templates(table, task.settings, chunk.file),
                "same": _joined(table, task.settings.same),
                "different": different,
                "anchors": _lists(table, task.settings.anchors, chunk.file),
            }
        )
        writer.add(short, partition_of(keys, task.partitions))
        table = table.set_column(table.column_names.index("id"), "id", own)
        part = write_part(store, f"tables/corpus/part-{number:05d}-{turn:04d}.parquet", table, for_others=True)
        objects[part.path] = part.bytes
        ids.append(keys)
        groups.append(hashes(different, ITEM_SALT))
        rows += table.num_rows
    if ids:
        table = pa.table({"item": np.concatenate(ids), "group": np.concatenate(groups)}).sort_by("item")
        objects |= write_object(store, f"{folder}/ids-{number:05d}.parquet", table)
    return {"objects": objects | writer.close(), "items": rows}


def _rendered(table: pa.Table, template: str, setting: str, where: str) -> pa.Array:
    parsed = Template(template, setting)
    if not set(parsed.fields) & set(table.column_names) and template == CorpusSettings().query:
        return pa.nulls(table.num_rows, pa.string())  # items without titles: no such queries
    parsed.check(table.column_names, where)
    fields = [field for field in parsed.fields if field in table.column_names]
    values = [table[field].to_pylist() for field in fields]
    texts = (parsed.render(dict(zip(fields, row, strict=True))) for row in zip(*values, strict=True))
    return pa.array([text or None for text in texts], pa.string())


def _templates(table: pa.Table, settings: CorpusSettings, where: str) -> pa.Array:
    columns = [_rendered(table, text, "corpus.templates", where).to_pylist() for text in settings.templates]
    rows = zip(*columns, strict=True) if columns else ([] for _ in range(table.num_rows))
    return pa.array([[text for text in row if text] for row in rows], pa.list_(pa.string()))


def _joined(table: pa.Table, column: str | None) -> pa.Array:
    """A column as one text; the values of a list in their order, the first eight."""
    if column is None:
        return pa.nulls(table.num_rows, pa.string())
    values = table[column].combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return pa.array([None if not row else " | ".join(map(str, row[:8])) for row in values.to_pylist()], pa.string())
    return values.cast(pa.string())


def _lists(table: pa.Table, column: str | None, where: str) -> pa.Array:
    if column is None:
        return pa.nulls(table.num_rows, pa.list_(pa.string()))
    values = table[column].combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return values.cast(pa.list_(pa.string()))
    texts = pc.split_pattern_regex(pc.utf8_trim_whitespace(values.cast(pa.string())), r"[\s,;|]+")
    return texts.cast(pa.list_(pa.string()))


@dataclass(frozen=True)
class PopularTask:
    """What all tasks need."""

    items: list[str]
    partitions: int


def add_items(store: Store, folder: str, number: int, task: PopularTask) -> dict[str, Any]:
    """The clicks and likers of the items of one partition, sorted by their hashes, as one object."""
    table = read_partition(store, task.items, number, task.partitions)
    if table is None:
        return {"objects": {}}
    total = table.group_by("item", use_threads=False).aggregate([("clicks", "sum"), ("likers", "sum")])
    total = total.rename_columns(["item", "clicks", "likers"]).sort_by("item")
    clicks, items = np.unique(total["clicks"].to_numpy(), return_counts=True)
    return {
        "objects": write_object(store, f"{folder}/popularity-{number:05d}.parquet", total),
        "items_by_clicks": {str(number): count for number, count in zip(clicks.tolist(), items.tolist(), strict=True)},
    }


def popular_share(items_by_clicks: Mapping[str, int]) -> dict[str, Any]:
    """How many items and clicks there are, and the share of the clicks that the most popular percent of the items has."""
    clicks = np.asarray([int(number) for number in items_by_clicks], np.int64)
    items = np.asarray(list(items_by_clicks.values()), np.int64)
    order = np.argsort(-clicks)
    clicks, items = clicks[order], items[order]
    before = np.cumsum(items) - items
    top = np.clip(max(1, items.sum() // 100) - before, 0, items)
    total = int(clicks @ items)
    return {"items": int(items.sum()), "clicks": total, "top_percent_share": round(float(clicks @ top) / max(1, total), 4)}
