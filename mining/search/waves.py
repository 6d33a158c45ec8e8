"""The actors of a search, and the order in which blocks meet shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.session.resources import PoolSize
from cluster.tables.tables import Part, part_name
from mining.search.block_actor import BlockActor, BlockHits, SearchTask
from mining.search.how import How, Rates
from mining.search.shard_actor import ShardActor
from mining.search.shards import QueryBlock, ShardRange, waves

LOADERS = 2


@dataclass(frozen=True)
class Job:
    """A block to be searched in all shards."""

    block: QueryBlock
    how: How
    path: str = ""
    """Where its hits are written."""


class Waves:
    """Shard holders, and actors that load and write blocks; they start with the first job and live until `end`."""

    def __init__(self, task: SearchTask, shards: Sequence[ShardRange], pool: PoolSize, *, retries: int, mailbox: Any) -> None:
        self._task, self._pool, self._retries, self._mailbox = task, pool, retries, mailbox
        self._waves = waves(shards, pool.count)
        self.first = self._waves[0]
        self._holders: list[Any] = []
        self._loaders: list[Any] = []
        self._writers: list[Any] = []

    def _start(self) -> None:
        if self._holders:
            return
        import ray

        options = {"max_restarts": self._retries, "max_task_retries": self._retries}
        holder = ray.remote(ShardActor).options(num_cpus=self._pool.cpus, num_gpus=self._pool.gpus, **options)
        count = len(self.first)
        self._holders = [
            holder.remote(self._task, self._pool.cpus, self._mailbox, f"shard {i + 1}/{count}") for i in range(count)
        ]
        # An actor's tasks run in the order they were asked for: a writer that waits for hits could load no other block.
        beside = ray.remote(BlockActor).options(num_cpus=0, **options)
        self._loaders = [beside.remote(self._task) for _ in range(min(LOADERS, count))]
        self._writers = [beside.remote(self._task) for _ in range(count)]

    def end(self) -> None:
        """Stop the actors."""
        import ray

        for actor in [*self._holders, *self._loaders, *self._writers]:
            ray.kill(actor)
        self._holders, self._loaders, self._writers = [], [], []

    def probe(self, block: QueryBlock, *, gpu: bool) -> Rates:
        """Rates of the engines on the first shard."""
        import ray

        self._start()
        rates: Rates = ray.get(self._holders[0].probe.remote(self.first[0], self._loaders[0].load.remote(block), gpu))
        return rates

    def hits(self, block: QueryBlock, hows: Sequence[How], *, first_only: bool = False) -> list[BlockHits]:
        """The hits of a small block in several ways, over all shards or those of the first wave only.

        No shard is loaded twice for them.
        """
        import ray

        self._start()
        loaded = self._loaders[0].load.remote(block)
        merged: list[list[Any]] = [[] for _ in hows]
        for wave in self._waves[:1] if first_only else self._waves:
            for place, how in enumerate(hows):
                merged[place] = [self._writers[0].merge.remote(*self._search(wave, loaded, how), *merged[place])]
        return [ray.get(found) for (found,) in merged]

    def write(self, jobs: Sequence[Job]) -> tuple[list[Part], float]:
        """Search all jobs in all waves and write them: (their parts, seconds of the slowest shards added up)."""
        if not jobs:
            return [], 0.0
        self._start()
        seconds = sum(
            sum(self._wave(self._waves[number], self._waves[number - 1] if number else None, jobs))
            for number in range(len(self._waves) - 1)
        )
        before = self._waves[-2] if len(self._waves) > 1 else None
        written: list[tuple[Part, float]] = self._wave(self._waves[-1], before, jobs, last=True)
        return [part for part, _ in written], seconds + sum(took for _, took in written)

    def clear(self) -> None:
        """Remove what waited between waves, of this search or an interrupted one; every job must be written."""
        self._task.store.delete(f"{self._task.folder}/waves")

    def _search(self, wave: Sequence[ShardRange], loaded: Any, how: How) -> list[Any]:
        return [holder.search.remote(rows, loaded, how) for holder, rows in zip(self._holders, wave, strict=False)]

    def _wave(
        self, wave: Sequence[ShardRange], before: Sequence[ShardRange] | None, jobs: Sequence[Job], *, last: bool = False
    ) -> list[Any]:
        """One wave over all jobs; a bounded number of blocks is in flight. Returns what `keep` or `write` did."""
        import ray

        there = {} if last else self._task.store.list(self._between(wave))
        running: list[Any] = []
        for place, job in enumerate(jobs):
            target = self._place(wave, job)
            if target in there:  # an interrupted search came this far
                continue
            if len(running) >= self._in_flight:
                ray.get(running[-self._in_flight])  # raises what went wrong, too
            writer = self._writers[place % len(self._writers)]
            loaded = self._loaders[place % len(self._loaders)].load.remote(job.block)
            found = self._search(wave, loaded, job.how)
            kept = self._place(before, job) if before else None
            running.append(
                writer.write.remote(job.path, loaded, kept, *found) if last else writer.keep.remote(target, kept, *found)
            )
        return list(ray.get(running))

    def _between(self, wave: Sequence[ShardRange]) -> str:
        """Folder of the hits among all items up to the wave's last: valid however the corpus is cut later."""
        return f"{self._task.folder}/waves/{wave[-1].stop:012d}"

    def _place(self, wave: Sequence[ShardRange], job: Job) -> str:
        return f"{self._between(wave)}/{job.how.mode}-{job.how.probes}-{part_name(job.block.index)}"

    @property
    def _in_flight(self) -> int:
        return 2 * len(self._writers) + 1
