"""All rules over all arms, and what holds in order.

for finding in diagnose(evidence):
    finding.name, finding.summary, finding.next
"""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

from eval.diagnosis.case import MIN_QUERIES, Case
from eval.diagnosis.checks_fit import lost_since_best
from eval.diagnosis.commands import same_command
from eval.diagnosis.evidence import Arm, Evidence
from eval.diagnosis.experiments import another_round, more_dev, more_steps, other_settings
from eval.diagnosis.findings import SEVERITIES, Figure, Finding, told
from eval.diagnosis.rules.by_arm import GRADIENT_RULES, LOG_RULES, RESULT_RULES
from eval.diagnosis.rules.fit import ROUNDS_DROP

EXPLAINS: dict[str, frozenset[str]] = {
    "collapse": frozenset(
        {
            "temperature_too_soft",
            "temperature_too_sharp",
            "negatives_too_hard_or_false",
            "capacity_plateau",
            "overfitting",
            "plateau",
            "narrow_results",
            "popularity_collapse",
            "learning_rate_too_high",
        }
    ),
    # a model that was thrown off its course has its negatives anywhere, and what it finds says nothing about them
    "learning_rate_too_high": frozenset(
        {
            "negatives_too_hard_or_false",
            "negatives_too_easy",
            "capacity_plateau",
            "overfitting",
            "forgetting",
            "narrow_results",
            "popularity_collapse",
            "low_hit_rate",
        }
    ),
    "temperature_too_soft": frozenset({"negatives_too_hard_or_false", "capacity_plateau", "plateau"}),
    "temperature_too_sharp": frozenset({"negatives_too_easy", "overfitting", "plateau", "narrow_results", "low_hit_rate"}),
    "metadata_leakage": frozenset({"negatives_too_easy"}),  # a label that can be read off is easy to tell from any negative
    "popularity_collapse": frozenset({"negatives_too_easy"}),
    "low_hit_rate": frozenset({"negatives_too_easy"}),
    "synthetic_drift": frozenset({"negatives_too_easy"}),
    "narrow_results": frozenset({"negatives_too_easy"}),
    "diverged": frozenset({"loss_spikes", "plateau", "overfitting"}),
    "overfitting": frozenset({"negatives_too_easy", "capacity_plateau", "plateau"}),  # whoever learns by heart can follow
    "negatives_too_easy": frozenset({"plateau"}),
    "capacity_plateau": frozenset({"plateau"}),
    # where positives score below their negatives, a margin takes nearly all; loosening it would let in more false ones
    "negatives_too_hard_or_false": frozenset({"capacity_plateau", "plateau", "low_hit_rate"}),
}
"""Cause -> what it alone brings about: named beside the cause, the consequence would send its reader the wrong way."""

ORDER = (
    "diverged",
    "collapse",
    "learning_rate_too_high",
    "temperature_too_soft",
    "temperature_too_sharp",
    "negatives_too_hard_or_false",
    "negatives_too_easy",
    "overfitting",
    "capacity_plateau",
    "metadata_leakage",
    "synthetic_drift",
    "forgetting",
    "popularity_collapse",
    "narrow_results",
    "low_hit_rate",
    "plateau",
    "loss_spikes",
    "no_validation",
    "not_enough_evidence",
    "healthy",
)
"""Causes before consequences; orders findings of one severity."""

COMPARISON = "nothing: this arm is there for comparison"
ARMS = ("mined", "log", "random")
"""The arm that would be shipped first."""


def diagnose(evidence: Evidence) -> list[Finding]:
    """Name what is wrong with a run, worst first.

    Every arm gets at least one finding: its illnesses, `healthy` (nothing worse than a note, and enough evidence to say
    so), or `not_enough_evidence`.

    Returns:
        Ordered by severity, then arm (mined, log, random), then causes before consequences. Empty without an arm.
    """
    findings: list[Finding] = []
    lead = _lead(evidence)
    for arm in evidence.arms:
        case = Case(evidence, arm)
        rules = LOG_RULES if arm.name == "log" else GRADIENT_RULES + (RESULT_RULES if arm is lead else ())
        illnesses = _without_consequences([finding for rule in rules if (finding := rule(case)) is not None])
        findings += illnesses
        if all(finding.severity == "note" for finding in illnesses):
            findings.append(_verdict(case))
    if any(arm.name == "mined" for arm in evidence.arms):  # one voice: what to change is said of the arm that would be shipped
        findings = [replace(finding, next=COMPARISON) if finding.arm == "random" else finding for finding in findings]
    return sorted(findings, key=_rank)


def _lead(evidence: Evidence) -> Arm | None:
    """The arm whose model would be shipped."""
    return min(evidence.arms, key=lambda arm: ARMS.index(arm.name), default=None)


