"""From where on a figure counts as ill. Every default was settled on the bench of really trained illnesses (docs/diagnose.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Points = Annotated[float, Field(ge=0.0, le=1.0)]
Factor = Annotated[float, Field(ge=1.0)]


class DiagnosisSettings(BaseModel):
    """Thresholds of `hardmine diagnose`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    late_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25
    """Share of a training's steps, at its end, that counts as late: rules look there, since every training starts with
    nearly equal weights and a high loss."""
    min_steps: Annotated[int, Field(ge=8)] = 40
    """Micro-steps with telemetry below which nothing is said about a training's gradient."""
    min_queries: Annotated[int, Field(ge=2)] = 50
    """Evaluated queries (or labelled pairs) below which nothing is said about a measurement or a slice."""
    solved: Share = 0.95
    """Primary figure from which on there is nothing left to learn, so that a vanished gradient is no illness."""

    easy_gradient: Share = 0.12
    """too easy: gradient left (1 - probability of the positive), late, at most."""
    easy_fall: Share = 0.10
    """too easy: the loss fell by at least this share from the second quarter of the steps to the last …"""
    easy_floor: Share = 0.02
    """… or is at most this share of what guessing would cost, ln(1 + negatives): nothing is left to fall."""
    flat_gain: Points = 0.01
    """too easy: best validation recall of the second half at most this much above that of the first half (share: 0.01 is
    one point)."""

    false_above: Share = 0.08
    """too hard or false: hard negatives that score above the positive, late, as a share of them, at least."""
    false_suspected: Share = 0.10
    """too hard or false: candidates that score above the query's best relevant item, as a share, at least."""
    false_gradient: Share = 0.30
    """too hard or false: gradient left, late, at least: the loss stays high."""

    soft_floor: Share = 0.50
    """τ too soft: the loss that no model can go below, ln(1 + negatives × exp(-1/τ)), as a share of the late loss, at least."""
    soft_effective: Share = 0.30
    """τ too soft: effective negatives, late, as a share of all, at least: the softmax hardly tells them apart."""

    sharp_temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.015
    """τ too sharp: τ itself at most; above it, one negative that carries everything is a matter of the negatives, not of τ."""
    sharp_hardest: Share = 0.40
    """τ too sharp: weight of the hardest negative among all, late, at least, where no round gained …"""
    sharp_alone: Share = 0.80
    """… and whether one gained or not from here on: hardly any other negative is heard."""
    min_negatives: Annotated[int, Field(ge=2)] = 8
    """τ too soft, too sharp: negatives per query below which nothing is said: few weights say little."""

    plateau_gradient: Share = 0.25
    """plateau: gradient left, late, at least: the negatives still pull."""
    plateau_fall: Share = 0.50
    """plateau: the loss fell by at most this share from the second quarter of the steps to the last. Some of it always goes
    while the learning rate falls to 0."""
    plateau_equal: Points = 0.03
    """plateau: the interval of what contrast changed lies within ± this of 0, and so does that of what training changed."""

    overfit_drop: Points = 0.02
    """over-fitting: validation recall at the end below its best by at least this …"""
    overfit_noise: Annotated[float, Field(ge=0.0)] = 2.0
    """… and by at least so many standard errors of such a difference."""
    overfit_fall: Share = 0.05
    """over-fitting: meanwhile the training loss fell by at least this share."""

    collapse_cosine: Cosine = 0.90
    """collapse: mean cosine of different items (or queries), late, at least."""

    forget_drop: Points = 0.01
    """forgetting: the general set's primary figure fell by at least this, beyond doubt …"""
    forget_critical: Points = 0.05
    """… and from here on it is critical."""

    popular_excess: Points = 0.10
    """popularity collapse: mean popularity percentile of the first ten hits above that of the relevant items by at least this
    (0.5 is an item like any other) …"""
    popular_growth: Points = 0.10
    """… and above what the off-the-shelf model showed by at least this."""
    narrow_similarity: Share = 0.85
    """narrow results: mean cosine of the first ten hits of a query with each other, between that of random items (0) and 1, at
    least …"""
    narrow_growth: Points = 0.05
    """… and above the off-the-shelf model's by at least this."""
    narrow_coverage: Share = 0.60
    """narrow results, another way: items that appear in any first ten, as a share of what the off-the-shelf model showed, at
    most."""

    leak_share: Share = 0.80
    """metadata leakage: share of the relevant pairs whose values agree exactly, at least …"""
    leak_lift: Factor = 5.0
    """… and as a multiple of that of random pairs."""

    low_hit_rate: Share = 0.10
    """low hit rate: candidates that are left after all filters, as a share, below."""

    min_log_lines: Annotated[int, Field(ge=4)] = 8
    """Lines of another trainer's log below which nothing is said about its loss."""
    diverged: Factor = 1.2
    """logs: mean loss of the last quarter as a multiple of that of the first from which on training diverged."""
    spike: Factor = 3.0
    """logs: a step's loss as a multiple of the median around it from which on it counts as a spike …"""
    spikes: Annotated[int, Field(ge=1)] = 3
    """… and how many make a finding."""
