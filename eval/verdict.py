"""From figures to the next step of a loop: pure policies, no figures are computed here.

Rounds and the epochs within one stop by the same `decide`. They differ in one thing only: how a step becomes a verdict.

verdict(compare(this_round, best_earlier_round)["recall@3"])  # "improved", "flat" or "worse"
decide(["improved", "flat"], patience=2).decision             # Decision.NEXT
decide_epochs([0.41, 0.44, 0.43], patience=3).stops           # False
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

from eval.diagnosis.case import MIN_QUERIES, MIN_STEPS
from eval.significance import Comparison, Interval

Verdict = Literal["improved", "flat", "worse"]


def too_little(queries: int, *, steps: int | None = None) -> str:
    """Why figures say nothing about a model, in words; "": there is enough.

    Args:
        queries: that a difference was measured on. steps: optimizer steps that made it; None: any number.
    """
    few = [] if steps is None or steps >= MIN_STEPS else [f"{steps:,} optimizer step(s), fewer than {MIN_STEPS}"]
    few += [] if queries >= MIN_QUERIES else [f"{queries:,} evaluated queries, fewer than {MIN_QUERIES}"]
    return " and ".join(few)


class Decision(Enum):
    """What the loop does next."""

    NEXT = "next"
    STOP_FLAT = "stop_flat"
    STOP_WORSE = "stop_worse"


@dataclass(frozen=True)
class Ruling:
    """A decision and the sentence that explains it to a person."""

    decision: Decision
    reason: str

    @property
    def stops(self) -> bool:
        """Whether the loop ends here."""
        return self.decision is not Decision.NEXT


def verdict(difference: Interval | Comparison) -> Verdict:
    """Judge a difference, higher being better: of a round to the best earlier one, of one arm or trial to another.

    Returns:
        "improved" if the whole interval lies above 0, "worse" if the whole of it lies below, else "flat"; "flat" as well
        where the difference was also tested (a `Comparison`) and is not significant.
    """
    if isinstance(difference, Comparison):
        return verdict(difference.interval) if difference.significant else "flat"
    if difference.low > 0:
        return "improved"
    return "worse" if difference.high < 0 else "flat"


def verdicts_by_best(figures: Sequence[float]) -> list[Verdict]:
    """Judge each of a series of figures by the best one before it, without an interval.

    Args:
        figures: oldest first, higher is better.

    Returns:
        "improved" for a figure above all before it (the first one, too), else "flat": an equal figure is no improvement,
        nor is NaN. Never "worse": without an interval a lower figure may be chance.
    """
    best, verdicts = -math.inf, list[Verdict]()
    for figure in figures:
        better = figure > best  # False for NaN
        verdicts.append("improved" if better else "flat")
        best = figure if better else best
    return verdicts


def decide(verdicts: Sequence[Verdict], *, patience: int, step: Literal["round", "epoch"] = "round") -> Ruling:
    """Say whether another step of a loop is worth it; the best step's model is kept whatever the answer.

    Only the newest step can stop the loop as worse: who resumes a stopped run has chosen to go past older ones. Those
    still count as steps without improvement.

    Args:
        verdicts: of each step against the best one before it, oldest first; empty when none has been compared.
        patience: steps without improvement in a row after which to stop, >= 1.
        step: what the loop repeats, for the reason.

    Returns:
        Decision and reason.

    Raises:
        ValueError: `patience` is below 1 or a verdict is unknown.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1 {step}, found {patience}")
    unknown = [name for name in verdicts if name not in get_args(Verdict)]
    if unknown:
        raise ValueError(f"verdicts must be among {get_args(Verdict)}, found {unknown[0]!r}")
    if not verdicts:
        return Ruling(Decision.NEXT, f"No {step} has been compared with an earlier one yet.")
    if verdicts[-1] == "worse":
        return Ruling(Decision.STOP_WORSE, f"The last {step} is worse than the best {step} before it; that one is kept.")
    without = next((n for n, name in enumerate(reversed(verdicts)) if name == "improved"), len(verdicts))
    steps = step if without == 1 else f"{step}s"
    if without >= patience:
        return Ruling(
            Decision.STOP_FLAT, f"No improvement in {without} {steps} in a row (patience {patience}); the best {step} is kept."
        )
    if without:
        return Ruling(Decision.NEXT, f"No improvement in {without} {steps} in a row, fewer than patience {patience}.")
    return Ruling(Decision.NEXT, f"The last {step} improved on the best {step} before it.")


def decide_epochs(recalls: Sequence[float], *, patience: int) -> Ruling:
    """Say whether another epoch of a round's training is worth it: `decide` on plain comparisons, without a test.

    A test would be wrong here. Where one of twenty queries changes, the 95 % interval over 500 of them is ±2 points
    (1.96 √(0.05 / 500)), and an epoch that helps may add less: a test would call every step of a slow, steady climb flat and
    end it. And an epoch is cheap to judge wrong: the best model is kept whatever follows, so luck costs `patience` epochs at
    most. A round costs embedding, search, mining and training, and a person is told that it was better: that takes `verdict`.

    Args:
        recalls: validation recall after each epoch, oldest first.
        patience: epochs in a row without a recall above the best one before them, >= 1.

    Returns:
        Decision and reason; the same for the same recalls, so a resumed training ends where it would have ended.

    Raises:
        ValueError: `patience` is below 1.
    """
    return decide(verdicts_by_best(recalls), patience=patience, step="epoch")
