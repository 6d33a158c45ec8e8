"""The actors of a search, and the order in which blocks meet shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cluster.session.nodes import on_work_node, placed
from cluster.session.progress import post
from cluster.session.resources import PoolSize
from cluster.session.session import memory_to_ask
from cluster.session.warm import end_warm, reserved, stays_warm, warm
from cluster.tables.tables import Part, part_name
from mining.memory import PROCESS_BYTES, blocks_in_flight, node_bytes, sharing_bytes
from mining.search.block_actor import BlockActor, BlockHits, SearchTask, known_labels
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


class SearchActors:
    """Shard holders, and actors that load and write blocks; they know no search, so one can follow another."""

    def __init__(self, holders: int, pool: PoolSize, *, retries: int, reserve: bool) -> None:
        """Start them. `reserve`: each holder keeps the pool's CPUs and GPUs until `end`."""
        import ray

        # those that outlive a search may die in idleness, too, which is no search's retry
        options = {"max_restarts": retries if reserve else -1, "max_task_retries": retries}
        mine = {"num_cpus": pool.cpus, "num_gpus": pool.gpus} if reserve else {"num_cpus": 0}
        holder = ray.remote(ShardActor).options(**mine, **options)
        self.holders = [holder.remote(pool.cpus, f"shard {i + 1}/{holders}") for i in range(holders)]
        self.loaders: list[Any] = []
        self.writers: list[Any] = []
        try:
            nodes = placed([one.node.remote() for one in self.holders], "search actors", pool) if reserve else [""] * holders
        except BaseException:
            self.end()
            raise
        self._nodes: list[str] = nodes

        def beside(number: int) -> Any:
            """On the node of a holder, if that has room."""
            where = {"scheduling_strategy": _near(self._nodes[number])} if reserve else {}
            return ray.remote(BlockActor).options(num_cpus=0, **options, **where).remote()

        # An actor's tasks run in the order they were asked for: a writer that waits for hits could load no other block.
        self.loaders = [beside(number) for number in range(min(LOADERS, holders))]
        self.writers = [beside(number) for number in range(holders)]

    def joined(self, task: Any, hits: Sequence[Any], block: int) -> list[Any]:
        """The hits of a block from all holders, merged on each node first: one of its writers' results travels, not all shards'.

        Args:
            block: numbers the blocks; those of a node are merged by its writers in turn.
        """
        members: dict[str, list[int]] = {}
        for number, _ in enumerate(hits):
            members.setdefault(self._nodes[number], []).append(number)
        if len(members) == 1:
            return list(hits)
        return [
            hits[own[0]]
            if len(own) == 1
            else self.writers[own[block % len(own)]].merge.remote(task, *(hits[number] for number in own))
            for own in members.values()
        ]

    def usable(self) -> bool:
        """Ray starts each again that dies."""
        return True

    def rest(self) -> None:
        """Let go of what the last search needed."""
        for actor in self.holders:
            actor.rest.remote()

    def end(self) -> None:
        """Stop them."""
        import ray

        for actor in [*self.holders, *self.loaders, *self.writers]:
            ray.kill(actor)


@contextmanager
def search_actors(holders: int, pool: PoolSize, *, retries: int) -> Iterator[SearchActors]:
    """The actors of one search: those that are kept, or new ones."""
    if not stays_warm(pool):
        end_warm("search")  # of the time before a node joined
        actors = SearchActors(holders, pool, retries=retries, reserve=True)
        try:
            yield actors
        finally:
            actors.end()
        return
    variant = (holders, pool, retries, ShardActor, BlockActor)
    try:
        with reserved(replace(pool, count=holders)):
            actors = warm("search", variant, lambda: SearchActors(holders, pool, retries=retries, reserve=False))
            yield actors
            actors.rest()
    except BaseException:  # they may be busy with what nobody waits for
        end_warm("search")
        raise


