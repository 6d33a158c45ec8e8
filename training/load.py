"""What the ranks of a round read, loaded once: the tokens or vectors of the rows that its steps name, never the corpus.

A step is a pure function of the plan, so the rows of all steps are known before the first. They are numbered anew in their own
order; nothing behind this module knows of the run's rows. Where Ray trains, one task loads them, and the ranks of a node share
its result. Up to POOL_ROWS queries or items, everything is loaded and keeps its number.

Q queries and N items of the run, M of them that are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.labels.labels import Labels, gather_csr, short_codes
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, Part, offsets_of
from training.encoders.tokens.features import Vectors, load_features
from training.engine.checkpoint import newest_state
from training.engine.schedule import Pace
from training.feed.batches import BatchPlan, Examples
from training.feed.memory import POOL_ROWS
from training.feed.tables import Guide, Tables
from training.task import Told, TrainTask, read_examples
from training.validation import ValidationSet, choose_validation

POOL_STREAM = 0x9001
"""Keeps the pool's random numbers apart from those of sources, epochs and steps."""
NOT_LOADED = np.int64(2**62)
"""Row of a mined or random item that no step names: to ask for its features is an IndexError, never another item's."""


@dataclass(frozen=True)
class Loaded:
    """What every rank holds."""

    tables: Tables
    plan: BatchPlan
    """Of rank 0."""
    check: ValidationSet | None
    """None: no dev query has a relevant item."""


def load(task: TrainTask, world: int, *, pool_rows: int = POOL_ROWS) -> Loaded:
    """Everything of a task but its model.

    Args:
        world: ranks.
        pool_rows: random negatives come from so many items, drawn by the plan's seed; all, where there are no more.

    Raises:
        DataError: no training query has a relevant item. ConfigError: the examples do not fill an optimizer step.
    """
    told = read_examples(task)
    num_items, num_queries = told.labels.num_items, told.labels.num_queries
    pool = None
    if num_items > pool_rows:
        rng = np.random.default_rng([plan_seed(task), POOL_STREAM])
        pool = np.sort(rng.choice(num_items, pool_rows, replace=False, shuffle=False))
    state = newest_state(task.store, task.folder)
    joined = state.joined if state is not None else task.joined or 0
    plan = plan_batches(task, told.examples, num_items, pool, world, joined)
    check = choose_validation(told.dev, told.near_misses, told.labels, task.settings, task.seed, pool)
    queries = np.arange(num_queries)
    if num_queries > pool_rows:
        queries = np.union1d(told.examples.query_rows, check.query_rows if check else np.zeros(0, np.int64))
    items = np.arange(num_items) if pool is None else _named_items(task, told, plan, check, queries)
    tables = Tables(
        load_features(task.store, task.data.query_features, queries),
        load_features(task.store, task.data.item_features, items),
        _labels_of(task, told.labels, queries, items),
        _guide(task, queries, items),
    )
    plan = replace(
        plan,
        examples=_renumbered(told.examples, queries, items),
        num_items=len(items),
        pool=None if pool is None else numbers(items, pool, missing=NOT_LOADED),
    )
    if check is not None:
        check = ValidationSet(numbers(queries, check.query_rows), numbers(items, check.item_rows))
    return Loaded(tables, plan, check)


def plan_seed(task: TrainTask) -> int:
    """The seed of a round's batches and pool."""
    return task.seed * 1009 + task.round


def plan_batches(task: TrainTask, examples: Examples, num_items: int, pool: I64 | None, world: int, joined: int = 0) -> BatchPlan:
    """The plan of rank 0.

    Args:
        joined: queries of all ranks together in a micro-step, where the round or the run began on other ranks; 0:
            training.batch_size of each rank.

    Raises:
        ConfigError: the examples do not fill an optimizer step.
    """
    settings = task.settings
    plan = BatchPlan.of(
        examples,
        settings,
        num_items=num_items,
        mined=bool(task.data.negatives),
        seed=plan_seed(task),
        rank=0,
        world=world,
        joined_size=joined,
        pool=pool,
    )
    if plan.micro_steps < settings.accumulation:
        raise ConfigError(
            f"an epoch has {plan.micro_steps} micro-step(s) of {plan.together} queries on {world} rank(s), "
            f"fewer than training.accumulation = {settings.accumulation}; lower training.accumulation or training.batch_size"
        )
    return plan


def numbers(loaded: I64, rows: I64, *, missing: np.int64 = NOT_LOADED) -> I64:
    """The place of each row among the loaded ones, which ascend; `missing` where it is not loaded."""
    place = np.searchsorted(loaded, rows)
    there = loaded[np.minimum(place, len(loaded) - 1)] == rows
    return np.where(there, place, missing).astype(np.int64)


def _micro_steps(task: TrainTask, plan: BatchPlan) -> Iterator[tuple[int, int]]:
    """(epoch, micro-step) of all that are trained, if the round does not stop early, and of one more: the feed is one ahead."""
    pace = Pace(task.schedule, plan.micro_steps, task.settings.accumulation, task.settings.max_steps)
    for number in range(pace.total_steps * task.settings.accumulation + 1):
        yield divmod(number, pace.micro_steps_per_epoch)


def _named_items(task: TrainTask, told: Told, plan: BatchPlan, check: ValidationSet | None, queries: I64) -> I64:
    """[M] the items of all steps and of validation, and those that are no negatives of the loaded queries: what a candidate is
    compared with."""
    _, index = gather_csr(told.labels.offsets, queries)
    known = told.labels.item_rows[index[told.labels.scores[index] != 0]]
    wanted = [plan.named_items(_micro_steps(task, plan)), known, *([check.item_rows] if check else [])]
    return np.unique(np.concatenate(wanted))


def _labels_of(task: TrainTask, labels: Labels, queries: I64, items: I64) -> Labels:
    """The labels of the loaded queries and items. What is judged irrelevant and not loaded is no candidate: it is left out."""
    owner, index = gather_csr(labels.offsets, queries)
    rows = numbers(items, labels.item_rows[index], missing=np.int64(-1))
    kept = rows >= 0
    codes = read_rows(task.store, task.data.codes, items, ["group_code", "text_code"])
    assert labels.self_rows is not None
    return Labels(
        num_queries=len(queries),
        num_items=len(items),
        offsets=offsets_of(np.bincount(owner[kept], minlength=len(queries))),
        item_rows=rows[kept],
        scores=labels.scores[index[kept]],
        group_codes=short_codes(codes["group_code"].to_numpy()),
        text_codes=short_codes(codes["text_code"].to_numpy()),
        self_rows=numbers(items, labels.self_rows[queries], missing=np.int64(-1)),
    )


def _renumbered(examples: Examples, queries: I64, items: I64) -> Examples:
    return replace(
        examples,
        query_rows=numbers(queries, examples.query_rows),
        positive_rows=numbers(items, examples.positive_rows),
        negative_rows=numbers(items, examples.negative_rows),
    )


def _guide(task: TrainTask, queries: I64, items: I64) -> Guide | None:
    if not task.data.guide_items:
        return None

    def side(parts: list[Part], rows: I64) -> npt.NDArray[np.float16]:
        features = load_features(task.store, parts, rows)
        assert isinstance(features, Vectors)
        return features.values.astype(np.float16, copy=False)

    return Guide(side(task.data.guide_queries, queries), side(task.data.guide_items, items))
