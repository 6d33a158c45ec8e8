"""Queries with their relevant items and negatives as text, for a person to read: drawn at random, the same every time.

Which queries are drawn depends on the seed and the query's row only: each block keeps its best draws, and the best of
all blocks are shown, so samples add up over blocks of any size.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.rows import cut, read_rows
from cluster.tables.tables import I64, Part

TEXT_LENGTH = 200
"""Characters shown of a text."""
RELEVANT_SHOWN = 8
"""Relevant items shown of a query that has more."""


@dataclass(frozen=True, order=True)
class Sample:
    """One drawn query, as addresses; texts are looked up for those that are shown."""

    ticket: int
    """Its draw: the smallest are shown."""
    query_row: int
    relevant: tuple[tuple[int, float], ...]
    """(item row, score)."""
    relevant_total: int
    negatives: tuple[tuple[int, float, int, str], ...]
    """(item row, score, position, source), in the order of the table."""


def tickets(query_rows: I64, seed: int) -> npt.NDArray[np.uint64]:
    """[Q] a number that depends on (seed, query) only, evenly spread over 64 bits (the SplitMix64 finaliser)."""
    with np.errstate(over="ignore"):
        x = query_rows.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        drawn: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return drawn


@dataclass(frozen=True)
class ShownItem:
    """A relevant item of a shown query."""

    item_id: str
    text: str
    score: float


@dataclass(frozen=True)
class ShownNegative(ShownItem):
    """A negative of a shown query."""

    position: int
    """In its source's list, from 0; -1: judged irrelevant."""
    source: str
    suspected: bool
    """No one has judged it, and it scores above the query's best relevant item."""


@dataclass(frozen=True)
class ShownSample:
    """One drawn query with ids and texts, as mining.json has it."""

    query_id: str
    query: str
    relevant: list[ShownItem]
    relevant_total: int
    negatives: list[ShownNegative]


def draw_samples(table: pa.Table, seed: int, count: int) -> list[Sample]:
    """The `count` best draws of a block of the negatives table. A query without negatives shows nothing: it has none."""
    query_rows = table["query_row"].to_numpy()
    drawn = tickets(query_rows, seed)
    some = np.flatnonzero(table["negative_rows"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False) > 0)
    chosen = some[np.argsort(drawn[some], kind="stable")[:count]]
    rows = table.take(pa.array(chosen)).to_pylist()
    samples = []
    for number, row in zip(chosen, rows, strict=True):
        relevant = sorted(zip(row["positive_rows"], row["positive_scores"], strict=True), key=lambda pair: (-pair[1], pair[0]))
        negatives = tuple(
            (item, value["score"], value["position"], value["source"])
            for item, value in zip(row["negative_rows"], row["negatives"], strict=True)
        )
        shown = tuple(relevant[:RELEVANT_SHOWN])
        samples.append(Sample(int(drawn[number]), row["query_row"], shown, len(relevant), negatives))
    return samples


def best_samples(samples: Iterable[Sample], count: int) -> list[Sample]:
    """The `count` best draws of several blocks, in the order of the queries."""
    return sorted(heapq.nsmallest(count, samples), key=lambda sample: sample.query_row)


def show_samples(samples: Sequence[Sample], store: Store, corpus: Sequence[Part], queries: Sequence[Part]) -> list[ShownSample]:
    """The samples with ids and texts."""
    if not samples:
        return []
    items = sorted(
        {row for sample in samples for row, _ in sample.relevant}
        | {row for sample in samples for row, _, _, _ in sample.negatives}
    )
    known = texts_of(store, corpus, items)
    asked = texts_of(store, queries, [sample.query_row for sample in samples])
    return [_shown(sample, asked[sample.query_row], known) for sample in samples]


def texts_of(store: Store, parts: Sequence[Part], rows: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Row -> (id, the start of its text)."""
    table = read_rows(store, parts, np.asarray(rows, np.int64), ["id", "text"])
    return dict(zip(rows, zip(table["id"].to_pylist(), cut(table["text"], TEXT_LENGTH), strict=True), strict=True))


def _shown(sample: Sample, query: tuple[str, str], items: dict[int, tuple[str, str]]) -> ShownSample:
    best = max((score for _, score in sample.relevant), default=float("inf"))
    return ShownSample(
        *query,
        relevant=[ShownItem(*items[row], score=round(score, 4)) for row, score in sample.relevant],
        relevant_total=sample.relevant_total,
        negatives=[
            ShownNegative(*items[row], round(score, 4), position, source, suspected=source != "judged" and score > best)
            for row, score, position, source in sample.negatives
        ],
    )
