"""Passes over all blocks of hits as Ray tasks: calibrating the cuts, choosing the negatives.

What all of them read (`negatives.Side`) is the result of one task: it lies once in each node's shared memory, and goes when the
driver lets go of it. Every task takes a few blocks, so that ids are read once for them; the driver sees counts only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cluster.session.session import memory_to_ask, set_threads, task_groups
from cluster.tables.tables import Part
from mining.choice.calibrate import Histogram, block_histogram, needs_calibration, resolve_cuts
from mining.choice.filters import filters_before_cuts
from mining.memory import PROCESS_BYTES, mining_task_bytes, most_mining_tasks, node_bytes, sharing_bytes
from mining.negatives import MineTask, Side, load_side, mine_blocks, read_block
from mining.report.counts import Counts


class Passes:
    """The passes of one mining over its hits; their tasks share what they read."""

    def __init__(self, task: MineTask, *, retries: int) -> None:
        """Begin to read what they share."""
        import ray

        self.task, self._retries = task, retries
        items, labels = (sum(part.rows for part in parts) for parts in (task.codes, task.labels))
        queries, rules = sum(part.rows for part in task.queries), len({rule.column for rule in task.settings.rules})
        shared = node_bytes(items, labels, queries, rules, weighted=task.settings.popularity is not None)
        options = {"max_retries": retries, "memory": memory_to_ask(PROCESS_BYTES + shared + sharing_bytes(items))}
        self._side = ray.remote(load_side).options(**options).remote(task)
        uses = task.settings.max_uses is not None
        block = max((part.rows for part in task.hits), default=0)
        self._bytes = PROCESS_BYTES + mining_task_bytes(items if uses else 0, block, task.settings.num_hits)

    def with_cuts(self) -> MineTask:
        """The task with calibrated cuts, if its settings ask for them; what a teacher says plays no part in it."""
        if needs_calibration(self.task.settings) and self.task.cuts is None:
            total = Histogram()
            for histogram in self.over_blocks(_calibrate_group):
                total.add(histogram)
            self.task = replace(self.task, cuts=resolve_cuts(self.task.settings, total))
        return self.task

    def mine(self) -> tuple[list[Part], Counts]:
        """Choose the negatives of all hits parts.

        With settings.max_uses one task takes all blocks in the order of their queries: what an item may still be chosen for
        depends on all queries before.
        """
        self.with_cuts()
        total, parts = Counts(), []
        named = sum(part.rows for part in self.task.hits) * self.task.settings.num_negatives
        most = most_mining_tasks(sum(part.rows for part in self.task.codes), named)
        in_turn = self.task.settings.max_uses is not None
        for group_parts, counts in self.over_blocks(_mine_group, in_turn=in_turn, most=most):
            parts.extend(group_parts)
            total.add(counts)
        return sorted(parts, key=lambda part: part.path), total

    def over_blocks(
        self, function: Callable[[MineTask, Sequence[int], Side], Any], *, in_turn: bool = False, most: int | None = None
    ) -> list[Any]:
        """What `function` makes of some blocks each, in their order. `in_turn`: one task does all of them; `most`: so many."""
        import ray

        groups = [list(range(len(self.task.hits)))] if in_turn else task_groups(len(self.task.hits), most)
        remote = ray.remote(function).options(max_retries=self._retries, memory=memory_to_ask(self._bytes))
        return list(ray.get([remote.remote(self.task, group, self._side) for group in groups]))


def _calibrate_group(task: MineTask, numbers: Sequence[int], side: Side) -> Histogram:
    set_threads(1)
    total = Histogram()
    for number in numbers:
        block = read_block(task, number, side)
        left = filters_before_cuts(block.candidates, side.labels, side.attributes, task.settings, near=block.near)
        total.add(block_histogram(block.candidates, left, task.settings, block.positive_scores))
    return total


def _mine_group(task: MineTask, numbers: Sequence[int], side: Side) -> tuple[list[Part], Counts]:
    set_threads(1)
    total, parts = Counts(), []
    uses = None if task.settings.max_uses is None else np.zeros(side.labels.num_items, np.int32)
    for part, counts in mine_blocks(task, numbers, side, uses):
        parts.append(part)
        total.add(counts)
    return parts, total
