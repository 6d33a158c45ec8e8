"""Search: shards in Ray actors, query blocks streamed through all of them, hits merged exactly and written per block.

More shards than actors go in waves; the running best K of every block wait in Ray's object store. Each finished block
is one object in storage, so an interrupted search repeats only the blocks that were running.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import ArtifactError
from cluster.labels import Labels, gather_csr
from cluster.progress import post
from cluster.resources import PoolSize
from cluster.session import set_threads
from cluster.storage import Store
from cluster.tables import (
    F32,
    I64,
    Part,
    column_to_vectors,
    csr_to_lists,
    part_name,
    parts_between,
    read_part,
    read_parts,
    write_part,
)
from mining.shards import QueryBlock, ShardRange, waves
from mining.topk import Engine, Shard, canonical_scores, exact_topk, order_hits


@dataclass(frozen=True)
class SearchTask:
    """What to search where."""

    store: Store
    item_vectors: list[Part]
    query_vectors: list[Part]
    labels: list[Part]
    """Judged pairs, whose scores are computed too: a positive may be far outside the best K."""
    corpus: list[Part]
    num_queries: int
    num_hits: int
    folder: str
    engine: Engine


@dataclass(frozen=True)
class LoadedBlock:
    """A query block with its vectors and its judged items."""

    query_rows: I64
    vectors: F32
    label_offsets: I64
    label_rows: I64


@dataclass(frozen=True)
class BlockHits:
    """What one or several shards found for a block."""

    scores: F32
    """[Q, K]"""
    rows: I64
    """[Q, K] corpus rows, -1 padding."""
    label_scores: F32
    """[L] scores of the judged items; -inf where no shard so far holds the item."""
    seconds: float


def read_vectors(store: Store, parts: Sequence[Part], start: int, stop: int) -> F32:
    """Vectors of rows start … stop - 1, float32.

    Raises:
        ArtifactError: rows are missing.
    """
    blocks = [column_to_vectors(read_part(store, part.path, ["vector"])["vector"].slice(low, high - low))
              for part, low, high in parts_between(parts, start, stop)]
    vectors = np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)
    if len(vectors) != stop - start:
        raise ArtifactError(f"expected vectors of rows {start} to {stop}, found {len(vectors)} of {stop - start} below "
                            f"{store.root}; delete the commit of this embed stage and run again")
    return vectors


class ShardActor:
    """Holds one shard at a time and searches blocks in it."""

    def __init__(self, task: SearchTask, threads: int, mailbox: Any, name: str) -> None:
        if task.engine == "faiss":
            import faiss  # noqa: F401  loaded before its threads are set
        else:
            import torch  # noqa: F401
        set_threads(threads)
        self._task, self._mailbox, self._name = task, mailbox, name
        self._range: ShardRange | None = None
        self._shard: Shard
        self._queries = 0

    def search(self, rows: ShardRange, block: LoadedBlock) -> BlockHits:
        """The best K of `block` in the shard `rows`, and the scores of its judged items that lie there."""
        if self._range != rows:
            vectors = read_vectors(self._task.store, self._task.item_vectors, rows.start, rows.stop)
            self._shard, self._range = Shard(vectors, self._task.engine), rows
        started = time.monotonic()
        scores, places = exact_topk(block.vectors, self._shard, self._task.num_hits)
        found = np.where(places >= 0, places + rows.start, -1)
        label_scores = self._score_labels(rows, block)
        self._queries += len(block.query_rows)
        post(self._mailbox, self._name, f"{self._queries:,} queries × {rows.stop - rows.start:,} items")
        return BlockHits(scores, found, label_scores, time.monotonic() - started)

    def _score_labels(self, rows: ShardRange, block: LoadedBlock) -> F32:
        result = np.full(len(block.label_rows), -np.inf, np.float32)
        here = np.flatnonzero((block.label_rows >= rows.start) & (block.label_rows < rows.stop))
        owner = np.repeat(np.arange(len(block.query_rows)), np.diff(block.label_offsets))
        step = 65_536
        for start in range(0, len(here), step):
            some = here[start : start + step]
            index = (block.label_rows[some] - rows.start)[:, None]
            result[some] = canonical_scores(block.vectors[owner[some]], self._shard.vectors, index)[:, 0]
        return result


class BlockActor:
    """Loads query blocks, merges what the shards found, writes finished blocks."""

    def __init__(self, task: SearchTask) -> None:
        self._task = task
        self._labels: Labels | None = None

    def load(self, block: QueryBlock) -> LoadedBlock:
        """The vectors and judged items of a block."""
        if self._labels is None:  # not in __init__: Ray brings an error there back as text only
            corpus = read_parts(self._task.store, self._task.corpus, ["row", "group_code", "text_code"])
            labels = read_parts(self._task.store, self._task.labels)
            self._labels = Labels.from_tables(labels, corpus, self._task.num_queries)
        rows = block.query_rows
        start, stop = int(rows[0]), int(rows[-1]) + 1
        vectors = read_vectors(self._task.store, self._task.query_vectors, start, stop)[rows - start]
        owner, index = gather_csr(self._labels.offsets, rows)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(owner, minlength=len(rows)))])
        return LoadedBlock(rows, np.ascontiguousarray(vectors), offsets, self._labels.item_rows[index])

    def merge(self, *found: BlockHits) -> BlockHits:
        """The best K over several shards."""
        return merge_hits(found, self._task.num_hits)

    def write(self, block: QueryBlock, loaded: LoadedBlock, *found: BlockHits) -> tuple[Part, float]:
        """Merge for the last time and write the block; (its part, seconds the slowest shard took)."""
        hits = self.merge(*found)
        real = hits.rows >= 0
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(real.sum(axis=1))])
        table = pa.table({
            "query_row": loaded.query_rows,
            "item_rows": csr_to_lists(offsets, hits.rows[real]),
            "scores": csr_to_lists(offsets, hits.scores[real]),
            "label_rows": csr_to_lists(loaded.label_offsets, loaded.label_rows),
            "label_scores": csr_to_lists(loaded.label_offsets, hits.label_scores),
        })
        return write_part(self._task.store, f"{self._task.folder}/{part_name(block.index)}", table), hits.seconds


def merge_hits(found: Sequence[BlockHits], num_hits: int) -> BlockHits:
    """Merge what disjoint shards found: equals searching one shard that holds all of them."""
    if len(found) == 1:
        return found[0]
    scores, rows = order_hits(np.concatenate([hits.scores for hits in found], axis=1),
                              np.concatenate([hits.rows for hits in found], axis=1), num_hits)
    labels = np.max(np.stack([hits.label_scores for hits in found]), axis=0)
    return BlockHits(scores, rows, labels, max(hits.seconds for hits in found))


@dataclass(frozen=True)
class Searched:
    """What a search wrote."""

    parts: list[Part]
    seconds: float
    """Searching time of the slowest shard of every block, added up."""


def search(
    task: SearchTask, shards: Sequence[ShardRange], blocks: Sequence[QueryBlock], pool: PoolSize, *,
    retries: int, mailbox: Any = None,
) -> Searched:
    """Search every block that is not there yet in all shards. The same bytes for any number of shards and actors.

    Raises:
        ArtifactError: vectors are missing.
    """
    there = task.store.list(task.folder)
    targets = {block.index: f"{task.folder}/{part_name(block.index)}" for block in blocks}
    finished = [Part(targets[b.index], len(b.query_rows), there[targets[b.index]]) for b in blocks
                if targets[b.index] in there]
    todo = [block for block in blocks if targets[block.index] not in there]
    seconds = 0.0
    if todo:
        written = _Run(task, shards, todo, pool, retries=retries, mailbox=mailbox).run()
        finished += [part for part, _ in written]
        seconds = sum(took for _, took in written)
    return Searched(sorted(finished, key=lambda part: part.path), seconds)


class _Run:
    """One search over the actors; keeps a bounded number of blocks in flight."""

    def __init__(self, task: SearchTask, shards: Sequence[ShardRange], blocks: Sequence[QueryBlock], pool: PoolSize,
                 *, retries: int, mailbox: Any) -> None:
        import ray

        self._blocks = blocks
        self._waves = waves(shards, pool.count)
        actors = min(pool.count, len(shards))
        options = {"max_restarts": retries, "max_task_retries": retries}
        holder = ray.remote(ShardActor).options(num_cpus=pool.cpus, num_gpus=pool.gpus, **options)
        self._holders = [holder.remote(task, pool.cpus, mailbox, f"shard {i + 1}/{actors}") for i in range(actors)]
        writer = ray.remote(BlockActor).options(num_cpus=0, **options)
        self._writers = [writer.remote(task) for _ in range(min(actors, len(blocks)))]
        self._in_flight = 2 * len(self._writers) + 1

    def run(self) -> list[tuple[Part, float]]:
        """Search all waves; returns (part, seconds) of every block."""
        import ray

        try:
            running: dict[int, Any] = {}
            for number, wave in enumerate(self._waves):
                last = number == len(self._waves) - 1
                running = self._wave(wave, running, last=last)
            return [ray.get(reference) for reference in running.values()]
        finally:
            for actor in [*self._holders, *self._writers]:
                ray.kill(actor)

    def _wave(self, wave: list[ShardRange], before: dict[int, Any], *, last: bool) -> dict[int, Any]:
        import ray

        results: dict[int, Any] = {}
        for number, block in enumerate(self._blocks):
            if number >= self._in_flight:  # wait for an old one before starting a new one
                ray.wait([results[self._blocks[number - self._in_flight].index]], fetch_local=False)
            writer = self._writers[number % len(self._writers)]
            loaded = writer.load.remote(block)
            found = [holder.search.remote(rows, loaded) for holder, rows in zip(self._holders, wave, strict=False)]
            if block.index in before:
                found.append(before[block.index])
            results[block.index] = writer.write.remote(block, loaded, *found) if last else writer.merge.remote(*found)
        return results
