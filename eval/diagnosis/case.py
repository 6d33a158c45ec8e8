"""One arm of a run as a rule sees it, with what several rules ask of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from eval.diagnosis import curves
from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Training
from eval.diagnosis.findings import Check, Figure, Finding, Severity, told
from eval.diagnosis.thresholds import DiagnosisSettings
from eval.significance import Interval


@dataclass(frozen=True, eq=False)
class Case:
    """An arm among the evidence, and the thresholds."""

    evidence: Evidence
    arm: Arm
    limits: DiagnosisSettings

    @property
    def training(self) -> Training | None:
        """The arm's last training, whose late steps are the arm's state."""
        return self.arm.trainings[-1] if self.arm.trainings else None

    @property
    def measurement(self) -> Measurement | None:
        """The arm's last measurement with enough queries."""
        measured = [m for m in self.arm.measurements if m.queries >= self.limits.min_queries]
        return measured[-1] if measured else None

    @property
    def mining(self) -> Mining | None:
        """The arm's last mining that had candidates."""
        return next((mining for mining in reversed(self.arm.minings) if mining.candidates), None)

    @property
    def mined_arm(self) -> Arm | None:
        """The run's arm of mined negatives."""
        return next((arm for arm in self.evidence.arms if arm.name == "mined" and arm.trainings), None)

    @property
    def softmax(self) -> bool:
        """Whether the loss is a softmax over negatives: a triplet loss has no temperature and no weights."""
        return self.evidence.settings.get("training.loss", "info_nce") == "info_nce"

    def late(self, column: str) -> float:
        """Mean of a column over the late steps of the last training; NaN where there is none."""
        return math.nan if self.training is None else curves.late(self.training, column, self.limits)

    def late_where(self) -> str:
        """Where `late` looks."""
        return "" if self.training is None else curves.late_text(self.training, self.limits)

    def gradient_left(self) -> float:
        """1 - probability of the positive, late: the size of InfoNCE's gradient with respect to the logits."""
        return 1 - self.late("positive_probability")

    def told(self, column: str, meaning: str) -> Check:
        """A late figure that decides nothing; left out where it is missing."""
        return told(column, self.late(column), self.late_where(), meaning)

    def compared(self) -> Iterator[tuple[str, Interval]]:
        """(where, interval of the primary figure) of each measurement against what it was trained from."""
        for measured in self.arm.measurements:
            interval = measured.against_previous.get(self.evidence.primary)
            if interval is not None and interval.queries >= self.limits.min_queries:
                yield f"{measured.name} against what it was trained from", interval

    def against_mined(self) -> tuple[str, Interval] | None:
        """The random arm's primary figure against the last mined round, from whichever arm one looks."""
        for arm in self.evidence.arms:
            if arm.name == "random" and arm.measurements:
                measured = arm.measurements[-1]
                interval = measured.against_mined.get(self.evidence.primary)
                if interval is not None and interval.queries >= self.limits.min_queries:
                    return f"{measured.name} against the last mined round", interval
        return None

    def finding(self, name: str, severity: Severity, figures: tuple[Figure, ...], *, next: str, summary: str) -> Finding:  # noqa: A002
        """A finding about this arm."""
        return Finding(name, self.arm.name, severity, figures, next, summary)
