"""What the ranks of the retriever's training read, loaded once: the tokens or vectors of the rows that its steps name.

Where Ray trains, one task loads them, and the ranks of a node share its result. `training.rank.load` says how rows are numbered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError, DataError
from cluster.labels.labels import gather_csr
from cluster.tables.tables import I64, Part
from training.encoders.tokens.features import Vectors, load_features
from training.feed.batches import BatchPlan
from training.feed.memory import POOL_ROWS
from training.feed.mixed import MixedPlan, behind, join_tables
from training.feed.tables import Guide, Tables
from training.rank.load import NOT_LOADED, draw_pool, joined_before, labels_of, micro_steps, numbers, plan_batches, renumbered
from training.retriever.validation import ValidationSet, choose_validation
from training.task import Told, TrainTask, read_examples


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
    planned, mixed = _plan(task, world, pool_rows), task.mixed_in()
    if mixed is None:
        return _load(task, planned, pool_rows, micro_steps(task, planned.plan))
    try:
        second = _plan(mixed, world, pool_rows, joined_before(task))
    except (ConfigError, DataError) as error:
        raise type(error)(f"[data.mix]: {error}") from error
    plan = MixedPlan.join(planned.plan, second.plan, task.data.mix_share)
    of_run, of_second = plan.divide(micro_steps(task, plan))
    first, beside = _load(task, planned, pool_rows, of_run), _load(mixed, second, pool_rows, of_second)
    moved = behind(beside.plan, len(first.tables.queries), len(first.tables.items))
    joined = MixedPlan.join(first.plan, moved, task.data.mix_share)
    return Loaded(join_tables(first.tables, beside.tables), joined, first.check)


@dataclass(frozen=True)
class _Planned:
    """A data set before anything of it is loaded, by its own rows."""

    told: Told
    plan: BatchPlan
    check: ValidationSet | None
    pool: I64 | None


def _plan(task: TrainTask, world: int, pool_rows: int, joined: int | None = None) -> _Planned:
    told = read_examples(task)
    pool = draw_pool(task, told.labels.num_items, pool_rows)
    together = joined_before(task) if joined is None else joined
    plan = plan_batches(task, told.examples, told.labels.num_items, pool, world, together)
    check = choose_validation(told.dev, told.near_misses, told.labels, task.seed, pool)
    return _Planned(told, plan, check, pool)


def _load(task: TrainTask, planned: _Planned, pool_rows: int, steps: Iterable[tuple[int, int]]) -> Loaded:
    """What some micro-steps of a data set read."""
    told, plan, check, pool = planned.told, planned.plan, planned.check, planned.pool
    num_items, num_queries = told.labels.num_items, told.labels.num_queries
    queries = np.arange(num_queries)
    if num_queries > pool_rows:
        queries = np.union1d(told.examples.query_rows, check.query_rows if check else np.zeros(0, np.int64))
    items = np.arange(num_items) if pool is None else _named_items(told, plan, check, queries, steps)
    tables = Tables(
        load_features(task.store, task.data.query_features, queries),
        load_features(task.store, task.data.item_features, items),
        labels_of(task, told.labels, queries, items),
        _guide(task, queries, items),
    )
    plan = replace(
        plan,
        examples=renumbered(told.examples, queries, items),
        num_items=len(items),
        pool=None if pool is None else numbers(items, pool, missing=NOT_LOADED),
    )
    if check is not None:
        check = ValidationSet(numbers(queries, check.query_rows), numbers(items, check.item_rows))
    return Loaded(tables, plan, check)


def _named_items(told: Told, plan: BatchPlan, check: ValidationSet | None, queries: I64, steps: Iterable[tuple[int, int]]) -> I64:
    """[M] the items of all steps and of validation, and those that are no negatives of the loaded queries: what a candidate is
    compared with."""
    _, index = gather_csr(told.labels.offsets, queries)
    known = told.labels.item_rows[index[told.labels.scores[index] != 0]]
    wanted = [plan.named_items(steps), known, *([check.item_rows] if check else [])]
    return np.unique(np.concatenate(wanted))


def _guide(task: TrainTask, queries: I64, items: I64) -> Guide | None:
    if not task.data.guide_items:
        return None

    def side(parts: list[Part], rows: I64) -> npt.NDArray[np.float16]:
        features = load_features(task.store, parts, rows)
        assert isinstance(features, Vectors)
        return features.values.astype(np.float16, copy=False)

    return Guide(side(task.data.guide_queries, queries), side(task.data.guide_items, items))
