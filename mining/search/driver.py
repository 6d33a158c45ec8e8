"""Search: shards in Ray actors, query blocks streamed through all of them, hits merged exactly and written per block.

If there are more shards than actors, they are searched in waves; the hits of a block wait in storage between waves. Every
finished block is one object, so an interrupted search repeats only the blocks that were running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.session.nodes import on_work_node
from cluster.session.resources import PoolSize
from cluster.session.session import set_threads
from cluster.storage.records import read_if_there, write_record
from cluster.tables.rows import load_vectors
from cluster.tables.tables import Part, left_parts, part_name, read_part, vectors_to_column, write_part
from mining.search.block_actor import SearchTask
from mining.search.how import (
    FIRST_PROBES,
    RECALL_QUERIES,
    SMALL_PRODUCTS,
    TWO_STAGE_RECALL,
    Decision,
    How,
    Rates,
    Work,
    after_recall,
    aimed_recall,
    choose_how,
    estimates,
    exact_how,
    more_probes,
)
from mining.search.ivf import SAMPLE_PER_LIST, train_centroids, usual_lists
from mining.search.recall import recall_of, sample_blocks, sampled_parts
from mining.search.shards import QueryBlock, ShardRange
from mining.search.waves import Job, Waves
from mining.settings import SearchSettings


@dataclass(frozen=True)
class Searched:
    """What a search wrote."""

    parts: list[Part]
    seconds: float
    """Searching time of the slowest shard of every block, added up."""
    figures: dict[str, Any]
    """Mode, engine, probes, recall and on how many queries, rates of the engines that were probed (1e9 pairs a second), estimated
    seconds of each mode."""


def search(
    task: SearchTask,
    shards: Sequence[ShardRange],
    blocks: Sequence[QueryBlock],
    pool: PoolSize,
    settings: SearchSettings,
    *,
    retries: int,
    seed: int = 0,
    mailbox: Any = None,
) -> Searched:
    """Search every block that is not finished yet in all shards.

    An exact search gives the same bytes for any number of shards and actors and any block size.

    Raises:
        ArtifactError: vectors are missing.
        ConfigError: the recall that is asked for is not reached.
    """
    task = replace(task, mailbox=mailbox)
    with Waves(task, shards, pool, retries=retries) as waves:
        return _Driver(task, shards, blocks, pool, settings, retries, seed, waves).search()


class _Driver:
    def __init__(
        self,
        task: SearchTask,
        shards: Sequence[ShardRange],
        blocks: Sequence[QueryBlock],
        pool: PoolSize,
        settings: SearchSettings,
        retries: int,
        seed: int,
        waves: Waves,
    ) -> None:
        self._task, self._shards, self._blocks, self._pool = task, shards, blocks, pool
        self._settings, self._retries, self._seed = settings, retries, seed
        self.waves = waves
        self._note = f"{task.folder}/how.json"

    @property
    def _plain(self) -> How:
        """The exact search that samples are measured against: in float32, because an 8-bit copy does not pay for few queries."""
        return How("exact", "torch" if self._pool.gpus else "faiss")

    def search(self) -> Searched:
        decision = self._kept() or self._decide()
        seconds = 0.0
        while True:
            parts, took = self._blocks_as(decision.how)
            seconds += took
            if decision.how.mode == "exact" or "recall" in decision.figures:
                break
            decision = self._verify(decision)
            self._keep(decision)
        self.waves.clear()
        return Searched(parts, seconds, decision.figures)

    def _kept(self) -> Decision | None:
        note = read_if_there(self._task.store, self._note)
        return Decision(How(**note["how"]), note["figures"]) if note else None

    def _keep(self, decision: Decision) -> None:
        write_record(self._task.store, self._note, {"how": asdict(decision.how), "figures": decision.figures})

    def _blocks_as(self, how: How) -> tuple[list[Part], float]:
        """The parts of all blocks; finished ones are kept."""
        folder = f"{self._task.folder}/probes-{how.probes}" if how.mode == "ivf" else f"{self._task.folder}/{how.mode}"
        targets = {block.index: f"{folder}/{part_name(block.index)}" for block in self._blocks}
        parts = left_parts(self._task.store, [Part(targets[block.index], len(block.query_rows), 0) for block in self._blocks])
        jobs = [Job(block, how, targets[block.index]) for block in self._blocks if targets[block.index] not in parts]
        written, seconds = self.waves.write(jobs)
        parts |= {part.path: part for part in written}
        return [parts[targets[block.index]] for block in self._blocks], seconds

    def _decide(self) -> Decision:
        """The mode and engine: as set, or by measured rates and counts."""
        queries = sum(len(block.query_rows) for block in self._blocks)
        work = Work(queries, self._shards[-1].stop, len(self.waves.first))
        gpu, rates = bool(self._pool.gpus), self._rates(work)
        how = choose_how(self._settings, rates, work, gpu=gpu)
        if not self._task.num_hits:  # only pairs are scored, which is always exact
            how = exact_how(self._settings, {}, work, gpu=gpu)
        figures: dict[str, Any] = {}
        if rates:
            pairs = work.queries * work.items
            figures["probe"] = {
                name: float(f"{pairs / rate.seconds(work.queries, work.items) / 1e9:.3g}") for name, rate in rates.items()
            }
            figures["estimated_seconds"] = {
                mode: round(seconds, 1) for mode, seconds in estimates(self._settings, rates, work, gpu=gpu).items()
            }
        if how.mode != "exact":
            how, tuned = self._tune(how, rates, work)
            figures |= tuned
        figures |= {"mode": how.mode, "engine": how.engine, "probes": how.probes}
        decision = Decision(how, figures)
        self._keep(decision)
        return decision

    def _rates(self, work: Work) -> Rates:
        """The rates of the engines, if the search takes a while and there is a choice; else none."""
        small = work.queries * work.items < SMALL_PRODUCTS or not self._task.num_hits
        if small or (self._settings.mode == "exact" and self._settings.engine != "auto"):
            return {}
        return self.waves.probe(self._blocks[0], gpu=bool(self._pool.gpus))

    def _tune(self, how: How, rates: Rates, work: Work) -> tuple[How, dict[str, Any]]:
        """Accept a two-stage search or find the number of lists to read, on a sample against the shards of the first wave."""
        tune, _ = sample_blocks(self._blocks, RECALL_QUERIES)
        (truth,) = self.waves.hits(tune, [self._plain], first_only=True)
        if how.mode == "two_stage":
            (found,) = self.waves.hits(tune, [how], first_only=True)
            recall = recall_of(found.rows, truth.rows)
            exact = exact_how(self._settings, rates, work, gpu=bool(self._pool.gpus))
            return (how if recall >= TWO_STAGE_RECALL else exact), {"two_stage_recall": recall}
        centroids, lists = self._centroids(work)
        how = replace(how, centroids=centroids)
        tried: dict[str, float] = {}
        probes = min(FIRST_PROBES, lists)
        while True:
            how = replace(how, probes=probes)
            recall = recall_of(self.waves.hits(tune, [how], first_only=True)[0].rows, truth.rows)
            tried[str(probes)] = round(recall, 4)
            if recall >= aimed_recall(self._settings.min_recall) or probes == lists:
                return how, {"lists": lists, "recall_by_probes": tried}
            probes = more_probes(probes, lists)

    def _centroids(self, work: Work) -> tuple[str, int]:
        """(address, how many): trained in one task with an actor's CPUs, unless an earlier attempt left them."""
        import ray

        path = f"{self._task.folder}/centroids.parquet"
        if not self._task.store.exists(path):
            lists = min(self._settings.lists or usual_lists(work.items), work.items)
            remote = ray.remote(_train).options(num_cpus=0, max_retries=self._retries, scheduling_strategy=on_work_node(0))
            ray.get(remote.remote(self._task, lists, self._seed, self._pool.cpus, path))
        return path, read_part(self._task.store, path).num_rows

    def _verify(self, decision: Decision) -> Decision:
        """Measure recall against exact search of all shards, on queries that nothing was tuned on."""
        _, sample = sample_blocks(self._blocks, RECALL_QUERIES)
        recall = recall_of(*(hits.rows for hits in self.waves.hits(sample, [decision.how, self._plain])))
        measured = Decision(decision.how, decision.figures | {"recall_queries": len(sample.query_rows)})
        return after_recall(measured, recall, self._settings, self._plain)


def _train(task: SearchTask, lists: int, seed: int, threads: int, path: str) -> None:
    """Centroids of a sample of all vectors, into the store."""
    import faiss  # noqa: F401  loaded before its threads are set

    set_threads(threads)
    rng, sample = np.random.default_rng(seed), []
    for part, count in sampled_parts(task.item_vectors, lists * SAMPLE_PER_LIST):
        vectors = load_vectors(task.store, [part])
        sample.append(vectors[np.sort(rng.choice(len(vectors), count, replace=False))])
    centroids = train_centroids(np.concatenate(sample), lists, seed)
    write_part(task.store, path, pa.table({"vector": vectors_to_column(centroids)}))
