"""What the ranks of the retriever's training read, loaded once: the tokens or vectors of the rows that its steps name.

Where Ray trains, one task loads them, and the ranks of a node share its result. `training.rank.load` says how rows are numbered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import gather_csr
from cluster.tables.tables import I64, Part
from training.encoders.tokens.features import Vectors, load_features
from training.feed.batches import BatchPlan
from training.feed.memory import POOL_ROWS
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
    told = read_examples(task)
    num_items, num_queries = told.labels.num_items, told.labels.num_queries
    pool = draw_pool(task, num_items, pool_rows)
    plan = plan_batches(task, told.examples, num_items, pool, world, joined_before(task))
    check = choose_validation(told.dev, told.near_misses, told.labels, task.settings, task.seed, pool)
    queries = np.arange(num_queries)
    if num_queries > pool_rows:
        queries = np.union1d(told.examples.query_rows, check.query_rows if check else np.zeros(0, np.int64))
    items = np.arange(num_items) if pool is None else _named_items(task, told, plan, check, queries)
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


def _named_items(task: TrainTask, told: Told, plan: BatchPlan, check: ValidationSet | None, queries: I64) -> I64:
    """[M] the items of all steps and of validation, and those that are no negatives of the loaded queries: what a candidate is
    compared with."""
    _, index = gather_csr(told.labels.offsets, queries)
    known = told.labels.item_rows[index[told.labels.scores[index] != 0]]
    wanted = [plan.named_items(micro_steps(task, plan)), known, *([check.item_rows] if check else [])]
    return np.unique(np.concatenate(wanted))


def _guide(task: TrainTask, queries: I64, items: I64) -> Guide | None:
    if not task.data.guide_items:
        return None

    def side(parts: list[Part], rows: I64) -> npt.NDArray[np.float16]:
        features = load_features(task.store, parts, rows)
        assert isinstance(features, Vectors)
        return features.values.astype(np.float16, copy=False)

    return Guide(side(task.data.guide_queries, queries), side(task.data.guide_items, items))
