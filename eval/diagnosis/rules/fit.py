"""What the model makes of its training: it cannot follow, learns the pairs by heart, is thrown off its course, or collapses."""

from __future__ import annotations

import math

from eval.diagnosis import curves
from eval.diagnosis.case import Case
from eval.diagnosis.checks import contrast_changes_nothing, guessing, nothing_changed, something_to_learn
from eval.diagnosis.checks_fit import (
    fell_beyond_doubt,
    loss_fall_since,
    loss_fall_since_best,
    lost_since_best,
    thrown_off,
    validation_queries,
)
from eval.diagnosis.commands import setting
from eval.diagnosis.experiments import more_capacity, shorter, slower, stop_earlier
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, first_that_holds

PLATEAU_GRADIENT = 0.25
"""Gradient left, late, at least: the negatives still pull."""
PLATEAU_FALL = 0.50
"""The loss fell by at most this share from the second quarter of the steps to the last. Some of it always goes while the
learning rate falls to 0."""
OVERFIT_DROP = 0.02
"""Over the epochs: validation recall at the end below its best by at least this (share: 0.01 is one point) …"""
OVERFIT_NOISE = 2.0
"""… and by at least so many standard errors of such a difference."""
OVERFIT_FALL = 0.05
"""Meanwhile the training loss fell by at least this share."""
ROUNDS_DROP = 0.005
"""Over the rounds: the primary figure below the best that the arm had, or started from, by at least this …"""
ROUNDS_FALL = 0.40
"""… while the training loss fell by at least this share since then."""
RATE_GRADIENT = 0.30
"""Learning rate too high: gradient left, late, at least: whoever learned the pairs by heart has less."""
RATE_RANDOM = 0.02
"""… and random negatives above the positive, late, as a share of them, at least: not only what lies near is out of place."""
COLLAPSE_COSINE = 0.90
"""Mean cosine of different items (or queries), late, at least."""


def capacity_plateau(case: Case) -> Finding | None:
    """Training changed nothing, random or mined negatives change nothing, and yet they pull: the model cannot follow.

    The gradient tells this from memorised pairs: whoever has learned them by heart has none left.
    """
    training = case.training
    if training is None:
        return None
    where = case.late_where()
    figures = all_hold(
        contrast_changes_nothing(case),
        nothing_changed(case),
        at_least(
            "gradient left",
            case.gradient_left(),
            PLATEAU_GRADIENT,
            where,
            "1 - probability of the positive: the negatives still pull",
        ),
        at_most(
            "loss fell by",
            case.loss_fall(),
            PLATEAU_FALL,
            f"{training.name}, second quarter against the last",
            "share of the loss that went over the second half",
        ),
        something_to_learn(case),
        case.told("loss", "mean training loss"),
        case.told("effective_negatives", f"effective negatives, of {case.late('negatives_per_query'):.0f}"),
    )
    if figures is None:
        return None
    return case.finding(
        "capacity_plateau",
        "warning",
        figures,
        next=more_capacity(case.evidence),
        summary="The negatives pull and the model does not move: it lacks the capacity, or the texts the context, to tell "
        "the items apart; other negatives or another τ will not help.",
    )


def overfitting(case: Case) -> Finding | None:
    """The training loss goes on falling while recall on held-out queries falls: over the epochs, or over the rounds."""
    return _from_epochs(case) or _from_rounds(case)


