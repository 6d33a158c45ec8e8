"""From intervals to the next step of the round loop: pure policies, no figures are computed here.

verdict(paired_bootstrap(this_round, best_earlier_round))     # "improved", "flat" or "worse"
decide(["improved", "flat"], patience=2).decision             # Decision.NEXT
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

from eval.significance import Interval

Verdict = Literal["improved", "flat", "worse"]


class Decision(Enum):
    """What the round loop does next."""

    NEXT = "next"
    STOP_FLAT = "stop_flat"
    STOP_WORSE = "stop_worse"


@dataclass(frozen=True)
class Ruling:
    """A decision and the sentence that explains it to a person."""

    decision: Decision
    reason: str


def verdict(interval: Interval) -> Verdict:
    """Judge a round by the interval of its difference to the best earlier round, higher being better.

    Returns:
        "improved" if the whole interval lies above 0, "worse" if the whole of it lies below, else "flat".
    """
    if interval.low > 0:
        return "improved"
    return "worse" if interval.high < 0 else "flat"


def decide(verdicts: Sequence[Verdict], *, patience: int) -> Ruling:
    """Say whether another round is worth it; the best round's model is kept whatever the answer.

    Only the newest round can stop the loop as worse: who resumes a stopped run has chosen to go past older ones. Those
    still count as rounds without improvement.

    Args:
        verdicts: of each round against the best round before it, oldest first; empty when no round has been compared.
        patience: rounds without improvement in a row after which to stop, >= 1.

    Returns:
        Decision and reason.

    Raises:
        ValueError: `patience` is below 1 or a verdict is unknown.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1 round, found {patience}")
    unknown = [name for name in verdicts if name not in get_args(Verdict)]
    if unknown:
        raise ValueError(f"verdicts must be among {get_args(Verdict)}, found {unknown[0]!r}")
    if not verdicts:
        return Ruling(Decision.NEXT, "No round has been compared with an earlier one yet.")
    if verdicts[-1] == "worse":
        return Ruling(Decision.STOP_WORSE, "The last round is worse than the best round before it; that one is kept.")
    without = next((n for n, name in enumerate(reversed(verdicts)) if name == "improved"), len(verdicts))
    rounds = "round" if without == 1 else "rounds"
    if without >= patience:
        return Ruling(
            Decision.STOP_FLAT,
            f"No improvement in {without} {rounds} in a row (patience {patience}); the best round is kept.",
        )
    if without:
        return Ruling(Decision.NEXT, f"No improvement in {without} {rounds} in a row, fewer than patience {patience}.")
    return Ruling(Decision.NEXT, "The last round improved on the best round before it.")
