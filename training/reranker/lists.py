"""Which items a query's list has in a step: a pure function of the plan, the labels, epoch and step.

The lists of all ranks are drawn at once and then cut by rank, so that two ranks see what one would; a list is never cut.

B queries, P relevant items, H hard and R random negatives of a query, L = P + H + R pairs of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels
from cluster.tables.tables import F32, I64
from training.feed.batches import BatchPlan, take_turns

MOST_RELEVANT = 4
"""Relevant items in a list, at most: enough to order grades, and few enough to leave room for what is irrelevant."""
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairValues:
    """A number for some pairs of query and item."""

    keys: I64
    """[V] query row times number of items, plus item row; ascending."""
    values: F32
    num_items: int

    @classmethod
    def of(cls, query_rows: I64, item_rows: I64, values: npt.NDArray[np.floating], num_items: int) -> PairValues:
        """From pairs in any order; of equal ones the first counts."""
        keys, first = np.unique(query_rows * num_items + item_rows, return_index=True)
        return cls(keys, values[first].astype(np.float32), num_items)

    def look_up(self, query_rows: I64, items_BL: I64, missing: float) -> F32:
        """[B, L] of each query and its items; `missing` where there is none, or where the item row is negative."""
        wanted = query_rows[:, None] * self.num_items + items_BL
        if not len(self.keys):
            return np.full(wanted.shape, missing, np.float32)
        index = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = (self.keys[index] == wanted) & (items_BL >= 0)
        return np.where(known, self.values[index], np.float32(missing))


@dataclass(frozen=True)
class Lists:
    """The lists of a micro-step."""

    query_rows: I64
    """[B]"""
    item_rows: I64
    """[B, L] no item twice in a list; -1: none, the list is shorter. The first item is relevant."""
    gains: F32
    """[B, L]"""
    teacher: F32
    """[B, L] a teacher's scores, NaN where it has none."""
    weights: F32
    """[B] of each query's loss."""

    @property
    def real(self) -> Bool:
        """[B, L] where there is an item."""
        return self.item_rows >= 0

    def rows(self, part: slice) -> Lists:
        """Some of the lists."""
        return Lists(self.query_rows[part], self.item_rows[part], self.gains[part], self.teacher[part], self.weights[part])

    def pairs(self) -> tuple[I64, I64]:
        """(query rows, item rows) of all pairs, list after list."""
        owner, column = np.nonzero(self.real)
        return self.query_rows[owner], self.item_rows[owner, column]


def draw_lists(plan: BatchPlan, labels: Labels, gains: PairValues, teacher: PairValues, epoch: int, step: int) -> Lists:
    """The lists of all ranks together in a micro-step, in rank order.

    A list has the relevant item whose turn it is and up to MOST_RELEVANT - 1 others; items judged irrelevant, then mined
    negatives, H of them together; and R random items. What is relevant, a copy of it or of its group is no negative, and of an
    item that comes twice the first one stays.
    """
    batch = plan.joined(epoch, step)
    queries, turns = batch.query_rows, np.full(len(batch.query_rows), epoch)

    def taken(offsets: I64, rows: I64, width: int) -> I64:
        return take_turns(offsets, rows, np.arange(len(queries)), turns, width, plan.seed, names=queries)

    relevant = np.concatenate([batch.positive_rows[:, None], taken(*labels.positives(queries), MOST_RELEVANT)], axis=1)
    relevant = _first(relevant, _fresh(relevant), MOST_RELEVANT)
    hard = np.concatenate([taken(*labels.judged_irrelevant(queries), plan.hard), batch.hard_BH], axis=1)
    items = np.concatenate([relevant, hard, batch.random_BR], axis=1)
    usable = _fresh(items)
    negative = np.arange(items.shape[1]) >= relevant.shape[1]
    usable &= ~(negative & labels.known_mask(queries, items))
    cut = MOST_RELEVANT + hard.shape[1]
    kept = _first(items[:, MOST_RELEVANT:cut], usable[:, MOST_RELEVANT:cut], plan.hard)
    items = np.concatenate([relevant, kept, np.where(usable[:, cut:], items[:, cut:], -1)], axis=1)
    return Lists(queries, items, gains.look_up(queries, items, 0.0), teacher.look_up(queries, items, np.nan), batch.weights)


def _fresh(items_BL: I64) -> Bool:
    """[B, L] whether there is an item, and not the same one before it in its list."""
    order = np.argsort(items_BL, axis=1, kind="stable")
    ordered = np.take_along_axis(items_BL, order, axis=1)
    again = np.zeros(items_BL.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    fresh: Bool = items_BL >= 0
    fresh[np.arange(len(order))[:, None], order] &= ~again
    return fresh


def _first(items_BL: I64, usable_BL: Bool, count: int) -> I64:
    """[B, count] the first usable items of each list, -1 behind them."""
    order = np.argsort(~usable_BL, axis=1, kind="stable")[:, :count]
    chosen: I64 = np.where(np.take_along_axis(usable_BL, order, axis=1), np.take_along_axis(items_BL, order, axis=1), -1)
    return chosen
