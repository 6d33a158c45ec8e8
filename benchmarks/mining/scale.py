"""Searching over Ray actors at sizes that do not fit one process's patience: seconds, memory, cost per item."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.shared.machine import PeakMemory

MODES = (("exact", "faiss"), ("exact", "auto"), ("auto", "auto"), ("two_stage", "auto"))
"""mining.search.mode and engine"""


def case_scale(runs: int, items: int, queries: int) -> list[dict[str, Any]]:
    """See benchmarks.mining. Every mode runs once: they take minutes."""
    from benchmarks.mining.__main__ import __main__ as mining

    rows: list[dict[str, Any]] = []
    with mining.made(items=items, queries=queries, dtype="float16") as data, _ray():
        exact = None
        for mode, engine in MODES:
            row = _searched(data, mode, engine, f"out-{mode}-{engine}")
            exact = exact or row["ours_s"]
            rows.append(
                {"case": f"scale {mode} ({engine})", "peer": "exact (faiss)", "peer_s": exact, "ratio": exact / row["ours_s"]}
                | row
            )
    return rows


def case_growth(runs: int, items: int, queries: int) -> list[dict[str, Any]]:
    """See benchmarks.mining."""
    from benchmarks.mining.__main__ import __main__ as mining

    rows: list[dict[str, Any]] = []
    for count in [size for size in (100_000, 300_000, 1_000_000, 3_000_000) if size <= items]:
        with mining.made(items=count, queries=queries, dtype="float16") as data, _ray():
            row = _searched(data, "exact", "auto", "out")
            rows.append(
                {
                    "case": f"growth {count}",
                    "ns_per_item_and_query": row["ours_s"] / count / queries * 1e9,
                    "searching_ns": row["searching_s"] / count / queries * 1e9,
                }
                | row
            )
    return rows


def _ray() -> Any:
    from cluster.resources import ClusterSettings
    from cluster.session import ray_session

    return ray_session(ClusterSettings())


def _searched(data: Any, mode: str, engine: str, folder: str) -> dict[str, Any]:
    from cluster.resources import PoolSize
    from mining.search.driver import search
    from mining.search.shards import plan_blocks, plan_shards
    from mining.settings import SearchSettings

    shards = plan_shards(data.num_items, shards=None, actors=1, shard_rows=1_000_000)
    blocks = plan_blocks(np.arange(data.num_queries), 4096)
    settings = SearchSettings(mode=mode, engine=engine)  # type: ignore[arg-type]
    with PeakMemory() as memory:
        started = time.perf_counter()
        found = search(data.search_task(folder, 100), shards, blocks, PoolSize(1, 2, 0), settings, retries=1)
        took = time.perf_counter() - started
    return {"ours_s": took, "searching_s": found.seconds, **found.figures, "peak_mib": memory.megabytes()}
