"""Query by query: how many got better or worse, and the first results of the most changed, before and after.

Shape suffixes: Q queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.storage.store import Store
from jobs.finished.before_after import before_after, changed_queries
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind

F64 = npt.NDArray[np.float64]
Json = dict[str, Any]

SHOWN = 20
"""Number of winners, and of losers."""
BINS = 20
"""Bins of the histogram, between the smallest and the largest possible change."""


def query_changes(store: Store, record: RunRecord, best: MeasuredModel | None, metric: str) -> Json | None:
    """Changes of `metric` from the off-the-shelf model to the kept one; None: there are not two models.

    Returns:
        {"metric", "queries", "better", "worse", "same", "histogram": [{"low", "high", "queries"}], "winners", "losers"}; a
        winner or loser is a query of `before_after` with its "change" (above 0 is better).

    Raises:
        ArtifactError: a table is missing or damaged.
    """
    before, ingested = record.baseline, record.find(Kind.INGEST)
    if before is None or best is None or best.name == before.name or ingested is None:
        return None
    rows_Q, change_Q = changed_queries(store, before.evaluation, best.evaluation, metric)
    moved = change_Q.round(9)
    lost, won = np.flatnonzero(moved < 0)[:SHOWN], np.flatnonzero(moved > 0)[::-1][:SHOWN]
    shown = np.concatenate([won, lost])
    queries = [
        query | {"change": float(change)}
        for change, query in zip(
            change_Q[shown], before_after(store, ingested, rows_Q[shown], before.hits, best.hits), strict=True
        )
    ]
    return change_figures(metric, moved, winners=queries[: len(won)], losers=queries[len(won) :])


def change_figures(metric: str, change_Q: F64, *, winners: list[Json], losers: list[Json]) -> Json:
    """What `query_changes` returns. Args: change_Q: above 0 is better."""
    return {
        "metric": metric,
        "queries": len(change_Q),
        "better": int((change_Q > 0).sum()),
        "worse": int((change_Q < 0).sum()),
        "same": int((change_Q == 0).sum()),
        "histogram": histogram(change_Q),
        "winners": winners,
        "losers": losers,
    }


def histogram(change_Q: F64) -> list[Json]:
    """Number of queries by change: BINS bins between −1 and 1, and one of exactly 0 in the middle."""
    edges = np.linspace(-1.0, 1.0, BINS + 1).round(9)
    moved = change_Q[change_Q != 0]
    # a bin includes the end that is farther from 0, so that none includes 0
    counts = np.where(edges[:-1] < 0, np.histogram(moved, edges)[0], np.histogram(-moved, edges)[0][::-1])
    rows = [
        {"low": round(float(low), 3), "high": round(float(high), 3), "queries": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    none = {"low": 0.0, "high": 0.0, "queries": int((change_Q == 0).sum())}
    return [*rows[: BINS // 2], none, *rows[BINS // 2 :]]
