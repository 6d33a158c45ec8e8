"""Passes over all blocks of hits as Ray tasks: calibrating the cuts, choosing the negatives.

Every task takes a few blocks, so that labels and ids are read once for them; the driver sees counts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cluster.session.session import set_threads, task_groups
from cluster.tables.tables import Part
from mining.choice.calibrate import Histogram, block_histogram, needs_calibration, resolve_cuts
from mining.choice.filters import filters_before_cuts
from mining.negatives import MineTask, load_side, mine_block, read_block
from mining.report.counts import Counts


def with_cuts(task: MineTask, *, retries: int) -> MineTask:
    """The task with calibrated cuts, if its settings ask for them; what a teacher says plays no part in it."""
    import ray

    if not needs_calibration(task.settings) or task.cuts is not None:
        return task
    remote = ray.remote(_calibrate_group).options(max_retries=retries)
    total = Histogram()
    for histogram in ray.get([remote.remote(task, group) for group in task_groups(len(task.hits))]):
        total.add(histogram)
    return replace(task, cuts=resolve_cuts(task.settings, total))


def mine(task: MineTask, *, retries: int) -> tuple[list[Part], Counts]:
    """Choose the negatives of all hits parts.

    With settings.max_uses one task takes all blocks in the order of their queries: what an item may still be chosen for
    depends on all queries before.
    """
    import ray

    task = with_cuts(task, retries=retries)
    groups = task_groups(len(task.hits)) if task.settings.max_uses is None else [list(range(len(task.hits)))]
    remote = ray.remote(_mine_group).options(max_retries=retries)
    total, parts = Counts(), []
    for group_parts, counts in ray.get([remote.remote(task, group) for group in groups]):
        parts.extend(group_parts)
        total.add(counts)
    return sorted(parts, key=lambda part: part.path), total


def _calibrate_group(task: MineTask, numbers: Sequence[int]) -> Histogram:
    set_threads(1)
    side, total = load_side(task), Histogram()
    for number in numbers:
        block = read_block(task, number, side)
        left = filters_before_cuts(block.candidates, side.labels, side.attributes, task.settings, near=block.near)
        total.add(block_histogram(block.candidates, left, task.settings, block.positive_scores))
    return total


def _mine_group(task: MineTask, numbers: Sequence[int]) -> tuple[list[Part], Counts]:
    set_threads(1)
    side, total, parts = load_side(task), Counts(), []
    uses = None if task.settings.max_uses is None else np.zeros(side.labels.num_items, np.int32)
    for number in numbers:
        part, counts = mine_block(task, number, side, uses)
        parts.append(part)
        total.add(counts)
    return parts, total
