"""The questions that rules about the gradient ask, each as a check with its figure: does recall stand still, do mined
negatives harm, what is the least loss that a temperature allows …
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from eval.diagnosis import curves
from eval.diagnosis.case import Case
from eval.diagnosis.commands import setting
from eval.diagnosis.curves import LATE_SHARE
from eval.diagnosis.evidence import Training
from eval.diagnosis.findings import Check, at_least, at_most, first_that_holds, told
from eval.significance import Interval

BELOW_0 = -1e-9
"""An interval that ends at 0 exactly proves nothing."""
SOLVED = 0.95
"""Share of what a perfect model gets of the primary figure, from which on there is nothing left to learn, so that a vanished
gradient is no illness."""
EASY_FALL = 0.10
"""Too easy: the loss fell by at least this share from the second quarter of the steps to the last …"""
EASY_FLOOR = 0.02
"""… or is at most this share of what guessing would cost, ln(1 + negatives): nothing is left to fall."""
FLAT_GAIN = 0.01
"""Best validation recall of the second half at most this much above that of the first half (share: 0.01 is one point)."""
FALSE_SUSPECTED = 0.10
"""Too hard or false: candidates that score above the query's best relevant item, as a share, at least."""
PLATEAU_EQUAL = 0.03
"""Plateau: the interval of what contrast changed lies within ± this of 0, and so does that of what training changed."""


def guessing(case: Case) -> float:
    """Loss of a model that tells nothing apart: ln(1 + negatives)."""
    return math.log1p(case.late("negatives_per_query"))


def loss_floor(temperature: float, negatives: float) -> float:
    """Loss of a perfect model: the positive at cosine 1 and all negatives at 0, where random directions lie.

    Cosines below 0 to many items at once are impossible in a space of fewer dimensions than items, so this is about the
    least that InfoNCE can reach: ln(1 + n exp(-1/τ)).
    """
    if not temperature > 0 or not negatives > 0:
        return math.nan
    return math.log1p(negatives * math.exp(-1 / temperature))


def loss_gone_or_going(case: Case, training: Training) -> Check | None:
    """The training loss still falls, or is so low that nothing is left to fall."""
    guess, loss = guessing(case), case.late("loss")
    return first_that_holds(
        [
            at_least(
                "loss fell by",
                case.loss_fall(),
                EASY_FALL,
                f"{training.name}, second quarter against the last",
                "share of the training loss that went over the second half",
            ),
            at_most(
                "loss",
                loss / guess if guess > 0 else math.nan,
                EASY_FLOOR,
                case.late_where(),
                "training loss as a share of what guessing costs, ln(1 + negatives)",
            ),
        ]
    )


def recall_stands_still(case: Case) -> Check | None:
    """No gain that could be told from none: since the arm's start, against the mined arm, or over its second half."""
    ways: list[Check | None] = [no_round_gained(case)]
    rival = case.against_mined()
    if case.arm.name == "random" and rival is not None:
        where, interval = rival
        ways.append(
            at_most("high end of the difference", interval.high, BELOW_0, where, described(case, interval, "its high end"))
        )
    values_V = curves.validations(case.arm)
    ways.append(
        at_most(
            "late gain",
            curves.second_half_gain(values_V),
            FLAT_GAIN,
            f"{case.arm_name}, validations {len(values_V) // 2 + 1}–{len(values_V)} against those before",
            f"best {case.held_out} of the second half minus best of the first",
        )
    )
    return first_that_holds(ways)


def no_round_gained(case: Case) -> Check | None:
    """Not one round is better, beyond doubt, than what it was trained from; None where that was not measured."""
    compared = list(case.compared())
    if not compared or any(interval.low > 0 for _, interval in compared):
        return None
    where, interval = compared[-1]
    return at_most("low end of the gain", interval.low, 0.0, where, described(case, interval, "its low end"))


def nothing_changed(case: Case) -> Check | None:
    """Every round is as good as what it was trained from, and that is known well: each interval is near 0 at both ends."""
    farthest = [(max(-interval.low, interval.high), where, interval) for where, interval in case.compared()]
    if no_round_gained(case) is None:
        return None
    far, where, interval = max(farthest, key=lambda change: change[0])
    return at_most("gain at most", far, PLATEAU_EQUAL, where, described(case, interval, "its farther end"))


def something_to_learn(case: Case) -> Check | None:
    """Where nearly every query is answered already, a gradient that is gone is no illness."""
    measured, values_V = case.measurement, curves.validations(case.arm)
    primary = case.evidence.primary
    if measured is not None and primary in measured.metrics:
        best = measured.attainable.get(primary, 1.0)
        of = "" if best > 0.9995 else f" of the {best:.3g} that a perfect model gets"
        figure = measured.metrics[primary]
        return at_most(primary, figure, SOLVED * best, measured.name, f"dev figure: there is something left to learn{of}")
    if not len(values_V):
        return None
    return at_most(
        case.held_out, float(values_V.max()), SOLVED, f"{case.arm_name}, at its best", "there is something left to learn"
    )


def harm_of_mining(case: Case) -> Iterator[Check | None]:
    """Beyond doubt worse after mining: than before it, or than random negatives after as many steps."""
    for where, interval in case.compared():
        yield at_most("high end of the change", interval.high, BELOW_0, where, described(case, interval, "its high end"))
    rival = case.against_mined()
    if rival is not None:
        where, interval = rival
        yield at_least("low end of random minus mined", interval.low, -BELOW_0, where, described(case, interval, "its low end"))


def contrast_changes_nothing(case: Case) -> Check | None:
    """The arms are equal: the interval of their difference is near 0 at both ends. Without a random arm mined negatives are
    the contrast, against the random ones of the warm-up."""
    rival = case.against_mined()
    if rival is None:
        return nothing_changed(case) if case.arm.name == "mined" else None
    where, interval = rival
    return at_most(
        "difference at most",
        max(-interval.low, interval.high),
        PLATEAU_EQUAL,
        where,
        described(case, interval, "its farther end"),
    )


def suspected(case: Case) -> Check | None:
    """Candidates of the last mining that score above the best relevant item of their query."""
    last = case.mining
    if last is None:
        return None
    return at_least(
        "suspected",
        last.suspected / last.candidates,
        FALSE_SUSPECTED,
        last.name,
        "candidates above the query's best relevant item, as a share of all",
    )


def cosine_gap(case: Case) -> float:
    """Mean cosine of the positive, 1 - alignment / 2, minus that of in-batch negatives, late."""
    return 1 - case.late("alignment") / 2 - case.late("cosine_in_batch")


def what_mined_ones_carry(case: Case) -> Check | None:
    """Told beside an arm of random negatives: what share of the gradient a handful of mined ones took from its start."""
    arm = case.mined_arm
    if arm is None or case.arm.name != "random":
        return case.told("gradient_share_hard", "share of the gradient that mined negatives carry")
    first = arm.trainings[0]
    share = case.part(first, "gradient_share_hard", 0.0, LATE_SHARE)
    count = case.part(first, "negatives_per_query", 0.0, LATE_SHARE)
    hard = setting(case.evidence, "training.hard_negatives")
    of = f", {hard:.0f} of {count:.0f} negatives" if math.isfinite(hard) and math.isfinite(count) else ""
    return told(
        "gradient_share_hard",
        share,
        curves.steps_text(first, 0.0, LATE_SHARE),
        f"for comparison, share of the gradient that mined negatives carry{of}",
    )


def described(case: Case, interval: Interval, end: str) -> str:
    """The primary figure's change in words, and which end of its interval is compared."""
    return f"{case.evidence.primary} {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]; {end}"
