"""How long re-ranking takes for one query, by number of candidates: tokens of both sides, the model, nothing else at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.session.session import set_threads
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, Part
from mining.teacher.reading import PairReader

DEPTHS = (10, 20, 50, 100)
"""Candidates that are timed, besides all of them."""
QUERIES, LEAST, BUDGET_S = 60, 10, 40.0
"""Queries that are timed at most; fewer, but LEAST, where they take longer than the budget."""


@dataclass(frozen=True)
class Asked:
    """Queries with their candidates, for timing."""

    query_rows: I64
    """[Q]"""
    item_rows: I64
    """[Q, K] best first; -1 is padding."""


def time_reading(
    make_reader: Callable[[], PairReader],
    store: Store,
    queries: Sequence[Part],
    corpus: Sequence[Part],
    asked: Asked,
    threads: int,
) -> dict[str, Any]:
    """Milliseconds by number of candidates, {"p50_ms": {10: …}, "p95_ms": …, "queries"}: in a worker."""
    read = make_reader()
    set_threads(threads)
    texts = read_rows(store, queries, asked.query_rows, ["text"])["text"].to_pylist()
    distinct, inverse = np.unique(asked.item_rows, return_inverse=True)
    known = read_rows(store, corpus, distinct[distinct >= 0], ["text"])["text"].to_pylist()
    known = [""] * int((distinct < 0).sum()) + known
    items = [
        [known[index] for index, row in zip(indices, rows, strict=True) if row >= 0]
        for indices, rows in zip(inverse.reshape(asked.item_rows.shape), asked.item_rows, strict=True)
    ]
    most = asked.item_rows.shape[1]
    depths = [*(depth for depth in DEPTHS if depth < most), most]
    took: dict[int, list[float]] = {depth: [] for depth in depths}
    for depth in depths:  # the first call of each size allocates
        read([texts[0]] * len(items[0][:depth]), items[0][:depth], lambda _: None)
    began = time.perf_counter()
    for number, (text, candidates) in enumerate(zip(texts, items, strict=True)):
        if number >= LEAST and time.perf_counter() - began > BUDGET_S:
            break
        for depth in depths:
            shown, started = candidates[:depth], time.perf_counter()
            read([text] * len(shown), shown, lambda _: None)
            took[depth].append(1e3 * (time.perf_counter() - started))
    p50, p95 = ({depth: float(np.quantile(times, share)) for depth, times in took.items()} for share in (0.5, 0.95))
    return {"p50_ms": p50, "p95_ms": p95, "queries": len(took[depths[0]])}
