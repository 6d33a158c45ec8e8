"""From stored vectors to stored negatives, against the search alone: see `benchmarks.mining`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.mining.ours import EXACT, TWO_STAGE, pipeline, product, temporary_catalogue
from benchmarks.shared.catalogue import Catalogue, float_vectors
from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import paired
from mining.search.how import How
from mining.settings import MiningSettings, Rule

DEPTHS = (100, 1000)
FILTERS: dict[str, Any] = {
    "rules": (Rule(column="genres", keep="disjoint"), Rule(column="brand", keep="different")),
    "min_score": -0.5,
    "max_score": 0.99,
    "relative_margin": 0.05,
    "skip_first": 1,
    "choose": "softmax",
}
WAYS: dict[str, tuple[How, int]] = {
    **{f"exact ({name}), 1 shard": (how, 1) for name, how in EXACT.items()},
    "exact (int8), 2 shards": (EXACT["int8"], 2),
    "two-stage, 1 shard": (TWO_STAGE, 1),
    "two-stage, 2 shards": (TWO_STAGE, 2),
}
"""Name -> how to search, and the number of shards."""


def case_pipeline(runs: int, items: int, queries: int) -> list[Row]:
    """See benchmarks.mining."""
    import faiss

    items_ND, queries_QD = float_vectors(items, seed=1), float_vectors(queries, seed=2)
    rows: list[Row] = []
    with temporary_catalogue(items=items, queries=queries) as data:
        for num_hits in (depth for depth in DEPTHS if depth <= items):
            steps: dict[str, dict[str, float]] = {}
            works: dict[str, Callable[[], Any]] = {
                "floor": lambda: product(queries_QD, items_ND),
                "faiss.knn": lambda k=num_hits: faiss.knn(queries_QD, items_ND, k, metric=faiss.METRIC_INNER_PRODUCT),
                **{name: partial(_whole, data, num_hits, name, steps) for name in WAYS},
            }
            took = paired(works, runs)
            for name in WAYS:
                shares = {step: round(seconds, 3) for step, seconds in steps[name].items()}
                shares["filters_of_search"] = round(steps[name]["mine"] / steps[name]["search"], 3)
                for peer in ("floor", "faiss.knn"):
                    rows.append(compared(f"pipeline K={num_hits} {name}", took[name], peer, took[peer], took["floor"]) | shares)
    return rows


def _whole(data: Catalogue, num_hits: int, name: str, steps: dict[str, dict[str, float]]) -> None:
    """One way; its seconds by step go into `steps`."""
    how, shards = WAYS[name]
    settings = MiningSettings(num_hits=num_hits, num_negatives=32, **FILTERS)
    steps[name] = pipeline(data, num_hits, how, f"out-{how.mode}-{how.engine}-{shards}", shards=shards, settings=settings)
