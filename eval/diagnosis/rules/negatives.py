"""Illnesses of the negatives that show in the gradient: too easy ones, and ones that are too hard or false.

InfoNCE is L = -log p, p the softmax probability of the positive. Its gradient with respect to the logit of a negative is
that negative's own probability, so all negatives together pull with 1 - p ("gradient left"), and what each gets of it is
its softmax weight among the negatives. Effective negatives = exp(entropy of these weights).

A loss alone cannot tell these illnesses apart: a low one may mean solved, too easy or memorised, a high one too hard, false,
too soft or too small a model. Which it is stands in 1 - p, in the weights, and in recall. docs/diagnose.md has the table.
"""

from __future__ import annotations

from eval.diagnosis.case import Case
from eval.diagnosis.checks import (
    harm_of_mining,
    loss_gone_or_going,
    recall_stands_still,
    something_to_learn,
    suspected,
    what_mined_ones_carry,
)
from eval.diagnosis.experiments import fewer_false_negatives, harder_negatives
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, first_that_holds
from eval.diagnosis.rules.data import LOW_HIT_RATE

TOO_EASY = {
    "mined": "The mined negatives are too easy: hardly any gradient is left while the model is still wrong on held-out queries.",
    "random": "Random negatives have become too easy: the loss still falls or has nowhere to go, recall stands still, and next "
    "to no gradient is left to learn from.",
    "log": "The negatives are too easy: the loss still falls or has nowhere to go, recall stands still, and next to no gradient "
    "is left.",
}
EASY_GRADIENT = 0.12
"""Gradient left (1 - probability of the positive), late, at most."""
FALSE_ABOVE = 0.08
"""Hard negatives that score above the positive, late, as a share of them, at least."""
FALSE_GRADIENT = 0.30
"""Gradient left, late, at least: the loss stays high."""


def negatives_too_easy(case: Case) -> Finding | None:
    """The loss falls or is at its floor, recall stands still, and next to no gradient is left."""
    training = case.training
    if training is None or not case.softmax:
        return None
    where = case.late_where()
    figures = all_hold(
        at_most(
            "gradient left",
            case.gradient_left(),
            EASY_GRADIENT,
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
    if case.training is None or case.arm.name == "random":
        return None
    harm = first_that_holds(harm_of_mining(case))
    if not harm and any(interval.low > 0 for _, interval in list(case.compared())[-1:]):
        return None  # the last round gained beyond doubt: early in training hard negatives stand above the positive, too
    above = at_least(
        "above_hard",
        case.late("above_hard"),
        FALSE_ABOVE,
        case.late_where(),
        "share of the mined negatives that still score above the positive after training on them",
    )
    figures = all_hold(
        first_that_holds([above, suspected(case) if harm else None]),
        harm
        or at_least(
            "gradient left",
            case.gradient_left(),
            FALSE_GRADIENT,
            case.late_where(),
            "1 - probability of the positive: the loss stays high",
        ),
        case.told("loss", "mean training loss"),
        case.told("gradient_share_hard", "share of the gradient that mined negatives carry"),
    )
    if figures is None:
        return None
    starved = case.mining is not None and case.mining.hit_rate <= LOW_HIT_RATE
    return case.finding(
        "negatives_too_hard_or_false",
        "critical" if harm else "warning",
        figures,
        next=fewer_false_negatives(case.evidence, starved=starved),
        summary="Mined negatives stay above the positive whatever training does"
        + (" and the model got worse after mining" if harm else "")
        + ": many of them are probably relevant items without a label.",
    )
