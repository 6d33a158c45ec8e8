"""Parts of a training's curves: the late part, the change over the second half, what validations did.

Figures that are missing are NaN, and no comparison with NaN holds: a rule whose figures are missing says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eval.diagnosis.evidence import F64, Arm, Evidence, Training
from eval.diagnosis.thresholds import DiagnosisSettings

SAME_QUERIES = 0.65
"""Correlation of two models' recall over the same queries where only means are known: 0.62 to 0.70 between the rounds and arms
of the demo."""


def late(training: Training, column: str, limits: DiagnosisSettings) -> float:
    """Mean of a column over the late steps; NaN where it is missing or the training is too short."""
    return part(training, column, 1 - limits.late_share, 1.0, limits)


def part(training: Training, column: str, start: float, stop: float, limits: DiagnosisSettings) -> float:
    """Mean of a column from share `start` to share `stop` of the steps; NaN as `late`."""
    values = training.steps.get(column)
    if values is None or len(values) < limits.min_steps:
        return math.nan
    chosen = values[round(start * len(values)) : round(stop * len(values))]
    chosen = chosen[np.isfinite(chosen)]
    return float(chosen.mean()) if len(chosen) else math.nan


def fall(training: Training, column: str, limits: DiagnosisSettings) -> float:
    """By what share of itself a column fell from the second quarter of the steps to the last one; below 0: it rose."""
    before, after = part(training, column, 0.25, 0.5, limits), part(training, column, 0.75, 1.0, limits)
    return 1 - after / before if before > 0 else math.nan


def steps_text(training: Training, start: float = 0.75, stop: float = 1.0) -> str:
    """Where a part of a training lies, for a person: "round-02-random, steps 226–300"."""
    size = max((len(values) for values in training.steps.values()), default=0)
    steps = training.steps.get("step", np.arange(1, size + 1, dtype=np.float64))
    chosen = steps[round(start * len(steps)) : round(stop * len(steps))]
    chosen = chosen[np.isfinite(chosen)]
    return f"{training.name}, steps {chosen[0]:.0f}–{chosen[-1]:.0f}" if len(chosen) else training.name


def late_text(training: Training, limits: DiagnosisSettings) -> str:
    """Where `late` looks."""
    return steps_text(training, 1 - limits.late_share, 1.0)


def temperature(training: Training, evidence: Evidence, limits: DiagnosisSettings) -> float:
    """τ late in a training, from its telemetry, else from the settings; NaN where neither has it."""
    found = late(training, "temperature", limits)
    told = evidence.settings.get("training.temperature")
    if math.isfinite(found) or not isinstance(told, int | float) or isinstance(told, bool):
        return found
    return float(told)


def validations(arm: Arm) -> F64:
    """Validation recall over all trainings of an arm, in order: all are of the same queries and items."""
    parts = [training.validation_recall for training in arm.trainings]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def second_half_gain(values_V: F64) -> float:
    """Best of the second half minus best of the first; NaN with fewer than four values."""
    half = len(values_V) // 2
    return float(values_V[half:].max() - values_V[:half].max()) if half >= 2 else math.nan


def recall_noise(recall: float, queries: float) -> float:
    """Standard error of the difference of two models' mean recall over the same queries.

    Recall of one query lies in 0 .. 1, so its variance is at most p (1 - p); two models agree on most queries
    (`SAME_QUERIES`). 0 where the number of queries is not known.
    """
    if not queries > 0 or not 0 <= recall <= 1:
        return 0.0
    return math.sqrt(2 * (1 - SAME_QUERIES) * recall * (1 - recall) / queries)


def finite(values: Sequence[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if math.isfinite(value)]
