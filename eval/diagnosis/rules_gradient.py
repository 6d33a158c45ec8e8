"""Illnesses of training that show in the gradient: what the negatives still teach, and what the temperature makes of it.

InfoNCE is L = -log p, p the softmax probability of the positive. Its gradient with respect to the logit of a negative is
that negative's own probability, so all negatives together pull with 1 - p ("gradient left"), and what each gets of it is
its softmax weight among the negatives. Effective negatives = exp(entropy of these weights).

A loss alone cannot tell these illnesses apart: a low one may mean solved, too easy or memorised, a high one too hard, false,
too soft or too small a model. Which it is stands in 1 - p, in the weights, and in recall. docs/diagnose.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from eval.diagnosis import curves
from eval.diagnosis.case import Case
from eval.diagnosis.checks import (
    contrast_changes_nothing,
    cosine_gap,
    guessing,
    harm_of_mining,
    loss_fall_since,
    loss_floor,
    loss_gone_or_going,
    no_round_gained,
    nothing_changed,
    recall_stands_still,
    something_to_learn,
    suspected,
    validation_queries,
    what_mined_ones_carry,
)
from eval.diagnosis.experiments import fewer_false_negatives, harder_negatives, more_capacity, run_command, setting
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, first_that_holds, told

Rule = Callable[[Case], Finding | None]

TOO_EASY = {
    "mined": "The mined negatives are too easy: hardly any gradient is left while the model is still wrong on held-out queries.",
    "random": "Random negatives have become too easy: the loss still falls or has nowhere to go, recall stands still, and next "
    "to no gradient is left to learn from.",
    "log": "The negatives are too easy: the loss still falls or has nowhere to go, recall stands still, and next to no gradient "
    "is left.",
}


def negatives_too_easy(case: Case) -> Finding | None:
    """The loss falls or is at its floor, recall stands still, and next to no gradient is left."""
    training = case.training
    if training is None or not case.softmax:
        return None
    limits, where = case.limits, case.late_where()
    figures = all_hold(
        at_most(
            "gradient left",
            case.gradient_left(),
            limits.easy_gradient,
            where,
            "1 - probability of the positive: all that the negatives still pull",
        ),
        loss_gone_or_going(case, training),
        recall_stands_still(case),
        something_to_learn(case),
        case.told("dead_negatives", "share of the negatives with a probability below 1e-4"),
        case.told("effective_negatives", f"effective negatives, of {case.late('negatives_per_query'):.0f}"),
        case.told("hardest_weight", "weight of the hardest negative among all"),
        what_mined_ones_carry(case),
    )
    if figures is None:
        return None
    return case.finding(
        "negatives_too_easy",
        "critical" if case.arm.name == "mined" else "warning",
        figures,
        next=harder_negatives(case.evidence, case.arm.name),
        summary=TOO_EASY[case.arm.name],
    )


def negatives_too_hard_or_false(case: Case) -> Finding | None:
    """Mined negatives stay above the positive and keep the loss high; worse still if recall fell after mining."""
    training = case.training
    if training is None or case.arm.name == "random":
        return None
    limits = case.limits
    harm = first_that_holds(harm_of_mining(case))
    if not harm and any(interval.low > 0 for _, interval in list(case.compared())[-1:]):
        return None  # the last round gained beyond doubt: early in training hard negatives stand above the positive, too
    above = at_least(
        "above_hard",
        case.late("above_hard"),
        limits.false_above,
        case.late_where(),
        "share of the mined negatives that still score above the positive after training on them",
    )
    figures = all_hold(
        first_that_holds([above, suspected(case) if harm else None]),
        harm
        or at_least(
            "gradient left",
            case.gradient_left(),
            limits.false_gradient,
            case.late_where(),
            "1 - probability of the positive: the loss stays high",
        ),
        case.told("loss", "mean training loss"),
        case.told("gradient_share_hard", "share of the gradient that mined negatives carry"),
    )
    if figures is None:
        return None
    starved = case.mining is not None and case.mining.hit_rate <= case.limits.low_hit_rate
    return case.finding(
        "negatives_too_hard_or_false",
        "critical" if harm else "warning",
        figures,
        next=fewer_false_negatives(case.evidence, starved=starved),
        summary="Mined negatives stay above the positive whatever training does"
        + (" and the model got worse after mining" if harm else "")
        + ": many of them are probably relevant items without a label.",
    )


def temperature_too_soft(case: Case) -> Finding | None:
    """τ so large that even a perfect model pays a high loss, and the weights of all negatives are nearly the same."""
    training = case.training
    if training is None or not case.softmax:
        return None
    tau, count = curves.temperature(training, case.evidence, case.limits), case.late("negatives_per_query")
    loss, where = case.late("loss"), case.late_where()
    figures = all_hold(
        at_least(
            "loss floor",
            loss_floor(tau, count) / loss if loss > 0 else math.nan,
            case.limits.soft_floor,
            where,
            f"loss that τ = {tau:.3g} leaves to a perfect model, ln(1 + n·exp(-1/τ)), as a share of the loss",
        ),
        at_least(
            "effective share",
            case.late("effective_negatives") / count if count > 0 else math.nan,
            case.limits.soft_effective,
            where,
            "effective negatives as a share of all: weights are nearly equal",
        ),
        at_least("negatives_per_query", count, case.limits.min_negatives, where, "negatives per query"),
        case.told("hardest_weight", "weight of the hardest negative among all"),
        told("temperature", tau, where, "τ"),
        told("cosine gap", cosine_gap(case), where, "mean cosine of the positive minus that of in-batch negatives"),
    )
    if figures is None:
        return None
    return case.finding(
        "temperature_too_soft",
        "critical",
        figures,
        next=run_command(case.evidence, "tau-0.05", training__temperature=0.05),
        summary="The temperature is too high: easy and hard negatives pull alike, and the gradient points everywhere.",
    )


def temperature_too_sharp(case: Case) -> Finding | None:
    """τ so small that one negative gets all the weight: the gradient is the noise of a single item."""
    training = case.training
    if training is None or not case.softmax:
        return None
    limits, where = case.limits, case.late_where()
    tau, hardest, still = curves.temperature(training, case.evidence, limits), case.late("hardest_weight"), no_round_gained(case)
    figures = all_hold(
        at_most("temperature", tau, limits.sharp_temperature, where, "τ"),
        at_least(
            "hardest_weight",
            hardest,
            limits.sharp_hardest if still else limits.sharp_alone,
            where,
            "weight of the hardest negative among all",
        ),
        still or case.told("positive_probability", "probability of the positive"),
        at_least("negatives_per_query", case.late("negatives_per_query"), limits.min_negatives, where, "negatives per query"),
        case.told("effective_negatives", f"effective negatives, of {case.late('negatives_per_query'):.0f}"),
        case.told("mean_pairwise_cosine", "mean cosine of different items: with a small τ there is no need to part them"),
        case.told("gradient_norm", "norm of the gradient"),
    )
    if figures is None:
        return None
    return case.finding(
        "temperature_too_sharp",
        "critical",
        figures,
        next=run_command(case.evidence, "tau-0.05", training__temperature=0.05),
        summary="The temperature is too low: each query hears little but its hardest negative, differences far smaller than the "
        "noise count in full, and the space stays crowded.",
    )


def capacity_plateau(case: Case) -> Finding | None:
    """Training changed nothing, random or mined negatives change nothing, and yet they pull: the model cannot follow.

    The gradient tells this from memorised pairs: whoever has learned them by heart has none left.
    """
    training = case.training
    if training is None:
        return None
    limits, where = case.limits, case.late_where()
    figures = all_hold(
        contrast_changes_nothing(case),
        nothing_changed(case),
        at_least(
            "gradient left",
            case.gradient_left(),
            limits.plateau_gradient,
            where,
            "1 - probability of the positive: the negatives still pull",
        ),
        at_most(
            "loss fell by",
            curves.fall(training, "loss", limits),
            limits.plateau_fall,
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
    """The training loss goes on falling while recall on held-out queries falls from its best."""
    training = case.training
    if training is None:
        return None
    values_V, steps_V = training.validation_recall, training.validation_steps
    if len(values_V) < 3 or not all(map(math.isfinite, values_V)):
        return None
    best = int(values_V.argmax())
    if best >= len(values_V) - 1:
        return None
    limits, end = case.limits, values_V[best + 1 :][-2:]
    noise = curves.recall_noise(float(values_V[best]), validation_queries(case))
    figures = all_hold(
        at_least(
            "recall lost",
            float(values_V[best] - end.max()),
            max(limits.overfit_drop, limits.overfit_noise * noise),
            f"{training.name}, step {steps_V[best]:.0f} against the end",
            f"validation recall below its best of {values_V[best]:.3f}",
        ),
        at_least(
            "loss fell by",
            loss_fall_since(training, float(steps_V[best])),
            limits.overfit_fall,
            f"{training.name}, after step {steps_V[best]:.0f}",
            "share of the training loss that went after the best step",
        ),
        case.told("positive_probability", "probability of the positive"),
    )
    if figures is None:
        return None
    epochs = max(1, round(setting(case.evidence, "training.epochs", len(values_V)) * (best + 1) / len(values_V)))
    return case.finding(
        "overfitting",
        "warning",
        figures,
        next=run_command(case.evidence, "shorter", training__epochs=epochs, training__weight_decay=0.1),
        summary="Training goes on after the best step: the loss falls because the training pairs are learned by heart.",
    )


def collapse(case: Case) -> Finding | None:
    """All items point the same way."""
    where, limit = case.late_where(), case.limits.collapse_cosine
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
    rate = setting(case.evidence, "training.learning_rate", math.nan)
    changes = {"training__learning_rate": rate / 5} if math.isfinite(rate) else {"training__learning_rate": 1e-5}
    return case.finding(
        "collapse",
        "critical",
        figures,
        next=run_command(case.evidence, "slower", **changes),
        summary="The embeddings have collapsed: every item looks like every other, so no ranking means anything.",
    )


GRADIENT_RULES: tuple[Rule, ...] = (
    collapse,
    temperature_too_soft,
    temperature_too_sharp,
    negatives_too_hard_or_false,
    negatives_too_easy,
    overfitting,
    capacity_plateau,
)
