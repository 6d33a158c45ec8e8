"""Searching in memory against FAISS and torch: see `benchmarks.mining`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.mining.ours import product
from benchmarks.shared.catalogue import float_vectors
from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import paired
from mining.search.engines import EngineName, make_engine
from mining.search.topk import Shard, exact_topk

DEPTHS = (100, 1000)
SAMPLE = 256
"""Queries on which recall is measured."""


def case_search(runs: int, items: int, queries: int) -> list[Row]:
    """See benchmarks.mining."""
    import faiss
    import torch

    items_ND, queries_QD = float_vectors(items, seed=1), float_vectors(queries, seed=2)
    index = faiss.IndexFlatIP(items_ND.shape[1])
    index.add(items_ND)

    def by_torch(num_hits: int) -> None:
        for start in range(0, queries, 512):
            (torch.from_numpy(queries_QD[start : start + 512]) @ torch.from_numpy(items_ND).T).topk(num_hits)

    def ours(name: EngineName, num_hits: int, *, certain: bool, oversample: float) -> Any:
        # the 8-bit copy is made anew each time: it belongs to the price
        engine = make_engine(name, items_ND, certain=certain, oversample=oversample)
        return exact_topk(queries_QD, Shard(items_ND, engine), num_hits)

    rows: list[Row] = []
    for num_hits in (depth for depth in DEPTHS if depth <= items):
        works: dict[str, Callable[[], Any]] = {
            "floor": lambda: product(queries_QD, items_ND),
            "faiss.knn": lambda k=num_hits: faiss.knn(queries_QD, items_ND, k, metric=faiss.METRIC_INNER_PRODUCT),
            "IndexFlatIP.search": lambda k=num_hits: index.search(queries_QD, k),
            "torch matmul+topk": lambda k=num_hits: by_torch(k),
            "ours exact (faiss)": lambda k=num_hits: ours("faiss", k, certain=True, oversample=1.0),
            "ours exact (8 bits, certain)": lambda k=num_hits: ours("int8", k, certain=True, oversample=2.0),
            "ours two-stage": lambda k=num_hits: ours("int8", k, certain=False, oversample=1.25),
        }
        took = paired(works, runs)
        truth = works["ours exact (faiss)"]()[1]
        for name in [name for name in works if name.startswith("ours")]:
            recall = _recall(works[name]()[1], truth)
            for peer in ("floor", "faiss.knn", "IndexFlatIP.search", "torch matmul+topk"):
                row = compared(f"search K={num_hits} {name}", took[name], peer, took[peer], took["floor"])
                rows.append(row | {"recall": recall})
    return rows


def _recall(rows_QK: np.ndarray[Any, Any], true_QK: np.ndarray[Any, Any]) -> float:
    some = slice(None, None, max(1, len(true_QK) // SAMPLE))
    pairs = zip(rows_QK[some], true_QK[some], strict=True)
    return float(np.mean([len(np.intersect1d(rows, true)) / len(true) for rows, true in pairs]))
