"""How a search is done: which mode and engine, from counts and measured rates. Pure.

Seconds are of one search actor per query and item; all modes share the same pool, so its size divides them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cluster.errors import ConfigError
from mining.search.engines import EngineName
from mining.search.ivf import SAMPLE_PER_LIST, TRAINING_ROUNDS, usual_lists
from mining.settings import SearchSettings

SHORT_S = 30.0
"""An exact search that takes less is not worth approximating."""
WORTHWHILE = 1 / 1.2
"""Another search must take less than this share of the exact one's seconds: so "auto" is never more than 20 % above the best."""
SMALL_PRODUCTS = 2.5e9
"""Up to this many query–item pairs nothing is probed: the search takes seconds on any engine."""
LIKELY_SHARE = 1 / 32
"""Share of the lists that is assumed to be read before it is tuned."""
CERTAIN_OVERSAMPLE = 2.0
OVERSAMPLE = 1.25
"""two_stage, ivf: items that the first pass keeps, as a multiple of num_hits; an engine keeps more where that was too few."""
TWO_STAGE_RECALL = 0.999
"""A two-stage search that finds less is done exactly instead."""
FIRST_PROBES = 4
RECALL_QUERIES = 256
"""Queries in the sample on which the recall of a search that is not exact is measured."""
PROBE_ITEMS, DEVICE_ITEMS = (8192, 32_768), (131_072, 1_048_576)
"""Items that an engine is timed on; on a GPU many: few take the time of a launch, which says nothing about a shard."""


@dataclass(frozen=True)
class How:
    """One way to search; equal for all shards and blocks of a search."""

    mode: str
    """exact, two_stage or ivf"""
    engine: EngineName
    oversample: float = 1.0
    probes: int = 0
    """Lists read per query."""
    centroids: str | None = None
    """Where the centroids lie in the run's store."""


@dataclass(frozen=True)
class Decision:
    """How to search; kept in storage, so that a resumed search continues the same way."""

    how: How
    figures: dict[str, Any] = field(default_factory=dict)
    """What the search reports; has "recall" once that was verified."""


@dataclass(frozen=True)
class Rate:
    """Seconds of an engine: per_pair × queries × items + per_query × queries."""

    per_pair: float
    per_query: float

    def seconds(self, queries: int, items: int) -> float:
        """Of one actor that searches everything."""
        return self.per_pair * queries * items + self.per_query * queries


def probe_items(rows: int, *, on_gpu: bool) -> tuple[int, int]:
    """(few, many) items of a shard of `rows` that an engine is timed on: never the same number, whose times tell no rate."""
    few, many = DEVICE_ITEMS if on_gpu else PROBE_ITEMS
    many = min(many, rows)
    return min(few, many // 4), many


@dataclass(frozen=True)
class Work:
    """How much there is to search."""

    queries: int
    items: int
    actors: int


Rates = Mapping[str, Rate]
"""By engine; "int8" stands for certain bounds, "int8:likely" for those of a two-stage search. Those of "half" are narrow
enough to be certain always: on a GPU a two-stage search finds what an exact one does."""


def exact_engine(settings: SearchSettings, rates: Rates, work: Work, *, gpu: bool) -> EngineName:
    """The engine of an exact search: the one that is set, else the fastest that was measured."""
    if settings.engine != "auto":
        return settings.engine
    known = {name: rate.seconds(work.queries, work.items) for name, rate in rates.items() if ":" not in name}
    fastest = min(known, key=lambda name: known[name]) if known else ("torch" if gpu else "faiss")
    return cast(EngineName, fastest)


def estimates(settings: SearchSettings, rates: Rates, work: Work, *, gpu: bool) -> dict[str, float]:
    """The cost model of "auto": seconds of each mode on the pool; a mode whose engine was not measured is missing."""
    exact = rates.get(exact_engine(settings, rates, work, gpu=gpu))
    if exact is None:
        return {}
    actors, seconds = work.actors, {"exact": exact.seconds(work.queries, work.items) / work.actors}
    # an approximate search is tuned on one sample of queries and verified on another; both are also searched in float32
    plain = rates.get("torch" if gpu else "faiss", exact)
    samples = 2 * plain.seconds(RECALL_QUERIES, work.items) / actors
    first_pass = "half" if gpu else "int8:likely"
    if first_pass in rates:
        seconds["two_stage"] = rates[first_pass].seconds(work.queries, work.items) / actors + samples
    if "int8:likely" in rates and "faiss" in rates:
        lists = settings.lists or usual_lists(work.items)
        on_cpu, product = rates["faiss"].per_pair, rates["int8:likely"]  # lists are made and read on CPUs, whatever the pool has
        train = on_cpu * lists * lists * SAMPLE_PER_LIST * TRAINING_ROUNDS  # one task, whatever the pool
        build = on_cpu * work.items * lists / actors
        read = product.per_pair * work.queries * work.items * LIKELY_SHARE * 2 / actors
        seconds["ivf"] = train + build + read + product.per_query * work.queries / actors + samples
    return seconds


def choose_how(settings: SearchSettings, rates: Rates, work: Work, *, gpu: bool) -> How:
    """The mode that is set, or for "auto" the cheapest; exact if that is short or nothing was measured."""
    mode: str = settings.mode
    if mode == "auto":
        costs = estimates(settings, rates, work, gpu=gpu)
        exact, cheapest = costs.get("exact", 0.0), min(costs, key=lambda name: costs[name], default="exact")
        mode = cheapest if exact >= SHORT_S and costs[cheapest] <= WORTHWHILE * exact else "exact"
    if mode == "exact":
        return exact_how(settings, rates, work, gpu=gpu)
    if mode == "two_stage":
        return How("two_stage", "half" if gpu else "int8", OVERSAMPLE)
    return How("ivf", "int8", OVERSAMPLE)


def exact_how(settings: SearchSettings, rates: Rates, work: Work, *, gpu: bool) -> How:
    """An exact search."""
    return How("exact", exact_engine(settings, rates, work, gpu=gpu), CERTAIN_OVERSAMPLE)


def aimed_recall(min_recall: float) -> float:
    """The recall that lists are tuned to on a sample: a little above the minimum, because a sample is no proof."""
    return min_recall + 0.4 * (1.0 - min_recall)


def more_probes(probes: int, lists: int) -> int:
    """The next number of lists to try."""
    return min(2 * probes, lists)


def after_recall(decision: Decision, recall: float, settings: SearchSettings, plain: How) -> Decision:
    """What follows from the recall of a finished search over all shards.

    Args:
        plain: an exact search, which replaces a two-stage one that misses too much.

    Returns:
        The same way, with its recall; or another way, without: then search again.

    Raises:
        ConfigError: the recall that is asked for is not reached though everything was read.
    """
    how, figures = decision.how, decision.figures
    if recall >= (TWO_STAGE_RECALL if how.mode == "two_stage" else settings.min_recall):
        return Decision(how, figures | {"recall": recall})
    if how.mode == "two_stage":
        return Decision(plain, figures | {"mode": "exact", "engine": plain.engine, "two_stage_recall": recall})
    lists = int(figures["lists"])
    if how.probes >= lists:
        raise ConfigError(
            f"expected a recall of mining.search.min_recall = {settings.min_recall} of the approximate search, "
            f'found {recall:.4f} though all {lists} lists were read; set mining.search.mode = "exact"'
        )
    probes = more_probes(how.probes, lists)
    return Decision(replace(how, probes=probes), figures | {"probes": probes, "widened_at_recall": round(recall, 4)})
