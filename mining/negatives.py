"""From hits to negatives: one block of queries at a time, as a Ray task.

Q queries, K candidates, N negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.labels import Labels
from cluster.storage import Store
from cluster.tables import F32, I64, Part, csr_to_lists, lists_to_csr, part_name, read_part, read_parts, write_part
from mining.attributes import Attribute
from mining.candidates import SOURCES, Candidates
from mining.choose import Chosen, choose
from mining.filters import apply_filters
from mining.settings import MiningSettings

HARDNESS_EDGES = np.linspace(-1.0, 1.0, 401)
"""Bins of negative − positive score."""


@dataclass(frozen=True)
class MineTask:
    """What to choose from, and where to write it."""

    store: Store
    hits: list[Part]
    labels: list[Part]
    corpus: list[Part]
    queries: list[Part]
    settings: MiningSettings
    folder: str
    seed: int


@dataclass
class Counts:
    """What choosing did, added up over blocks."""

    queries: int = 0
    candidates: int = 0
    survivors: int = 0
    chosen: int = 0
    judged: int = 0
    queries_short: int = 0
    """Queries with fewer than N negatives."""
    queries_empty: int = 0
    suspected: int = 0
    above_positive: int = 0
    """Chosen negatives that score above the query's best relevant item."""
    dropped: dict[str, int] = field(default_factory=dict)
    hardness: Any = field(default_factory=lambda: np.zeros(len(HARDNESS_EDGES) - 1, np.int64))

    def add(self, other: Counts) -> None:
        """Add another block's counts."""
        for name in ("queries", "candidates", "survivors", "chosen", "judged", "queries_short", "queries_empty",
                     "suspected", "above_positive"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, count in other.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        self.hardness = self.hardness + other.hardness


@dataclass(frozen=True)
class Side:
    """What choosing reads besides the hits; loaded once per worker."""

    labels: Labels
    attributes: dict[str, Attribute]
    item_ids: pa.ChunkedArray
    query_ids: pa.ChunkedArray
    self_rows: I64


def load_side(task: MineTask) -> Side:
    """Labels, attribute columns and ids."""
    columns = sorted({rule.column for rule in task.settings.rules})
    corpus = read_parts(task.store, task.corpus, ["row", "id", "group_code", "text_code", *columns])
    queries = read_parts(task.store, task.queries, ["id", "item_row"])
    labels = Labels.from_tables(read_parts(task.store, task.labels), corpus, queries.num_rows)
    attributes = {name: Attribute.from_column(corpus[name]) for name in columns}
    return Side(labels, attributes, corpus["id"], queries["id"], queries["item_row"].to_numpy())


def dense_hits(table: pa.Table) -> tuple[I64, F32]:
    """(item rows [Q, K] with -1, scores [Q, K] with -inf) of a hits table."""
    offsets, rows = lists_to_csr(table["item_rows"])
    _, scores = lists_to_csr(table["scores"])
    lengths = np.diff(offsets)
    mask = np.arange(max(1, int(lengths.max(initial=1))))[None, :] < lengths[:, None]
    dense_rows, dense_scores = np.full(mask.shape, -1, np.int64), np.full(mask.shape, -np.inf, np.float32)
    dense_rows[mask], dense_scores[mask] = rows, scores
    return dense_rows, dense_scores


def _candidates(table: pa.Table, query_rows: I64, rows: I64, scores: F32, side: Side) -> Candidates:
    lowest, mean, highest = _positive_range(table, side.labels)
    excluded = np.zeros(len(query_rows), np.int64)
    if "excluded" in table.column_names:
        excluded = table["excluded"].to_numpy().astype(np.int64)
    position = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int64), rows.shape)
    return Candidates(query_rows, rows, scores, lowest, mean, highest, side.self_rows[query_rows], excluded,
                      np.zeros(rows.shape, np.uint8), position)


def _positive_range(table: pa.Table, labels: Labels) -> tuple[F32, F32, F32]:
    """(lowest, mean, highest) score among each query's relevant items, NaN where it has none."""
    offsets, _ = lists_to_csr(table["label_rows"])
    scores = lists_to_csr(table["label_scores"])[1].astype(np.float32)
    query_rows = table["query_row"].to_numpy()
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    start = labels.offsets[query_rows]
    grade = labels.scores[start[owner] + np.arange(len(owner)) - offsets[owner]]
    relevant = grade > 0
    lowest, highest = np.full(len(query_rows), np.inf, np.float32), np.full(len(query_rows), -np.inf, np.float32)
    np.minimum.at(lowest, owner[relevant], scores[relevant])
    np.maximum.at(highest, owner[relevant], scores[relevant])
    count = np.bincount(owner[relevant], minlength=len(query_rows))
    total = np.bincount(owner[relevant], scores[relevant].astype(np.float64), minlength=len(query_rows))
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0).astype(np.float32)
    lowest[count == 0], highest[count == 0] = np.nan, np.nan
    return lowest, mean, highest


