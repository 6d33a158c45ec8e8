"""Searching over Ray actors at sizes that do not fit one process's patience: seconds, memory, cost per item."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.mining.ours import BLOCK, temporary_catalogue
from benchmarks.shared.catalogue import Catalogue
from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import PeakMemory

MODES = (("exact", "faiss"), ("exact", "auto"), ("auto", "auto"), ("two_stage", "auto"))
"""mining.search.mode and engine"""


def case_scale(runs: int, items: int, queries: int) -> list[Row]:
    """See benchmarks.mining. Every mode runs once: they take minutes."""
    rows: list[Row] = []
    with temporary_catalogue(items=items, queries=queries, dtype="float16") as data, _ray():
        exact = None
        for mode, engine in MODES:
            figures = _search(data, mode, engine, f"out-{mode}-{engine}")
            exact = exact or figures["seconds"]
            rows.append(compared(f"scale {mode} ({engine})", figures.pop("seconds"), "exact (faiss)", exact) | figures)
    return rows


def case_growth(runs: int, items: int, queries: int) -> list[Row]:
    """See benchmarks.mining."""
    rows: list[Row] = []
    for count in [size for size in (100_000, 300_000, 1_000_000, 3_000_000) if size <= items]:
        with temporary_catalogue(items=count, queries=queries, dtype="float16") as data, _ray():
            figures = _search(data, "exact", "auto", "out")
            seconds, pairs = figures.pop("seconds"), count * queries
            each = {"ns_per_item_and_query": seconds / pairs * 1e9, "searching_ns": figures["searching_s"] / pairs * 1e9}
            rows.append(compared(f"growth {count}", seconds) | each | figures)
    return rows


def _ray() -> Any:
    from cluster.session.resources import ClusterSettings
    from cluster.session.session import ray_session

    return ray_session(ClusterSettings())


def _search(data: Catalogue, mode: str, engine: str, folder: str) -> Row:
    from cluster.session.resources import PoolSize
    from mining.search.driver import search
    from mining.search.shards import plan_blocks, plan_shards
    from mining.settings import SearchSettings

    shards = plan_shards(data.num_items, shards=None, actors=1, shard_rows=1_000_000)
    blocks = plan_blocks(np.arange(data.num_queries), BLOCK)
    settings = SearchSettings(mode=mode, engine=engine)  # type: ignore[arg-type]
    with PeakMemory() as memory:
        started = time.perf_counter()
        searched = search(data.search_task(folder, 100), shards, blocks, PoolSize(1, 2, 0), settings, retries=1)
        took = time.perf_counter() - started
    return {"seconds": took, "searching_s": searched.seconds, **searched.figures, "peak_mib": memory.megabytes()}
