"""The items: copied beside the labels, and cut by id, so that pairs are made where both texts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.config.templates import Template
from jobs.pairs.sessions.together import ITEM_SALT
from jobs.pairs.settings import CorpusSettings
from jobs.pairs.tasks import hashes, partition_of, read_object, write_object, write_partitions
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
        name = f"{number:05d}-{turn:04d}.parquet"
        objects |= write_partitions(store, f"{folder}/items-{name}", short, partition_of(keys, task.partitions), task.partitions)
        part = write_part(store, f"tables/corpus/part-{name}", table.set_column(table.column_names.index("id"), "id", own))
        objects[part.path] = part.bytes
        ids.append(keys)
        groups.append(hashes(different, ITEM_SALT))
        rows += table.num_rows
    if ids:
        table = pa.table({"item": np.concatenate(ids), "group": np.concatenate(groups)}).sort_by("item")
        objects |= write_object(store, f"{folder}/ids-{number:05d}.parquet", table)
    return {"objects": objects, "items": rows}


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


def add_items(store: Store, folder: str, number: int, paths: list[str]) -> dict[str, Any]:
    """The clicks, impressions and likers of every item, sorted by its hash, as one object."""
    tables = [read_object(store, path) for path in paths]
    total = (
        pa.concat_tables(tables)
        .group_by("item", use_threads=False)
        .aggregate([("clicks", "sum"), ("shown", "sum"), ("likers", "sum")])
    )
    total = total.rename_columns(["item", "clicks", "shown", "likers"]).sort_by("item")
    objects = write_object(store, f"{folder}/popularity-{number:05d}.parquet", total)
    clicks = np.sort(total["clicks"].to_numpy())[::-1]
    every = max(1, int(clicks.sum()))
    return {
        "objects": objects,
        "items": total.num_rows,
        "clicks": int(clicks.sum()),
        "top_percent_share": round(float(clicks[: max(1, len(clicks) // 100)].sum() / every), 4),
        "likers": int(pc.max(total["likers"]).as_py() or 0),
    }
