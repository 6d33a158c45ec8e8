"""The actors of a search, and the order in which blocks meet shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.resources import PoolSize
from cluster.tables import Part, part_name
from mining.block_actor import BlockActor, BlockHits, SearchTask
from mining.how import How, Rates
from mining.shard_actor import ShardActor
from mining.shards import QueryBlock, ShardRange, waves


@dataclass(frozen=True)
class Job:
    """A block to be searched in all shards."""

    block: QueryBlock
    how: How
    path: str | None
    """Where its hits are written; None: they are given back."""


class Waves:
    """Shard holders and block writers; they start with the first job and live until `end`."""

    def __init__(self, task: SearchTask, shards: Sequence[ShardRange], pool: PoolSize, *, retries: int,
                 mailbox: Any) -> None:
        self._task, self._pool, self._retries, self._mailbox = task, pool, retries, mailbox
        self._waves = waves(shards, pool.count)
        self.first = self._waves[0]
        self._holders: list[Any] = []
        self._writers: list[Any] = []

    def _start(self) -> None:
        if self._holders:
            return
        import ray

        options = {"max_restarts": self._retries, "max_task_retries": self._retries}
        holder = ray.remote(ShardActor).options(num_cpus=self._pool.cpus, num_gpus=self._pool.gpus, **options)
        count = len(self.first)
        self._holders = [holder.remote(self._task, self._pool.cpus, self._mailbox, f"shard {i + 1}/{count}")
                         for i in range(count)]
        writer = ray.remote(BlockActor).options(num_cpus=0, **options)
        self._writers = [writer.remote(self._task) for _ in range(count)]

    def end(self) -> None:
        """Let the actors go."""
        import ray

        for actor in [*self._holders, *self._writers]:
            ray.kill(actor)
        self._holders, self._writers = [], []

    def probe(self, block: QueryBlock, *, gpu: bool) -> Rates:
        """Rates of the engines on the first shard."""
        import ray

        self._start()
        rates: Rates = ray.get(self._holders[0].probe.remote(self.first[0], self._writers[0].load.remote(block), gpu))
        return rates

    def hits(self, job: Job, *, first_only: bool = False) -> BlockHits:
        """The hits of a small block, over all shards or those of the first wave only."""
        import ray

        self._start()
        loaded = self._writers[0].load.remote(job.block)
        merged = None
        for wave in self._waves[:1] if first_only else self._waves:
            found = self._search(wave, loaded, job.how) + ([merged] if merged is not None else [])
            merged = self._writers[0].merge.remote(*found)
        result: BlockHits = ray.get(merged)
        return result

    def write(self, jobs: Sequence[Job]) -> list[tuple[Part, float]]:
        """Search all jobs in all waves and write them; returns (part, seconds) of each."""
        import ray

        if not jobs:
            return []
        self._start()
        written: list[Any] = []
        for number, wave in enumerate(self._waves):
            written = self._wave(number, wave, jobs)
        results: list[tuple[Part, float]] = ray.get(written)
        if len(self._waves) > 1:
            self._task.store.delete(f"{self._task.folder}/waves")
        return results

    def _search(self, wave: Sequence[ShardRange], loaded: Any, how: How) -> list[Any]:
        return [holder.search.remote(rows, loaded, how) for holder, rows in zip(self._holders, wave, strict=False)]

    def _wave(self, number: int, wave: Sequence[ShardRange], jobs: Sequence[Job]) -> list[Any]:
        """One wave over all jobs; a bounded number of blocks is in flight."""
        import ray

        last = number == len(self._waves) - 1
        there = {} if last else self._task.store.list(f"{self._task.folder}/waves/{number:05d}")
        results: list[Any] = []
        for place, job in enumerate(jobs):
            target = self._between(number, job)
            if target in there:  # an interrupted search came this far
                continue
            if len(results) >= self._in_flight:
                ray.wait([results[-self._in_flight]], fetch_local=False)
            writer = self._writers[place % len(self._writers)]
            loaded = writer.load.remote(job.block)
            found = self._search(wave, loaded, job.how)
            before = self._between(number - 1, job) if number else None
            results.append(writer.write.remote(job.path, loaded, before, *found) if last
                           else writer.keep.remote(target, before, *found))
        if not last:
            ray.get(results)
        return results

    def _between(self, number: int, job: Job) -> str:
        """Where a block's hits wait between two waves."""
        way = f"{job.how.mode}-{job.how.probes}"
        return f"{self._task.folder}/waves/{number:05d}/{way}-{part_name(job.block.index)}"

    @property
    def _in_flight(self) -> int:
        return 2 * len(self._writers) + 1
