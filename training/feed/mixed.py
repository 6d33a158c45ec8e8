"""A plan of batches with steps of a second data set between them: a step's examples are of one set, its negatives are, too.

An item of one corpus may well answer a query of the other, and no label would say so. So nothing is compared across corpora:
every micro-step is of one set, and a share of them is of the second. Like any plan it is a pure function of (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from cluster.labels.labels import Labels, short_codes
from cluster.tables.tables import I64
from training.feed.batches import Batch, BatchPlan
from training.feed.feed import join_features
from training.feed.sources import mixed_steps
from training.feed.tables import Tables

Steps = list[tuple[int, int]]


@dataclass(frozen=True)
class MixedPlan(BatchPlan):
    """The run's own plan, every epoch of which has more steps: those of `second`, evenly among them."""

    second: BatchPlan | None = None
    """Goes its own epochs, round and round."""
    share: float = 0.0
    """Of all micro-steps, of the second set."""

    @classmethod
    def join(cls, first: BatchPlan, second: BatchPlan, share: float) -> MixedPlan:
        """Both plans as one."""
        own = {field.name: getattr(first, field.name) for field in fields(BatchPlan) if field.init}
        return cls(**own, second=second, share=share)

    @property
    def own_steps(self) -> int:
        """Micro-steps of the run's own examples in every epoch."""
        return super().micro_steps

    @property
    def micro_steps(self) -> int:
        """Of both sets."""
        return self.own_steps + mixed_steps(self.own_steps, self.share)

    def turn(self, epoch: int, step: int) -> tuple[bool, int, int]:
        """(whether a micro-step is of the second set, its epoch and step there)."""
        assert self.second is not None
        every = self.micro_steps
        added = every - self.own_steps
        before, after = step * added // every, (step + 1) * added // every
        if after == before:
            return False, epoch, step - before
        return True, *divmod(epoch * added + before, self.second.micro_steps)

    def divide(self, micro_steps: Iterable[tuple[int, int]]) -> tuple[Steps, Steps]:
        """Which steps of each set some micro-steps are."""
        turns = [self.turn(epoch, step) for epoch, step in micro_steps]
        own, second = ([(epoch, step) for of_second, epoch, step in turns if of_second is which] for which in (False, True))
        return own, second

    def joined(self, epoch: int, step: int) -> Batch:
        """As `BatchPlan.joined`."""
        assert self.second is not None
        of_second, epoch, step = self.turn(epoch, step)
        return self.second.joined(epoch, step) if of_second else super().joined(epoch, step)

    def describe(self) -> str:
        """What is mixed in, in one line for people."""
        assert self.second is not None
        return (
            f"[data.mix] {self.micro_steps - self.own_steps:,} of {self.micro_steps:,} micro-steps of an epoch, of "
            f"{len(self.second.examples):,} queries"
        )


def behind(plan: BatchPlan, queries: int, items: int) -> BatchPlan:
    """The plan for rows that come after so many queries and items of another set."""
    examples = replace(
        plan.examples,
        query_rows=plan.examples.query_rows + queries,
        positive_rows=plan.examples.positive_rows + items,
        negative_rows=plan.examples.negative_rows + items,
    )
    pool = np.arange(plan.num_items) if plan.pool is None else plan.pool
    return replace(plan, examples=examples, pool=pool + items)


def join_tables(first: Tables, second: Tables) -> Tables:
    """What is loaded of both sets, the second one's rows behind the first one's. Memory: for a moment twice of it."""
    assert first.guide is None
    a, b = first.labels, second.labels
    return Tables(
        join_features(first.queries, second.queries),
        join_features(first.items, second.items),
        Labels(
            num_queries=a.num_queries + b.num_queries,
            num_items=a.num_items + b.num_items,
            offsets=np.concatenate([a.offsets, b.offsets[1:] + a.offsets[-1]]),
            item_rows=np.concatenate([a.item_rows, b.item_rows + a.num_items]),
            scores=np.concatenate([a.scores, b.scores]),
            group_codes=short_codes(_apart(a.group_codes.astype(np.int64), b.group_codes.astype(np.int64))),
            text_codes=short_codes(_apart(a.text_codes.astype(np.int64), b.text_codes.astype(np.int64))),
            self_rows=_self_rows(a, b),
        ),
    )


def _apart(first: I64, second: I64) -> I64:
    """Codes of both sets, of which only equality within a set counts; -1: none."""
    return np.concatenate([first, np.where(second < 0, -1, second + first.max(initial=-1) + 1)])


def _self_rows(a: Labels, b: Labels) -> I64:
    assert a.self_rows is not None
    assert b.self_rows is not None
    return np.concatenate([a.self_rows, np.where(b.self_rows < 0, -1, b.self_rows + a.num_items)])
