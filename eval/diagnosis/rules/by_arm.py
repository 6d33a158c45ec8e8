"""Which rules look at which arm."""

from __future__ import annotations

from collections.abc import Callable

from eval.diagnosis.case import Case
from eval.diagnosis.findings import Finding
from eval.diagnosis.rules import log
from eval.diagnosis.rules.data import low_hit_rate, metadata_leakage, synthetic_drift
from eval.diagnosis.rules.fit import capacity_plateau, collapse, learning_rate_too_high, overfitting
from eval.diagnosis.rules.negatives import negatives_too_easy, negatives_too_hard_or_false
from eval.diagnosis.rules.results import forgetting, narrow_results, popularity_collapse
from eval.diagnosis.rules.temperature import temperature_too_sharp, temperature_too_soft

Rule = Callable[[Case], Finding | None]

GRADIENT_RULES: tuple[Rule, ...] = (
    collapse,
    learning_rate_too_high,
    temperature_too_soft,
    temperature_too_sharp,
    negatives_too_hard_or_false,
    negatives_too_easy,
    overfitting,
    capacity_plateau,
)
"""Of every arm of a run."""

RESULT_RULES: tuple[Rule, ...] = (
    forgetting,
    popularity_collapse,
    narrow_results,
    synthetic_drift,
    metadata_leakage,
    low_hit_rate,
)
"""Of the arm whose model would be shipped."""

LOG_RULES: tuple[Rule, ...] = (
    log.diverged,
    *GRADIENT_RULES,
    log.falls_from_its_best,
    log.plateau,
    log.loss_spikes,
    log.no_validation,
)
"""Of another trainer's log. One that has the gradient's figures under our names is read like our own."""