def _from_epochs(case: Case) -> Finding | None:
    """Within the last training."""
    training = case.training
    if training is None:
        return None
    values_V, steps_V = training.validation_recall, training.validation_steps
    if len(training.steps.get("loss", ())) < case.min_steps:  # too short to judge: its forecast asked for more epochs
        return None
    if len(values_V) < 3 or not all(map(math.isfinite, values_V)):
        return None
    best = int(values_V.argmax())
    if best >= len(values_V) - 1:
        return None
    noise = curves.recall_noise(float(values_V[best]), validation_queries(case), same=curves.SAME_TRAINING)
    figures = all_hold(
        at_least(
            "recall lost",
            float(values_V[best] - values_V[best + 1 :][-2:].max()),
            max(OVERFIT_DROP, OVERFIT_NOISE * noise),
            f"{training.name}, step {steps_V[best]:.0f} against the end",
            f"{case.held_out} below its best of {values_V[best]:.3f}",
        ),
        at_least(
            "loss fell by",
            loss_fall_since(training, float(steps_V[best])),
            OVERFIT_FALL,
            f"{training.name}, after step {steps_V[best]:.0f}",
            "share of the training loss that went after the best step",
        ),
        case.told("positive_probability", "probability of the positive"),
    )
    if figures is None:
        return None
    epochs = setting(case.evidence, "training.epochs")  # a run validates after each of them
    until = max(1, round((epochs if math.isfinite(epochs) else len(values_V)) * (best + 1) / len(values_V)))
    return case.finding(
        "overfitting",
        "warning",
        figures,
        next=stop_earlier(training, best, case.peak_rate())
        if case.arm.name == "log"
        else shorter(case.evidence, case.peak_rate(), epochs=until),
        summary="Training goes on after the best step: the loss falls because the training pairs are learned by heart.",
    )


def _from_rounds(case: Case) -> Finding | None:
    """Over all trainings of the arm: each keeps its best epoch, and even that one is worse than what was there before."""
    figures = all_hold(
        lost_since_best(case, ROUNDS_DROP),
        at_least(
            "loss fell by",
            loss_fall_since_best(case),
            ROUNDS_FALL,
            f"{case.arm_name}, the first tenth of the steps since then against the last quarter",
            "share of the training loss that went meanwhile",
        ),
        case.told("positive_probability", "probability of the positive"),
    )
    if figures is None:
        return None
    epochs = setting(case.evidence, "training.epochs")
    return case.finding(
        "overfitting",
        "warning",
        figures,
        next=shorter(case.evidence, case.peak_rate(), epochs=max(1, int(epochs) // 2) if math.isfinite(epochs) else 1),
        summary="The training pairs are learned by heart: the loss falls, and held-out queries are answered worse than before.",
    )


def learning_rate_too_high(case: Case) -> Finding | None:
    """The first steps throw the model off its course, and what follows wins back only a part, as the rate falls to 0.

    False negatives lower recall, too, but they stand near the positive: random items do not pass it.
    """
    if case.training is None:
        return None
    figures = all_hold(
        fell_beyond_doubt(case),
        at_least(
            "above_random",
            case.late("above_random"),
            RATE_RANDOM,
            case.late_where(),
            "share of the random negatives that still score above the positive",
        ),
        at_least(
            "gradient left",
            case.gradient_left(),
            RATE_GRADIENT,
            case.late_where(),
            "1 - probability of the positive: nothing was learned by heart",
        ),
        thrown_off(case, case.training),
        case.told("loss", "mean training loss"),
        case.told("mean_pairwise_cosine", "mean cosine of different items"),
    )
    if figures is None:
        return None
    return case.finding(
        "learning_rate_too_high",
        "critical",
        figures,
        next=slower(case.evidence, "slower", case.peak_rate(), 10),
        summary="The learning rate is too high: the first steps destroyed what the model knew, and the rest of the training "
        "won back a part of it.",
    )


def collapse(case: Case) -> Finding | None:
    """All items point the same way."""
    where, limit = case.late_where(), COLLAPSE_COSINE
    measured = case.measurement
    figures = all_hold(
        first_that_holds(
            [
                at_least(
                    "mean_pairwise_cosine", case.late("mean_pairwise_cosine"), limit, where, "mean cosine of different items"
                ),
                at_least(
                    "random_p50",
                    measured.scores.get("random_p50", math.nan),
                    limit,
                    measured.name,
                    "median cosine of queries with random items",
                )
                if measured
                else None,
            ]
        ),
        case.told("uniformity", "log of the mean of exp(-2 |x - y|²); 0 is full collapse"),
        case.told("loss", f"mean training loss; guessing costs {guessing(case):.3g}"),
    )
    if figures is None:
        return None
    return case.finding(
        "collapse",
        "critical",
        figures,
        next=slower(case.evidence, "slower", case.peak_rate(), 5),
        summary="The embeddings have collapsed: every item looks like every other, so no ranking means anything.",
    )
