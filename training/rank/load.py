"""What a training reads is named before its first step, loaded once, and numbered anew: the rows of its steps, never the corpus.

A step is a pure function of the plan, so the rows of all steps are known before the first. They are numbered anew in their own
order; nothing behind this module knows of the run's rows. Up to POOL_ROWS queries or items, everything is loaded and keeps its
number.

Q queries and N items of the run, M of them that are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cluster.errors import ConfigError
from cluster.labels.labels import Labels, gather_csr, short_codes
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, offsets_of
from training.engine.checkpoint import newest_state
from training.engine.schedule import Pace
from training.feed.batches import BatchPlan, Examples
from training.task import Task

POOL_STREAM = 0x9001
"""Keeps the pool's random numbers apart from those of sources, epochs and steps."""
NOT_LOADED = np.int64(2**62)
"""Row of a mined or random item that no step names: to ask for its features is an IndexError, never another item's."""


def draw_pool(task: Task, num_items: int, pool_rows: int) -> I64 | None:
    """The items that random negatives come from, ascending, drawn by the plan's seed; None: all, where there are no more."""
    if num_items <= pool_rows:
        return None
    rng = np.random.default_rng([plan_seed(task), POOL_STREAM])
    return np.sort(rng.choice(num_items, pool_rows, replace=False, shuffle=False))


def joined_before(task: Task) -> int:
    """Queries of all ranks together in a micro-step, where the round or the run began on other ranks; 0: it did not."""
    state = newest_state(task.store, task.folder)
    return state.joined if state is not None else task.joined or 0


def plan_seed(task: Task) -> int:
    """The seed of a round's batches and pool."""
    return task.seed * 1009 + task.round


def plan_batches(task: Task, examples: Examples, num_items: int, pool: I64 | None, world: int, joined: int = 0) -> BatchPlan:
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


def micro_steps(task: Task, plan: BatchPlan) -> Iterator[tuple[int, int]]:
    """(epoch, micro-step) of all that are trained, if the round does not stop early, and of one more: the feed is one ahead."""
    pace = Pace(task.schedule, plan.micro_steps, task.settings.accumulation, task.settings.max_steps)
    for number in range(pace.total_steps * task.settings.accumulation + 1):
        yield divmod(number, pace.micro_steps_per_epoch)


def labels_of(task: Task, labels: Labels, queries: I64, items: I64) -> Labels:
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


def renumbered(examples: Examples, queries: I64, items: I64) -> Examples:
    """The examples by the numbers of what is loaded."""
    return replace(
        examples,
        query_rows=numbers(queries, examples.query_rows),
        positive_rows=numbers(items, examples.positive_rows),
        negative_rows=numbers(items, examples.negative_rows),
    )