def _without_consequences(findings: list[Finding]) -> list[Finding]:
    names = {finding.name for finding in findings}
    explained = frozenset[str]().union(*(EXPLAINS.get(name, frozenset()) for name in names))
    return [finding for finding in findings if finding.name not in explained]


def _rank(finding: Finding) -> tuple[int, int, int]:
    return SEVERITIES.index(finding.severity), ARMS.index(finding.arm), ORDER.index(finding.name)


def _verdict(case: Case) -> Finding:
    missing = _missing(case)
    worse = [(where, interval) for where, interval in case.compared() if interval.high < 0]
    if worse:
        where, interval = worse[-1]
        return case.finding(
            "not_enough_evidence",
            "warning",
            _seen(case),
            next=shlex.join(["hardmine", "report", str(case.evidence.settings.get("run", "OUTPUT"))]),
            summary=f"{case.evidence.primary} fell beyond doubt ({where}: {interval.mean:+.3f} [{interval.low:+.3f}, "
            f"{interval.high:+.3f}]), and no figure here says why" + (f"; {missing[0]}." if missing else "."),
        )
    if missing:
        return case.finding(
            "not_enough_evidence",
            "note",
            _seen(case),
            next=missing[1],
            summary=f"Too little to tell whether this arm is healthy: {missing[0]}.",
        )
    lost = lost_since_best(case, ROUNDS_DROP)
    if lost is not None and lost.holds:
        return case.finding(
            "not_enough_evidence",
            "note",
            (lost.figure, *_seen(case)),
            next=_go_on(case),
            summary=f"{case.evidence.primary} is lower than it was ({lost.figure.where}: -{lost.figure.value:.3f}). That may be "
            "chance, and no figure here says why.",
        )
    return case.finding(
        "healthy",
        "note",
        _seen(case),
        next=_go_on(case),
        summary="Nothing is wrong by these figures: the negatives still pull, and recall is no worse for it."
        if case.arm.name != "log" or math.isfinite(case.gradient_left())
        else "Nothing is wrong that a loss and a recall could show; what the gradient does, they cannot.",
    )


def _missing(case: Case) -> tuple[str, str] | None:
    """(what is missing, what to do), if an arm cannot be called healthy."""
    training = case.training
    if training is None:
        return "it has no training with telemetry", same_command(case.evidence)
    steps = max((len(values) for values in training.steps.values()), default=0)
    if steps < case.min_steps:
        return (
            f"{training.name} has {steps} steps with telemetry, and {case.min_steps} are needed",
            more_steps(case.evidence, steps, case.min_steps, epochs_done=len(training.validation_recall))
            if case.arm.name != "log"
            else "log more of its steps",
        )
    if case.arm.name == "log":
        return (
            None
            if len(training.validation_recall) >= 3
            else ("the log has fewer than 3 validations", "evaluate on held-out queries several times an epoch")
        )
    if not math.isfinite(case.late("positive_probability")):
        return ("its telemetry has no probability of the positive", same_command(case.evidence))
    if case.measurement is None:
        return (
            f"its model was not measured on at least {MIN_QUERIES} queries",
            more_dev(case.evidence, max((m.queries for m in case.arm.measurements), default=0), MIN_QUERIES),
        )
    return None


def _seen(case: Case) -> tuple[Figure, ...]:
    """The vital signs of an arm."""
    checks = [
        told("gradient left", case.gradient_left(), case.late_where(), "1 - probability of the positive"),
        case.told("effective_negatives", f"effective negatives, of {case.late('negatives_per_query'):.0f}"),
        case.told("hardest_weight", "weight of the hardest negative among all"),
        case.told("above_hard", "share of the mined negatives above the positive"),
        case.told("mean_pairwise_cosine", "mean cosine of different items"),
        case.told("loss", "mean training loss"),
    ]
    figures = [check.figure for check in checks if math.isfinite(check.figure.value)]
    for measured in case.arm.measurements[-1:]:
        value = measured.metrics.get(case.evidence.primary, math.nan)
        interval = measured.against_baseline.get(case.evidence.primary)
        against = f"; against off the shelf {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]" if interval else ""
        figures.append(told(case.evidence.primary, value, measured.name, f"{case.evidence.primary}{against}").figure)
    return tuple(figures)


def _go_on(case: Case) -> str:
    if case.arm.name == "log" and math.isfinite(case.gradient_left()):
        return "nothing: go on"
    if case.arm.name == "log":
        return "log the probability of the positive and the negatives' weights as well (docs/diagnose.md), or train with hardmine"
    evidence, measured = case.evidence, case.measurement
    gain = measured.against_baseline.get(evidence.primary) if measured else None
    if gain is not None and gain.low > 0:
        return shlex.join(["hardmine", "gate", str(evidence.settings.get("run", "OUTPUT"))])
    if list(case.compared()) and list(case.compared())[-1][1].low > 0:
        return another_round(evidence)
    if evidence.mining_advice:
        return evidence.mining_advice[0]
    return other_settings(evidence)
