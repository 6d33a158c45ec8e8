"""What a probe's figures say: yes, no, or that they cannot tell, and then what would. Pure values.

yes         the lead of mined over random negatives reaches probe.min_lead, and its interval lies above 0
no          the whole interval lies below probe.min_lead
cannot tell anything else, and whatever comes from too few steps or too few dev queries
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eval.diagnosis.case import MIN_QUERIES, MIN_STEPS
from eval.metrics import metric_name
from eval.significance import Interval
from eval.verdict import verdict

LEAST_BATCH = 4
"""Queries of a step that is advised, at least: they are each other's negatives."""

Answer = Literal["yes", "no", "cannot tell"]
RULE_OF_THREE = 3.0
"""0 of n queries differ: up to 3 / n of all may (95 %; Hanley & Lippman-Hand 1983, JAMA 249(13))."""


@dataclass(frozen=True)
class Trial:
    """How much a probe trained on, and what its settings were."""

    steps: int
    """Optimizer steps of each arm."""
    train_queries: int
    """Training queries that were used."""
    all_queries: int
    """Training queries that there are."""
    fraction: float
    """probe.fraction."""
    batch_size: int
    max_steps: int | None
    """training.max_steps."""
    dev_cut: bool
    """The dev queries were cut from the training queries."""


@dataclass(frozen=True)
class Lead:
    """Mined minus random in the primary metric, in percentage points."""

    metric: str
    value: float
    threshold: float
    interval: Interval
    """In points too."""
    trial: Trial

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval shows a difference at all."""
        return verdict(self.interval) != "flat"

    @property
    def half_width(self) -> float:
        """Half the interval's width; where no query differs, the bound of the rule of three."""
        width = (self.interval.high - self.interval.low) / 2
        return width if width > 0 else 100 * RULE_OF_THREE / self.interval.queries

    @property
    def queries_needed(self) -> int:
        """Queries at which the interval would be ± the threshold: its width falls with the root of their number."""
        return math.ceil(self.interval.queries * (self.half_width / self.threshold) ** 2)

    @property
    def answer(self) -> Answer:
        """Whether mining is worth a full run."""
        if self.trial.steps < MIN_STEPS or self.interval.queries < MIN_QUERIES:
            return "cannot tell"
        if self.value >= self.threshold and self.interval.low > 0:
            return "yes"
        high = self.interval.high if self.interval.high > self.interval.low else self.value + self.half_width
        return "no" if high < self.threshold else "cannot tell"

    @property
    def passed(self) -> bool | None:
        """True for yes, False for no, None where it cannot tell."""
        return {"yes": True, "no": False, "cannot tell": None}[self.answer]

    @property
    def reason(self) -> str:
        """The answer as a sentence, with its figures."""
        measured = (
            f"mined minus random negatives is {self.value:+.2f} points of {metric_name(self.metric)} "
            f"[{self.interval.low:+.2f}, {self.interval.high:+.2f}] (at least {self.threshold:+.2f})"
        )
        if self.answer != "cannot tell":
            return f"{self.answer}: {measured}"
        return f"cannot tell: {'; '.join(self._wants())}. Measured: {measured}"

    def _wants(self) -> list[str]:
        """What is too little, and what would be enough."""
        wants, queries = [], self.interval.queries
        if self.trial.steps < MIN_STEPS:
            wants.append(_more_steps(self.trial))
        if queries < MIN_QUERIES:
            way = "raise data.dev_fraction, or label more" if self.trial.dev_cut else "label more for dev"
            wants.append(f"{queries} dev queries are too few, at least {MIN_QUERIES} are needed: {way}")
        if not wants:
            wants.append(
                f"the interval is ±{self.half_width:.2f} points with {queries:,} dev queries; about {self.queries_needed:,} "
                f"would make it ±{self.threshold:.2f}"
            )
        return wants

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints; everything in points."""
        return {
            "name": self.metric,
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "interval": asdict(self.interval) | {"excludes_zero": self.excludes_zero},
        }


def _more_steps(trial: Trial) -> str:
    """The settings of which each alone gives enough steps."""
    steps = f"{trial.steps:,} step{'' if trial.steps == 1 else 's'} in each arm"
    text = f"{steps} {'is' if trial.steps == 1 else 'are'} too few, at least {MIN_STEPS} are needed: "
    if trial.max_steps is not None and trial.max_steps < MIN_STEPS:
        return f"{text}raise training.max_steps = {trial.max_steps}"
    share = trial.fraction * MIN_STEPS / max(trial.steps, 1)
    ways = [f"probe.fraction = {math.ceil(100 * share) / 100:g}"] if share <= 1 else []
    smaller, whole = trial.batch_size * trial.steps // MIN_STEPS, trial.batch_size / share
    if smaller >= LEAST_BATCH:
        ways.append(f"training.batch_size = {smaller}")
    elif share > 1 and trial.fraction < 1 and whole >= LEAST_BATCH:
        ways.append(f"probe.fraction = 1 with training.batch_size = {int(whole)}")
    return text + (", or ".join(ways) or "this takes more training queries")
