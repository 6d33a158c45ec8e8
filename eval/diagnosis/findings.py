"""What a diagnosis says: findings, each with the figures that led to it and the experiment to make next.

A rule is written as a row of checks; it holds when all of them do, and then their figures are its evidence:

    evidence = all_hold(at_most("gradient left", 0.02, 0.15, where, "…"), at_least("loss fell by", 0.4, 0.1, where, "…"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eval.diagnosis.evidence import ArmName

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""Worst first. A note is no illness: an arm with notes alone is healthy."""


@dataclass(frozen=True)
class Figure:
    """A figure that a finding rests on."""

    figure: str
    value: float
    threshold: float | None
    """What it was compared with; None: told beside the others, the finding does not hang on it."""
    where: str
    """Which training and steps, or which measurement."""
    text: str
    """What the figure is and how it stands to the threshold."""


@dataclass(frozen=True)
class Finding:
    """One illness, or `healthy`, or that there is too little to tell."""

    name: str
    arm: ArmName
    severity: Severity
    evidence: tuple[Figure, ...]
    next: str
    """The next experiment: one ready command, or a change of configuration."""
    summary: str

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `hardmine diagnose --json` prints them; a figure that is not finite is null."""
        value = asdict(self)
        for figure in value["evidence"]:
            figure["value"] = round(figure["value"], 6) if math.isfinite(figure["value"]) else None
        return value | {"evidence": list(value["evidence"])}


@dataclass(frozen=True)
class Check:
    """A figure and whether it is on the ill side of its threshold."""

    figure: Figure
    holds: bool


def at_least(name: str, value: float, threshold: float, where: str, meaning: str) -> Check:
    """Holds from the threshold on; a missing figure (NaN) does not."""
    return Check(Figure(name, value, threshold, where, f"{meaning}: {value:.3g} (at least {threshold:.3g})"), value >= threshold)


def at_most(name: str, value: float, threshold: float, where: str, meaning: str) -> Check:
    """Holds up to the threshold; a missing figure (NaN) does not."""
    return Check(Figure(name, value, threshold, where, f"{meaning}: {value:.3g} (at most {threshold:.3g})"), value <= threshold)


def told(name: str, value: float, where: str, meaning: str) -> Check:
    """A figure that is told and decides nothing."""
    return Check(Figure(name, value, None, where, f"{meaning}: {value:.3g}"), True)


def all_hold(*checks: Check | None) -> tuple[Figure, ...] | None:
    """The figures of all checks if every one is there and holds, else None. Told figures that are missing are left out."""
    if any(check is None or not check.holds for check in checks):
        return None
    return tuple(check.figure for check in checks if check is not None and not _missing(check.figure))


def first_that_holds(checks: Iterable[Check | None]) -> Check | None:
    """Of several ways to see the same thing the first that shows it."""
    return next((check for check in checks if check is not None and check.holds), None)


def _missing(figure: Figure) -> bool:
    return figure.threshold is None and not math.isfinite(figure.value)