def mine_block(task: MineTask, number: int, side: Side | None = None) -> tuple[Part, Counts]:
    """Choose the negatives of hits part `number`; writes one part, returns it and its counts.

    Deterministic: the same hits, settings and seed give the same bytes, whatever the block size.
    """
    side = side or load_side(task)
    table = read_part(task.store, task.hits[number].path)
    rows, scores = dense_hits(table)
    query_rows = table["query_row"].to_numpy()
    found = _candidates(table, query_rows, rows, scores, side)
    filtered = apply_filters(found, side.labels, side.attributes, task.settings)
    chosen = choose(found, filtered.alive, _judged(table, side.labels), task.settings, task.seed)
    counts = _count(found, filtered.alive, chosen, task.settings)
    counts.candidates, counts.dropped, counts.suspected = filtered.candidates, filtered.dropped, filtered.suspected
    part = write_part(task.store, f"{task.folder}/{part_name(number)}", _table(chosen, query_rows, side))
    return part, counts


def _judged(table: pa.Table, labels: Labels) -> tuple[I64, I64, F32]:
    """(owner, item row, score) of the items judged irrelevant, highest score first within a query."""
    offsets, rows = lists_to_csr(table["label_rows"])
    scores = lists_to_csr(table["label_scores"])[1].astype(np.float32)
    query_rows = table["query_row"].to_numpy()
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    grade = labels.scores[labels.offsets[query_rows][owner] + np.arange(len(owner)) - offsets[owner]]
    bad = np.flatnonzero(grade <= 0)
    order = bad[np.lexsort((rows[bad], -scores[bad], owner[bad]))]
    return owner[order], rows[order].astype(np.int64), scores[order]


def _count(found: Candidates, alive: Any, chosen: Chosen, settings: MiningSettings) -> Counts:
    real = chosen.rows >= 0
    per_query = real.sum(axis=1)
    harder = (chosen.scores - found.highest_positive[:, None])[real]
    known = np.isfinite(harder)
    return Counts(
        queries=len(found.query_rows), survivors=int(alive.sum()), chosen=int(real.sum()),
        judged=int(chosen.judged.sum()),
        queries_short=int((per_query < settings.num_negatives).sum()), queries_empty=int((per_query == 0).sum()),
        above_positive=int((harder[known] > 0).sum()),
        hardness=np.histogram(np.clip(harder[known], -1, 1), HARDNESS_EDGES)[0],
    )


def _table(chosen: Chosen, query_rows: I64, side: Side) -> pa.Table:
    real = chosen.rows >= 0
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(real.sum(axis=1))])
    flat = chosen.rows[real]
    positive_offsets, positives = side.labels.positives(query_rows)
    sources = pa.array(SOURCES).take(pa.array(chosen.source[real]))
    teacher = pa.array(chosen.teacher[real], pa.float32(), from_pandas=True)  # NaN: null
    items = pa.StructArray.from_arrays(
        [side.item_ids.take(pa.array(flat)).combine_chunks(), pa.array(chosen.scores[real], pa.float32()),
         pa.array(chosen.positions[real], pa.int64()), sources, teacher],
        names=["item_id", "score", "position", "source", "teacher_score"],
    )
    return pa.table({
        "query_row": query_rows,
        "query_id": side.query_ids.take(pa.array(query_rows)),
        "positive_ids": csr_to_lists(positive_offsets, side.item_ids.take(pa.array(positives)).combine_chunks()),
        "negative_rows": csr_to_lists(offsets, flat),
        "negatives": csr_to_lists(offsets, items),
    })


def mine(task: MineTask, *, retries: int) -> tuple[list[Part], Counts]:
    """Choose the negatives of all hits parts, one Ray task for every few parts."""
    import ray

    groups = np.array_split(np.arange(len(task.hits)), min(len(task.hits), max(1, int(ray.cluster_resources()["CPU"]))))
    remote = ray.remote(_mine_group).options(max_retries=retries)
    results = ray.get([remote.remote(task, [int(number) for number in group]) for group in groups])
    total, parts = Counts(), []
    for group_parts, counts in results:
        parts.extend(group_parts)
        total.add(counts)
    return sorted(parts, key=lambda part: part.path), total


def _mine_group(task: MineTask, numbers: Sequence[int]) -> tuple[list[Part], Counts]:
    side = load_side(task)
    total, parts = Counts(), []
    for number in numbers:
        part, counts = mine_block(task, number, side)
        parts.append(part)
        total.add(counts)
    return parts, total
