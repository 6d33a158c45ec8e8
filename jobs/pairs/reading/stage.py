"""The first stage: each task reads a piece of the logs and writes its rows, cut by client, so that sessions are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.pairs.labels.texts import text_keys
from jobs.pairs.partitions import PartitionWriter, hashes, partition_of
from jobs.pairs.reading.flat import flat_tables
from jobs.pairs.reading.notes import Notes
from jobs.pairs.reading.rows import EARLIER_TEXT, EVENT, FAILED, LABEL, QUERY, SCHEMA, to_rows
from jobs.pairs.reading.sources import Piece
from jobs.pairs.settings import SignalSettings
from jobs.pairs.signals import CODES, POSITIVE_ACTIONS

ROUND_ROWS = 150_000
"""Rows that are cut together."""
HOUR = 3_600_000
LIKED = [CODES[name] for name in POSITIVE_ACTIONS]
FLOOD = 20_000
"""Rows of one client in one piece above which the rest is left out: more than any bot rule needs."""


@dataclass(frozen=True)
class ReadTask:
    """What all tasks need."""

    piece: Piece
    columns: Mapping[str, str]
    signals: SignalSettings
    storage: StorageSettings
    salt: str
    partitions: int
    newest: int = 0
    """Of an earlier output, in milliseconds."""


def read_piece(store: Store, folder: str, number: int, task: ReadTask) -> dict[str, Any]:
    """Rows by client as "rows", texts with their counts by text as "texts"; counts of what was left out."""
    notes = Notes()
    of_rows, of_texts = (PartitionWriter(store, f"{folder}/{kind}-{number:05d}", task.partitions) for kind in ("rows", "texts"))
    hours: Counter[int] = Counter()
    shapes: Counter[str] = Counter()
    likes = 0
    for every in _rounds(task, notes, shapes):
        rows = _without_floods(every, notes)
        key = rows["client"].to_numpy()
        key = np.where(key == 0, rows["query"].to_numpy(), key)
        of_rows.add(rows, partition_of(key, task.partitions))
        likes += int(np.isin(rows["action"].to_numpy()[rows["kind"].to_numpy() == EVENT], LIKED).sum())
        position = rows["position"]
        live = pc.and_(pc.not_equal(position, EARLIER_TEXT), pc.not_equal(position, FAILED))
        asked = rows.filter(pc.and_(pc.equal(rows["kind"], QUERY), live))
        _add_texts(of_texts, asked)
        times = asked["time"].to_numpy()
        values, counts = np.unique(times[times > 0] // HOUR, return_counts=True)
        hours.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return {
        "objects": of_rows.close() | of_texts.close(),
        "rows": notes.rows,
        "shapes": dict(shapes),
        "skipped": dict(notes.skipped),
        "values": dict(notes.values),
        "examples": notes.examples,
        "hours": {str(hour): count for hour, count in hours.items()},
        "likes": likes,
    }


def _rounds(task: ReadTask, notes: Notes, shapes: Counter[str]) -> Iterator[pa.Table]:
    """The rows, ROUND_ROWS or a little more at a time."""
    waiting: list[pa.Table] = []
    for shape, rows in _rows(task, notes):
        shapes[shape] += rows.num_rows
        waiting.append(rows)
        if sum(table.num_rows for table in waiting) >= ROUND_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _rows(task: ReadTask, notes: Notes) -> Iterator[tuple[str, pa.Table]]:
    if task.piece.earlier:
        yield from _earlier(task, notes)
        return
    for shape, flat in flat_tables(task.piece, task.columns, task.storage, notes):
        for start in range(0, max(1, flat.num_rows), ROUND_ROWS):
            yield shape, to_rows(shape, flat.slice(start, ROUND_ROWS), task.signals, task.salt, notes)


def _earlier(task: ReadTask, notes: Notes) -> Iterator[tuple[str, pa.Table]]:
    """Queries and labels of an earlier output; its labels weigh less by its age, when that is known."""
    from jobs.stages.ingest.reading.files import read_chunks

    queries = task.piece.name.startswith("tables/queries/")
    for chunk in read_chunks(task.piece.url, task.storage):
        table = chunk.table
        notes.rows += table.num_rows
        columns: dict[str, Any] = {"time": np.full(table.num_rows, task.newest, np.int64)}
        if queries:
            columns |= {"kind": np.full(table.num_rows, QUERY), "query": hashes(table["id"], task.salt), "text": table["text"]}
            columns |= {"position": np.full(table.num_rows, EARLIER_TEXT), "source": table["split"], "item": table["kind"]}
        else:
            columns |= {"kind": np.full(table.num_rows, LABEL), "query": hashes(table["query_id"], task.salt)}
            columns |= {"item": table["item_id"], "value": table["score"], "weight": table["weight"], "source": table["source"]}
        arrays = [
            pa.chunked_array([columns[field.name]]).cast(field.type)
            if isinstance(columns.get(field.name), pa.Array)
            else columns[field.name].cast(field.type)
            if isinstance(columns.get(field.name), pa.ChunkedArray)
            else pa.array(columns[field.name], field.type)
            if field.name in columns
            else (pa.array(np.zeros(table.num_rows), field.type) if _counts(field.type) else pa.nulls(table.num_rows, field.type))
            for field in SCHEMA
        ]
        yield "pairs", pa.table(arrays, schema=SCHEMA)


def _counts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _without_floods(rows: pa.Table, notes: Notes) -> pa.Table:
    """Without what one client has above FLOOD rows: it is a bot, and its partition must fit the memory."""
    clients = rows["client"].to_numpy()
    values, inverse, counts = np.unique(clients, return_inverse=True, return_counts=True)
    large = (counts > FLOOD) & (values != 0)
    if not large.any():
        return rows
    order = np.argsort(inverse, kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = ~large[inverse] | (position < FLOOD)
    notes.skip(f"rows of a client above {FLOOD:,} in one piece", int((~kept).sum()))
    return rows.filter(pa.array(kept))


def _add_texts(writer: PartitionWriter, asked: pa.Table) -> None:
    if not asked.num_rows:
        return
    counted = pc.value_counts(asked["text"])
    texts, counts = counted.field("values"), counted.field("counts")
    normal, keys = text_keys(texts)
    table = pa.table({"key": pa.array(keys), "text": normal, "count": counts})
    table = (
        table.group_by(["key", "text"], use_threads=False).aggregate([("count", "sum")]).rename_columns(["key", "text", "count"])
    )
    writer.add(table, partition_of(table["key"].to_numpy(), writer.count))
