"""Parts of a training's curves: the late part, the change over the second half, what validations did.

Figures that are missing are NaN, and no comparison with NaN holds: a rule whose figures are missing says nothing.
"""

from __future__ import annotations

import math

import numpy as np

from eval.diagnosis.evidence import F64, Arm, Training

LATE_SHARE = 0.25
"""Share of a training's steps, at its end, that counts as late: rules look there, since every training starts with nearly equal
weights and a high loss."""
SAME_TRAINING = 0.85
"""Correlation of the recall of two epochs of one training over the same queries, where only means are known."""


def part(training: Training, column: str, start: float, stop: float, *, min_steps: int) -> float:
    """Mean of a column from share `start` to share `stop` of the steps.

    NaN where the column is missing or the training has fewer than `min_steps` steps with telemetry.
    """
    values = training.steps.get(column)
    if values is None or len(values) < min_steps:
        return math.nan
    chosen = values[round(start * len(values)) : round(stop * len(values))]
    chosen = chosen[np.isfinite(chosen)]
    return float(chosen.mean()) if len(chosen) else math.nan


def fall(training: Training, column: str, *, min_steps: int) -> float:
    """By what share of itself a column fell from the second quarter of the steps to the last one; below 0: it rose."""
    before, after = (part(training, column, start, start + 0.25, min_steps=min_steps) for start in (0.25, 0.75))
    return 1 - after / before if before > 0 else math.nan


def steps_text(training: Training, start: float = 1 - LATE_SHARE, stop: float = 1.0) -> str:
    """Where a part of a training lies, for a person: "round-02-random, steps 226–300"; without a part, the late one."""
    size = max((len(values) for values in training.steps.values()), default=0)
    steps = training.steps.get("step", np.arange(1, size + 1, dtype=np.float64))
    chosen = steps[round(start * len(steps)) : round(stop * len(steps))]
    chosen = chosen[np.isfinite(chosen)]
    return f"{training.name}, steps {chosen[0]:.0f}–{chosen[-1]:.0f}" if len(chosen) else training.name


def validations(arm: Arm) -> F64:
    """Validation recall over all trainings of an arm, in order: all are of the same queries and items."""
    parts = [training.validation_recall for training in arm.trainings]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def second_half_gain(values_V: F64) -> float:
    """Best of the second half minus best of the first; NaN with fewer than four values."""
    half = len(values_V) // 2
    return float(values_V[half:].max() - values_V[:half].max()) if half >= 2 else math.nan


def recall_noise(recall: float, queries: float, *, same: float) -> float:
    """Standard error of the difference of two models' mean recall over the same queries.

    Recall of one query lies in 0 .. 1, so its variance is at most p (1 - p).

    Args:
        queries: 0 where their number is not known; then the result is 0.
        same: correlation of the two models' recall.
    """
    if not queries > 0 or not 0 <= recall <= 1:
        return 0.0
    return math.sqrt(2 * (1 - same) * recall * (1 - recall) / queries)
