"""A temperature that is too soft, so that all negatives pull alike, or too sharp, so that only one does."""

from __future__ import annotations

import math

from eval.diagnosis.case import Case
from eval.diagnosis.checks import cosine_gap, loss_floor, no_round_gained
from eval.diagnosis.experiments import usual_temperature
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, told

SOFT_FLOOR = 0.50
"""The loss that no model can go below, ln(1 + negatives × exp(-1/τ)), as a share of the late loss, at least."""
SOFT_EFFECTIVE = 0.30
"""Effective negatives, late, as a share of all, at least: the softmax hardly tells them apart."""
SHARP_TEMPERATURE = 0.015
"""τ at most; above it, one negative that carries everything is a matter of the negatives, not of τ."""
SHARP_HARDEST = 0.40
"""Weight of the hardest negative among all, late, at least, where no round gained …"""
SHARP_ALONE = 0.80
"""… and whether one gained or not from here on: hardly any other negative is heard."""
MIN_NEGATIVES = 8
"""Negatives per query below which nothing is said: few weights say little."""


def temperature_too_soft(case: Case) -> Finding | None:
    """τ so large that even a perfect model pays a high loss, and the weights of all negatives are nearly the same."""
    if case.training is None or not case.softmax:
        return None
    tau, count = case.temperature(), case.late("negatives_per_query")
    loss, where = case.late("loss"), case.late_where()
    figures = all_hold(
        at_least(
            "loss floor",
            loss_floor(tau, count) / loss if loss > 0 else math.nan,
            SOFT_FLOOR,
            where,
            f"loss that τ = {tau:.3g} leaves to a perfect model, ln(1 + n·exp(-1/τ)), as a share of the loss",
        ),
        at_least(
            "effective share",
            case.late("effective_negatives") / count if count > 0 else math.nan,
            SOFT_EFFECTIVE,
            where,
            "effective negatives as a share of all: weights are nearly equal",
        ),
        at_least("negatives_per_query", count, MIN_NEGATIVES, where, "negatives per query"),
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
        next=usual_temperature(case.evidence),
        summary="The temperature is too high: easy and hard negatives pull alike, and the gradient points everywhere.",
    )


def temperature_too_sharp(case: Case) -> Finding | None:
    """τ so small that one negative gets all the weight: the gradient is the noise of a single item."""
    if case.training is None or not case.softmax:
        return None
    where = case.late_where()
    tau, hardest, still = case.temperature(), case.late("hardest_weight"), no_round_gained(case)
    figures = all_hold(
        at_most("temperature", tau, SHARP_TEMPERATURE, where, "τ"),
        at_least(
            "hardest_weight", hardest, SHARP_HARDEST if still else SHARP_ALONE, where, "weight of the hardest negative among all"
        ),
        still or case.told("positive_probability", "probability of the positive"),
        at_least("negatives_per_query", case.late("negatives_per_query"), MIN_NEGATIVES, where, "negatives per query"),
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
        next=usual_temperature(case.evidence),
        summary="The temperature is too low: each query hears little but its hardest negative, differences far smaller than the "
        "noise count in full, and the space stays crowded.",
    )
