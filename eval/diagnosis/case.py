"""One arm of a run as a rule sees it, with what several rules ask of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eval.diagnosis import curves
from eval.diagnosis.commands import setting
from eval.diagnosis.curves import LATE_SHARE
from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Training
from eval.diagnosis.findings import Check, Figure, Finding, Severity, told
from eval.significance import Interval

MIN_STEPS = 40
"""Micro-steps with telemetry below which nothing is said about a training's gradient."""
MIN_LOG_LINES = 8
"""The same for another trainer's log, which has one line for hundreds of steps."""
MIN_QUERIES = 50
"""Evaluated queries (or labelled pairs) below which nothing is said about a measurement or a slice."""

OF_MINED = ("above_hard", "dead_hard", "cosine_hard", "gradient_share_hard")
"""Columns about mined negatives."""


@dataclass(frozen=True, eq=False)
class Case:
    """An arm among the evidence."""

    evidence: Evidence
    arm: Arm

    @property
    def training(self) -> Training | None:
        """The arm's last training, whose late steps are the arm's state."""
        return self.arm.trainings[-1] if self.arm.trainings else None

    @property
    def arm_name(self) -> str:
        """The arm for a person."""
        return "the log" if self.arm.name == "log" else f"{self.arm.name} arm"

    @property
    def held_out(self) -> str:
        """What validations measure, for a person: in another trainer's log the figure that was read."""
        return self.evidence.primary if self.arm.name == "log" else "validation recall"

    @property
    def min_steps(self) -> int:
        """Steps that a training needs before anything is said about it."""
        return MIN_LOG_LINES if self.arm.name == "log" else MIN_STEPS

    @property
    def measurement(self) -> Measurement | None:
        """The arm's last measurement with enough queries."""
        measured = [m for m in self.arm.measurements if m.queries >= MIN_QUERIES]
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

    def part(self, training: Training, column: str, start: float, stop: float) -> float:
        """Mean of a column over a part of a training; NaN where it is missing or the training is too short."""
        return curves.part(training, column, start, stop, min_steps=self.min_steps)

    def late(self, column: str) -> float:
        """Mean of a column over the late steps of the last training; NaN where there is none.

        Telemetry says 0 of the mined negatives of an arm that has none: that is no figure.
        """
        return (
            math.nan
            if self.training is None or (self.arm.name == "random" and column in OF_MINED)
            else self.part(self.training, column, 1 - LATE_SHARE, 1.0)
        )

    def late_where(self) -> str:
        """Where `late` looks."""
        return "" if self.training is None else curves.steps_text(self.training)

    def loss_fall(self) -> float:
        """Share of the loss that went from the second quarter of the last training to its last quarter."""
        return math.nan if self.training is None else curves.fall(self.training, "loss", min_steps=self.min_steps)

    def gradient_left(self) -> float:
        """1 - probability of the positive, late: the size of InfoNCE's gradient with respect to the logits."""
        return 1 - self.late("positive_probability")

    def temperature(self) -> float:
        """τ late in the last training, from its telemetry, else from the settings; NaN where neither has it."""
        late = self.late("temperature")
        return late if math.isfinite(late) else setting(self.evidence, "training.temperature")

    def peak_rate(self) -> float:
        """Highest learning rate of the last training; NaN where telemetry has none."""
        rates = self.training.steps.get("learning_rate") if self.training else None
        return float(np.nanmax(rates)) if rates is not None and np.isfinite(rates).any() else math.nan

    def told(self, column: str, meaning: str) -> Check:
        """A late figure that decides nothing; left out where it is missing."""
        return told(column, self.late(column), self.late_where(), meaning)

    def compared(self) -> Iterator[tuple[str, Interval]]:
        """(where, interval of the primary figure) of each measurement against what it was trained from."""
        for measured in self.arm.measurements:
            interval = measured.against_previous.get(self.evidence.primary)
            if interval is not None and interval.queries >= MIN_QUERIES:
                yield f"{measured.name} against what it was trained from", interval

    def against_mined(self) -> tuple[str, Interval] | None:
        """The random arm's primary figure against the last mined round, from whichever arm one looks."""
        for arm in self.evidence.arms:
            if arm.name == "random" and arm.measurements:
                measured = arm.measurements[-1]
                interval = measured.against_mined.get(self.evidence.primary)
                if interval is not None and interval.queries >= MIN_QUERIES:
                    return f"{measured.name} against the last mined round", interval
        return None

    def finding(self, name: str, severity: Severity, figures: tuple[Figure, ...], *, next: str, summary: str) -> Finding:  # noqa: A002
        """A finding about this arm."""
        return Finding(name, self.arm.name, severity, figures, next, summary)
