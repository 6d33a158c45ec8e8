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

    A figure that reaches its threshold, but by chance as far as anyone knows, is inconclusive; so is a time that misses it
    like that. `require_significance` fails both. `strict` lets no figure be missing that the data could have.
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


def passed(checks: Sequence[Check]) -> bool | None:
    """True: every check that was made passed. False: one failed, or none was made. None: none failed, some are inconclusive."""
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes or not outcomes & {"passed", "inconclusive"}:
        return False
    return None if "inconclusive" in outcomes else True


def verdict(checks: Sequence[Check]) -> str:
    """ "yes", "no" or "your decision" with the reasons, and what was not checked: one sentence."""
    failed = [check for check in checks if check.outcome == "failed"]
    good = sum(check.outcome == "passed" for check in checks)
    unsure = [check.name for check in checks if check.outcome == "inconclusive"]
    left = _not_checked(checks)
    if failed:
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        return f"no: {'; '.join(check.text for check in failed[:SHOWN])}{more}{left}"
    passes = f"{good} {'check' if good == 1 else 'checks'} passed"
    if unsure:
        return f"your decision: {passes} and none failed, but {', '.join(unsure)} may be chance{left}"
    if not good:
        return f"no: nothing was checked; set thresholds in [evaluation.gate], or evaluate the run again{left}"
    return f"yes: {passes}{left}"


def _not_checked(checks: Sequence[Check]) -> str:
    """ "; not checked: a, b (why); c (why)", or nothing."""
    names: dict[str, list[str]] = {}
    for check in checks:
        if check.outcome == "not checked":
            names.setdefault(check.why or "", []).append(check.name)
    told = [f"{', '.join(some)} ({why})" for why, some in names.items()]
    return f"; not checked: {'; '.join(told)}" if told else ""


def _judged(check: Check, settings: GateSettings) -> Check:
    """The check as strictly as the settings want it."""
    if check.outcome == "not checked" and check.wanted and settings.strict:
        return replace(check, passed=False, text=f"{check.text}; evaluation.gate.strict = true lets no figure be missing")
    if check.outcome == "inconclusive" and settings.require_significance:
        return replace(
            check, passed=False, text=f"{check.text}; evaluation.gate.require_significance = true does not let it pass"
        )
    return check
