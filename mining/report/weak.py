"""Queries that are left out of training because their relevant item is weak by the teacher: those to read first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import Part
from mining.report.samples import texts_of


@dataclass(frozen=True, order=True)
class Weak:
    """One such query, as addresses; the smallest are shown."""

    fewer: int
    """Minus the candidates that the teacher scores above its relevant items."""
    query_row: int
    item_row: int
    """The relevant item that the teacher scores highest."""
    score: float
    """The teacher's, of that item."""


@dataclass(frozen=True)
class ShownWeak:
    """One such query with ids and texts, as mining.json has it."""

    query_id: str
    query: str
    item_id: str
    item: str
    teacher_score: float
    better: int
    """Candidates that the teacher scores above the item."""


def weak_of(table: pa.Table, count: int) -> list[Weak]:
    """The `count` worst of a block of the negatives table; none where the table has no teacher's columns."""
    if "left_out" not in table.column_names:
        return []
    rows = table.filter(table["left_out"]).select(["query_row", "positive_rows", "positive_teacher_scores", "better_candidates"])
    found = []
    for row in rows.to_pylist():
        pairs = zip(row["positive_teacher_scores"], row["positive_rows"], strict=True)
        score, item = max((score, -item) for score, item in pairs if score is not None)
        found.append(Weak(-row["better_candidates"], row["query_row"], -item, score))
    return worst(found, count)


def worst(found: Iterable[Weak], count: int) -> list[Weak]:
    """The `count` worst of several blocks, the worst first."""
    return heapq.nsmallest(count, found)


def show_weak(found: Sequence[Weak], store: Store, corpus: Sequence[Part], queries: Sequence[Part]) -> list[ShownWeak]:
    """With ids and texts."""
    if not found:
        return []
    items = texts_of(store, corpus, np.unique([one.item_row for one in found]).tolist())
    asked = texts_of(store, queries, sorted(one.query_row for one in found))
    return [ShownWeak(*asked[one.query_row], *items[one.item_row], round(one.score, 4), -one.fewer) for one in found]
