"""What the cases of `benchmarks.mining` share: a generated catalogue, our pipeline in this process, and the floor."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.shared import catalogue
from benchmarks.shared.catalogue import Catalogue
from benchmarks.shared.inputs import temporary_folder
from cluster.tables.tables import F32
from mining.negatives import MineTask, load_side, mine_block
from mining.search.block_actor import BlockActor, known_labels
from mining.search.how import How
from mining.search.shard_actor import ShardActor
from mining.search.shards import plan_blocks, plan_shards
from mining.settings import MiningSettings

THREADS = 2
BLOCK = 4096
"""Queries of a block."""
EXACT = {"faiss": How("exact", "faiss"), "int8": How("exact", "int8", 2.0)}
"""Engine -> an exact search by it."""
TWO_STAGE = How("two_stage", "int8", 1.25)


def product(queries_QD: F32, items_ND: F32) -> None:
    """The float32 matrix product alone, in blocks of 8,192 items."""
    import torch

    queries, items = torch.from_numpy(queries_QD), torch.from_numpy(items_ND)
    for start in range(0, len(items), 8192):
        queries @ items[start : start + 8192].T


@contextmanager
def temporary_catalogue(**options: Any) -> Iterator[Catalogue]:
    """A catalogue of `benchmarks.shared.catalogue.make` in a temporary folder."""
    with temporary_folder() as folder:
        # in a process of its own: what generating takes must not count as memory of what is measured
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as maker:
            data = maker.submit(catalogue.make, folder, **options).result()
        yield data


def pipeline(data: Catalogue, num_hits: int, how: How, folder: str, *, shards: int, settings: MiningSettings) -> dict[str, float]:
    """From stored vectors to stored negatives in this process, with the classes that Ray runs as actors; seconds by step."""
    from cluster.session.session import set_threads

    task, took = data.search_task(f"{folder}/hits", num_hits), dict.fromkeys(("load", "search", "write", "mine"), 0.0)
    ranges = plan_shards(data.num_items, shards=shards, actors=1, shard_rows=10**7)
    holders, writer = [ShardActor(THREADS, "shard") for _ in ranges], BlockActor()
    set_threads(THREADS)
    parts, known = [], known_labels(task)
    for block in plan_blocks(np.arange(data.num_queries), BLOCK):
        started = time.perf_counter()
        loaded = writer.load(task, block, known)
        took["load"] += time.perf_counter() - started
        in_shards = []
        for holder, rows in zip(holders, ranges, strict=True):
            started = time.perf_counter()
            hits = holder.search(task, rows, loaded, how)
            took["search"] += hits.seconds
            took["load"] += time.perf_counter() - started - hits.seconds
            in_shards.append(hits)
        started = time.perf_counter()
        parts.append(writer.write(task, f"{folder}/hits/{block.index}.parquet", loaded, None, *in_shards)[0])
        took["write"] += time.perf_counter() - started
    started = time.perf_counter()
    task_of_mine = MineTask(
        data.store, parts, data.labels, data.corpus, data.corpus, data.queries, settings, f"{folder}/negatives", 1
    )
    side = load_side(task_of_mine)
    for number in range(len(parts)):
        mine_block(task_of_mine, number, side)
    took["mine"] += time.perf_counter() - started
    return took