class Waves:
    """One search. Its actors are there from the first job until the context is left."""

    def __init__(self, task: SearchTask, shards: Sequence[ShardRange], pool: PoolSize, *, retries: int) -> None:
        self._task, self._pool, self._retries = task, pool, retries
        self._waves = waves(shards, pool.count)
        self.first = self._waves[0]
        self._context = ExitStack()

    def __enter__(self) -> Waves:
        return self

    def __exit__(self, *failed: Any) -> None:
        self._context.__exit__(*failed)

    @cached_property
    def _actors(self) -> SearchActors:
        return self._context.enter_context(search_actors(len(self.first), self._pool, retries=self._retries))

    @cached_property
    def _sent(self) -> Any:
        """The task in Ray's object store."""
        import ray

        return ray.put(self._task)

    @cached_property
    def _known(self) -> Any:
        """The labels, once on every node whose loaders ask for them."""
        import ray

        task = self._task
        if not task.labels:
            return None
        items = sum(part.rows for part in task.codes) if task.exclude_known else 0
        labels = sum(part.rows for part in task.labels)
        asked = PROCESS_BYTES + node_bytes(items, labels, task.num_queries) + sharing_bytes(items)
        place = {"num_cpus": 0, "scheduling_strategy": on_work_node(0)}
        options = {"max_retries": self._retries, "memory": memory_to_ask(asked)} | place
        return ray.remote(known_labels).options(**options).remote(task)

    def probe(self, block: QueryBlock, *, gpu: bool) -> Rates:
        """Rates of the engines on the first shard."""
        import ray

        loaded = self._actors.loaders[0].load.remote(self._sent, block, self._known)
        rates: Rates = ray.get(self._actors.holders[0].probe.remote(self._sent, self.first[0], loaded, gpu))
        return rates

    def hits(self, block: QueryBlock, hows: Sequence[How], *, first_only: bool = False) -> list[BlockHits]:
        """The hits of a small block in several ways, over all shards or those of the first wave only.

        No shard is loaded twice for them.
        """
        import ray

        loaded = self._actors.loaders[0].load.remote(self._sent, block, self._known)
        merged: list[list[Any]] = [[] for _ in hows]
        for wave in self._waves[:1] if first_only else self._waves:
            for place, how in enumerate(hows):
                hits = self._search(wave, loaded, how, 0)
                merged[place] = [self._actors.writers[0].merge.remote(self._sent, *hits, *merged[place])]
        return [ray.get(found) for (found,) in merged]

    def write(self, jobs: Sequence[Job]) -> tuple[list[Part], float]:
        """Search all jobs in all waves and write them: (their parts, seconds of the slowest shards added up)."""
        if not jobs:
            return [], 0.0
        pairs = sum(len(job.block.query_rows) for job in jobs) * self._waves[-1][-1].stop
        post(self._task.mailbox, "search", "", of=pairs)
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

    def _search(self, wave: Sequence[ShardRange], loaded: Any, how: How, block: int) -> list[Any]:
        hits = [
            holder.search.remote(self._sent, rows, loaded, how) for holder, rows in zip(self._actors.holders, wave, strict=False)
        ]
        return self._actors.joined(self._sent, hits, block)

    def _wave(
        self, wave: Sequence[ShardRange], before: Sequence[ShardRange] | None, jobs: Sequence[Job], *, last: bool = False
    ) -> list[Any]:
        """One wave over all jobs; a bounded number of blocks is in flight. Returns what `keep` or `write` did."""
        import ray

        there = {} if last else self._task.store.list(self._between(wave))
        running: list[Any] = []
        queries = max((len(job.block.query_rows) for job in jobs), default=0)
        in_flight = blocks_in_flight(len(wave), len(self._actors.writers), queries, self._task.num_hits)
        for place, job in enumerate(jobs):
            target = self._place(wave, job)
            if target in there:  # an interrupted search came this far
                continue
            if len(running) >= in_flight:
                ray.get(running[-in_flight])  # raises what went wrong, too
            writer = self._actors.writers[place % len(self._actors.writers)]
            loaded = self._actors.loaders[place % len(self._actors.loaders)].load.remote(self._sent, job.block, self._known)
            found = self._search(wave, loaded, job.how, place)
            kept = self._place(before, job) if before else None
            running.append(
                writer.write.remote(self._sent, job.path, loaded, kept, *found)
                if last
                else writer.keep.remote(self._sent, target, kept, *found)
            )
        return list(ray.get(running))

    def _between(self, wave: Sequence[ShardRange]) -> str:
        """Folder of the hits among all items up to the wave's last: valid however the corpus is cut later."""
        return f"{self._task.folder}/waves/{wave[-1].stop:012d}"

    def _place(self, wave: Sequence[ShardRange], job: Job) -> str:
        return f"{self._between(wave)}/{job.how.mode}-{job.how.probes}-{part_name(job.block.index)}"


def _near(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=True)
