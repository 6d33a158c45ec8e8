"""All checks of a gate, and what they come to: ship or not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.gate.check import Check, not_checked
from eval.gate.figures import GateFigures
from eval.gate.measures import gain_checks, general_checks, latency_checks, loss_checks, metric_checks
from eval.gate.results import result_checks, slice_checks
from eval.gate.settings import GateSettings

SHOWN = 3
"""Failures that the verdict names."""
COMPARED = (gain_checks, loss_checks, latency_checks, result_checks, slice_checks, general_checks)
"""Checks that need another model to compare with."""


def make_checks(settings: GateSettings, figures: GateFigures) -> list[Check]:
    """Every check, in the order of the settings; what was not checked is among them, with its reason.

    A figure whose interval crosses the threshold passes or fails by its mean and says that it may be chance;
    `require_significance` lets none pass like that. `strict` lets no figure be missing that the data could have.
    """
    checks = list(metric_checks(settings, figures))
    compared = [check for make in COMPARED for check in make(settings, figures)]
    if figures.is_baseline:
        why = "the off-the-shelf model is not compared with itself"
        compared = [not_checked(c.name, why, threshold=c.threshold, unit=c.unit, wanted=False) for c in compared]
    checks += compared
    if figures.nothing_new:
        text = "no round was better than the off-the-shelf model: there is nothing new to ship"
        checks.append(Check("new_model", text, threshold=1.0, value=0.0, passed=False, unit="count"))
    return [_judged(check, settings) for check in checks]


def passed(checks: Sequence[Check]) -> bool:
    """No check failed, and at least one was made."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)


def verdict(checks: Sequence[Check]) -> str:
    """ "yes" or "no" with the reasons, and what was not checked: one sentence."""
    failed = [check for check in checks if check.passed is False]
    good = [check for check in checks if check.passed]
    left = _not_checked(checks)
    if failed:
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        return f"no: {'; '.join(check.text for check in failed[:SHOWN])}{more}{left}"
    if not good:
        return f"no: nothing was checked; set thresholds in [evaluation.gate], or evaluate the run again{left}"
    unsure = [check.name for check in good if check.uncertain]
    return (
        f"yes: {len(good)} {'check' if len(good) == 1 else 'checks'} passed"
        + (f"; {', '.join(unsure)} by less than the interval, so that may be chance" if unsure else "")
        + left
    )


def _not_checked(checks: Sequence[Check]) -> str:
    """ "; not checked: a, b (why); c (why)", or nothing."""
    names: dict[str, list[str]] = {}
    for check in checks:
        if check.passed is None:
            names.setdefault(check.why or "", []).append(check.name)
    told = [f"{', '.join(some)} ({why})" for why, some in names.items()]
    return f"; not checked: {'; '.join(told)}" if told else ""


def _judged(check: Check, settings: GateSettings) -> Check:
    """The check as strictly as the settings want it."""
    if check.passed is None and check.wanted and settings.strict:
        return replace(check, passed=False, text=f"{check.text}; evaluation.gate.strict = true lets no figure be missing")
    if check.passed and check.uncertain and settings.require_significance:
        return replace(
            check, passed=False, text=f"{check.text}; evaluation.gate.require_significance = true does not let it pass"
        )
    return check
