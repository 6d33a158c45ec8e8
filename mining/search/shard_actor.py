"""The actor that holds a shard of the corpus and searches query blocks in it."""

from __future__ import annotations

import time

import numpy as np

from cluster.session.metrics import add_to
from cluster.session.progress import post
from cluster.session.session import set_threads
from cluster.tables.rows import load_vectors
from cluster.tables.tables import F32, Part, offsets_of
from mining.search.block_actor import BlockHits, LoadedBlock, SearchTask, read_vectors
from mining.search.engines import Engine, make_engine
from mining.search.how import CERTAIN_OVERSAMPLE, How, Rate, probe_items
from mining.search.ivf import ListEngine
from mining.search.kernels import score_list
from mining.search.shards import ShardRange
from mining.search.topk import Lists, Shard, exact_topk

PROBE_QUERIES = 512
ON_DEVICE = ("torch", "half")


class ShardActor:
    """Holds one shard at a time; keeps the engines that were asked for. Serves one search after another."""

    def __init__(self, threads: int, name: str) -> None:
        import faiss  # noqa: F401  loaded before their threads are set
        import torch  # noqa: F401

        set_threads(threads)
        self._name = name
        self._held: tuple[str, list[Part], ShardRange] | None = None
        self._vectors: F32 = np.zeros((0, 0), np.float32)
        self._engines: dict[tuple[str, str], Engine] = {}
        self._queries = 0
        self._pairs = 0
        """Queries × items searched, in all shards."""

    def search(self, task: SearchTask, rows: ShardRange, block: LoadedBlock, how: How) -> BlockHits:
        """The best K of `block` in the shard `rows`, and the scores of its pairs that lie there."""
        self._hold(task, rows)
        started = time.monotonic()
        scores, found = np.zeros((len(block.query_rows), 0), np.float32), np.zeros((len(block.query_rows), 0), np.int64)
        if task.num_hits:
            excluded = _within(block.excluded, rows) if len(block.excluded.rows) else None
            shard = Shard(self._vectors, self._engine(task, how))
            scores, places = exact_topk(block.vectors, shard, task.num_hits, excluded)
            found = np.where(places >= 0, places + rows.start, -1)
        owners, items = block.pairs
        here = np.where((items >= rows.start) & (items < rows.stop), items - rows.start, -1)
        pair_scores = np.full(len(items), -np.inf, np.float32)
        score_list(block.vectors, self._vectors, owners, here, pair_scores)
        self._queries += len(block.query_rows)
        add_to("hardmine_queries_searched", len(block.query_rows))
        self._pairs += len(block.query_rows) * (rows.stop - rows.start)
        post(task.mailbox, self._name, f"{self._queries:,} queries × {rows.stop - rows.start:,} items", done=self._pairs)
        return BlockHits(scores, found, pair_scores, time.monotonic() - started)

    def probe(self, task: SearchTask, rows: ShardRange, block: LoadedBlock, gpu: bool) -> dict[str, Rate]:
        """Seconds of each engine on the first items of the shard and the block's first queries."""
        self._hold(task, rows)
        queries = block.vectors[:PROBE_QUERIES]
        names = ["faiss", *(ON_DEVICE if gpu else []), *_eight_bit()]
        return {name: self._rate(name, queries, task.num_hits, on_gpu=gpu and name in ON_DEVICE) for name in names}

    def _rate(self, name: str, queries_QD: F32, most: int, *, on_gpu: bool) -> Rate:
        engine, _, likely = name.partition(":")
        took = []
        for count in probe_items(len(self._vectors), on_gpu=on_gpu):
            items = self._vectors[:count]
            made = Shard(
                items,
                make_engine(
                    engine,  # type: ignore[arg-type]
                    items,
                    certain=not likely,
                    oversample=1.25 if likely else CERTAIN_OVERSAMPLE,
                ),
            )
            num_hits = min(most, len(items))
            exact_topk(queries_QD, made, num_hits)  # loads, compiles, learns how many to propose
            started = time.perf_counter()
            exact_topk(queries_QD, made, num_hits)
            took.append((len(items), time.perf_counter() - started))
        (few, short), (many, long) = took
        per_pair = max((long - short) / max(1, many - few), long / many / 4) / len(queries_QD)
        return Rate(per_pair, max(0.0, long / len(queries_QD) - per_pair * many))

    def node(self) -> str:
        """The node that it is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def rest(self) -> None:
        """Let go of the shard, and of the counts of the search."""
        self._let_go()
        self._pairs = 0

    def _let_go(self) -> None:
        self._engines, self._vectors, self._held, self._queries = {}, np.zeros((0, 0), np.float32), None, 0

    def _hold(self, task: SearchTask, rows: ShardRange) -> None:
        wanted = (task.store.root, task.item_vectors, rows)
        if self._held != wanted:
            self._let_go()  # before the next one is loaded
            self._vectors = read_vectors(task.store, task.item_vectors, rows.start, rows.stop)
            self._held = wanted

    def _engine(self, task: SearchTask, how: How) -> Engine:
        key = (how.mode, how.engine)
        if key not in self._engines:
            if how.mode == "ivf":
                assert how.centroids is not None
                centroids = load_vectors(task.store, [Part(how.centroids, 0, 0)])
                self._engines[key] = ListEngine(self._vectors, centroids, oversample=how.oversample)
            else:
                self._engines[key] = make_engine(
                    how.engine, self._vectors, certain=how.mode == "exact", oversample=how.oversample
                )
        engine = self._engines[key]
        if isinstance(engine, ListEngine):
            engine.probes = how.probes
        return engine


def _within(lists: Lists, rows: ShardRange) -> Lists:
    """Those rows of the lists that lie in a shard, as positions in it."""
    owners = lists.owners
    here = (lists.rows >= rows.start) & (lists.rows < rows.stop)
    counts = np.bincount(owners[here], minlength=len(lists.offsets) - 1)
    return Lists(offsets_of(counts), lists.rows[here] - rows.start)


def _eight_bit() -> list[str]:
    """The 8-bit engines, if this torch multiplies whole numbers on the CPU."""
    import torch

    try:
        torch._int_mm(torch.ones((8, 8), dtype=torch.int8), torch.ones((8, 8), dtype=torch.int8))
    except (AttributeError, RuntimeError, NotImplementedError):
        return []
    return ["int8", "int8:likely"]
