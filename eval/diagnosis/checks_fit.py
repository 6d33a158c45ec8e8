"""What over-fitting and a learning rate that is too high ask: what was lost since when, and what the loss did meanwhile."""

from __future__ import annotations

import math

import numpy as np

from eval.diagnosis import curves
from eval.diagnosis.case import MIN_QUERIES, Case
from eval.diagnosis.checks import BELOW_0, described
from eval.diagnosis.curves import LATE_SHARE
from eval.diagnosis.evidence import Measurement, Training
from eval.diagnosis.findings import Check, at_least, at_most, first_that_holds

RATE_RISE = 0.10
"""Learning rate too high: the loss rose by at least this share above that of the first tenth of the steps …"""
RATE_RECOVERY = 0.02
"""… or validation recall rose by at least this in a training that as a whole lost some."""
VALIDATED = 500.0
"""Queries of a run's own validation, at most; a test holds it to training.settings."""


def loss_fall_since(training: Training, step: float) -> float:
    """By what share the training loss fell from the steps before `step` to the end; as many steps on both sides."""
    loss, steps = training.steps.get("loss"), training.steps.get("step")
    if loss is None:
        return math.nan
    at = len(loss) if steps is None else int((steps <= step).sum())
    size = max(1, min(at, len(loss) - at))
    before, after = loss[at - size : at], loss[-size:]
    if at >= len(loss) or not len(before) or not before.mean() > 0 or not np.isfinite(after).all():
        return math.nan
    return float(1 - after.mean() / before.mean())


def best_before(case: Case) -> tuple[Measurement, Measurement] | None:
    """(the best model before the arm's last one, what it started from among them; the last one), as far as they were measured."""
    primary = case.evidence.primary
    models = [model for model in (case.arm.start, *case.arm.measurements) if model is not None and primary in model.metrics]
    if len(models) < 2 or min(model.queries for model in models) < MIN_QUERIES:
        return None
    return max(models[:-1], key=lambda model: model.metrics[primary]), models[-1]


def lost_since_best(case: Case, least: float) -> Check | None:
    """The arm's last model is worse than the best of those before it; whether chance may do that is said."""
    pair, primary = best_before(case), case.evidence.primary
    if pair is None:
        return None
    best, last = pair
    lost = best.metrics[primary] - last.metrics[primary]
    if not lost > 0:
        return None
    later = [m for m in case.arm.measurements if best not in case.arm.measurements or m.round > best.round]
    steps = [model.against_previous.get(primary) for model in later]
    # intervals of one change after another add up to at most this; that is safe, as whoever gains by luck loses it again
    far = math.sqrt(sum((step.high - step.mean) ** 2 for step in steps if step is not None))
    sure = "" if None in steps else ", beyond doubt" if far < lost else ", by itself no more than chance may do"
    return at_least(
        "lost",
        lost,
        least,
        f"{last.name} against {best.name}",
        f"{primary} {best.metrics[primary]:.3f} before, {last.metrics[primary]:.3f} now{sure}; lost",
    )


def loss_fall_since_best(case: Case) -> float:
    """By what share the training loss fell since the best model before the last one: from the first tenth of the training that
    came next, which began as that model, to the last quarter of the last one; NaN with too few steps in all."""
    pair = best_before(case)
    if pair is None:
        return math.nan
    best = pair[0]
    later = [t for t in case.arm.trainings if best not in case.arm.measurements or t.round > best.round]
    if sum(len(training.steps.get("loss", ())) for training in later) < case.min_steps:
        return math.nan
    before = curves.part(later[0], "loss", 0.0, 0.1, min_steps=1)
    after = curves.part(later[-1], "loss", 1 - LATE_SHARE, 1.0, min_steps=1)
    return 1 - after / before if before > 0 else math.nan


def fell_beyond_doubt(case: Case) -> Check | None:
    """The last training made the model worse than what it was trained from."""
    for where, interval in list(case.compared())[-1:]:
        return at_most("high end of the change", interval.high, BELOW_0, where, described(case, interval, "its high end"))
    return None


def thrown_off(case: Case, training: Training) -> Check | None:
    """Training began by making things worse: the loss rose above that of the first steps, or what validations saw came back."""
    first = case.part(training, "loss", 0.0, 0.1)
    highest = max(case.part(training, "loss", start / 8, (start + 1) / 8) for start in range(1, 5))
    recalls_V = training.validation_recall
    return first_that_holds(
        [
            at_least(
                "recall came back by",
                float(recalls_V[-1] - recalls_V[0]) if len(recalls_V) > 1 else math.nan,
                RATE_RECOVERY,
                f"{training.name}, first validation against the last",
                f"{case.held_out} won back after the first epoch",
            ),
            at_least(
                "loss rose by",
                highest / first - 1 if first > 0 else math.nan,
                RATE_RISE,
                f"{training.name}, first tenth against the first half",
                "share of the first steps' loss by which it rose above that",
            ),
        ]
    )


def validation_queries(case: Case) -> float:
    """Queries behind each validation of a run, no more than were measured; 0: not known."""
    known = [math.nan if case.evidence.is_log else VALIDATED, case.measurement.queries if case.measurement else math.nan]
    return min((float(count) for count in known if math.isfinite(count)), default=0.0)
