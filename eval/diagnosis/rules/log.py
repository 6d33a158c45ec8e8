"""What a loss and a held-out figure alone can say: the logs of other trainers.

They show divergence, spikes, over-fitting and standstill. They cannot show why training stands still: too easy negatives,
too soft a temperature, false negatives and too small a model all look the same there. A finding says which it leaves open.
"""

from __future__ import annotations

import math

import numpy as np

from eval.diagnosis import curves
from eval.diagnosis.case import Case
from eval.diagnosis.checks import EASY_FALL, FLAT_GAIN, SOLVED
from eval.diagnosis.evidence import F64
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, told
from eval.diagnosis.rules.fit import OVERFIT_DROP

DIVERGED = 1.2
"""Mean loss of the last quarter as a multiple of that of the first from which on training diverged."""
SPIKE = 3.0
"""A line's loss as a multiple of the median around it from which on it counts as a spike …"""
SPIKES = 3
"""… and how many make a finding."""
SPIKE_WINDOW = 5
"""Lines on either side whose median a line is compared with."""


def diverged(case: Case) -> Finding | None:
    """The loss is no number any more, or ends above where it began."""
    loss = _loss(case)
    if loss is None or len(loss) < case.min_steps or case.training is None:
        return None
    broken = int(np.isinf(loss).sum())
    start = case.part(case.training, "loss", 0.0, 0.25)
    end = case.late("loss")
    if broken:
        figures = all_hold(at_least("broken lines", broken, 1, case.training.name, "lines whose loss is NaN or infinite"))
    else:
        figures = all_hold(
            at_least(
                "loss, end over start",
                end / start if start > 0 else math.nan,
                DIVERGED,
                case.training.name,
                f"mean loss of the last quarter ({end:.3g}) over that of the first ({start:.3g})",
            )
        )
    if figures is None:
        return None
    return case.finding(
        "diverged",
        "critical",
        figures,
        next="lower the learning rate to a third, and clip gradients at a norm of 1",
        summary="Training diverged: its loss ends as no number, or above where it began.",
    )


def loss_spikes(case: Case) -> Finding | None:
    """Single lines far above their neighbours."""
    loss = _loss(case)
    if loss is None or len(loss) < max(case.min_steps, 2 * SPIKE_WINDOW + 1) or case.training is None:
        return None
    ratio = _over_neighbours(loss)
    at = np.flatnonzero(ratio >= SPIKE)
    figures = all_hold(
        at_least(
            "spikes", len(at), SPIKES, case.training.name, f"lines with a loss of at least {SPIKE:g} times the median around them"
        ),
        told(
            "largest", float(np.nanmax(ratio)) if np.isfinite(ratio).any() else math.nan, case.training.name, "largest multiple"
        ),
    )
    if figures is None:
        return None
    return case.finding(
        "loss_spikes",
        "warning",
        figures,
        next="clip gradients at a norm of 1; then look at the batches of these steps, and at τ",
        summary="The loss jumps: single batches push far more than others, by bad data, too high a rate, or too sharp a τ.",
    )


def falls_from_its_best(case: Case) -> Finding | None:
    """Over-fitting as far as a log without a training loss can show it."""
    training = case.training
    if training is None or _loss(case) is not None or len(training.validation_recall) < 3:
        return None
    values_V, steps_V = training.validation_recall, training.validation_steps
    best = int(np.nanargmax(values_V)) if np.isfinite(values_V).any() else len(values_V) - 1
    if best == len(values_V) - 1:
        return None
    figures = all_hold(
        at_least(
            "figure lost",
            float(values_V[best] - values_V[best + 1 :][-2:].max()),
            OVERFIT_DROP,
            f"{training.name}, step {steps_V[best]:.0f} against the end",
            f"held-out figure below its best of {values_V[best]:.3f}",
        )
    )
    if figures is None:
        return None
    return case.finding(
        "overfitting",
        "warning",
        figures,
        next=f"stop at {training.validation_places[best]}, and log the training loss beside it",
        summary="The held-out figure falls from its best; without a training loss it cannot be told from divergence.",
    )


def plateau(case: Case) -> Finding | None:
    """The held-out figure stands still over the second half."""
    training, values_V = case.training, curves.validations(case.arm)
    if training is None or not len(values_V):
        return None
    fall = case.loss_fall()
    figures = all_hold(
        at_most(
            "late gain",
            curves.second_half_gain(values_V),
            FLAT_GAIN,
            f"validations {len(values_V) // 2 + 1}–{len(values_V)} against those before",
            "best held-out figure of the second half minus best of the first",
        ),
        at_most("held-out figure", float(values_V.max()), SOLVED, training.name, "there is something left to learn"),
        told(
            "loss fell by",
            fall,
            f"{training.name}, second quarter against the last",
            "share of the training loss that went meanwhile",
        ),
    )
    if figures is None:
        return None
    falling = fall >= EASY_FALL
    seen = math.isfinite(case.gradient_left())
    which = "the gradient's figures in the log decide for neither" if seen else "a loss alone cannot tell which"
    return case.finding(
        "plateau",
        "warning",
        figures,
        next="train with mined against random negatives on a tenth of the queries (`hardmine probe`): that tells which it is",
        summary="The held-out figure stands still"
        + (
            f" while the loss falls: the negatives have become too easy, or the training pairs are learned by heart; {which}."
            if falling
            else f" and so does the loss: too small a model, too soft a temperature, false negatives or too low a rate; {which}."
            if math.isfinite(fall)
            else "; a log without a training loss cannot tell why."
        ),
    )


def no_validation(case: Case) -> Finding | None:
    """Nothing held out was measured."""
    if case.training is None or len(case.training.validation_recall):
        return None
    figures = all_hold(at_most("validations", 0.0, 0.0, case.training.name, "held-out measurements in the log"))
    if figures is None:
        return None
    return case.finding(
        "no_validation",
        "warning",
        figures,
        next="measure recall on held-out queries every epoch, and log it beside the loss",
        summary="Nothing held out was measured: a falling loss may mean learning, too easy negatives or learning by heart.",
    )


def _loss(case: Case) -> F64 | None:
    return None if case.training is None else case.training.steps.get("loss")


def _over_neighbours(loss_S: F64) -> F64:
    """[S] each value over the median of its neighbours; NaN at the ends and where a value is missing."""
    size = 2 * SPIKE_WINDOW + 1
    ratio = np.full(len(loss_S), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(np.where(np.isfinite(loss_S), loss_S, np.nan), size)
    known = np.isfinite(windows).all(axis=1)
    middle = np.median(windows[known], axis=1)
    lines = np.flatnonzero(known) + SPIKE_WINDOW
    ratio[lines] = loss_S[lines] / np.maximum(middle, 1e-12)
    return ratio
