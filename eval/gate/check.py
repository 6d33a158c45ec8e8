"""One figure against one threshold, and how it ends: passed, failed, inconclusive, or not checked for a reason that is told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eval.significance import Interval

Outcome = Literal["passed", "failed", "inconclusive", "not checked"]

TINY = 1e-9
"""A mean of floats may miss the threshold that it is by this."""
FORMS = {
    "figure": "{:.3f}",
    "share": "{:.1%}",
    "points": "{:+.1f} points",
    "ms": "{:+.2f} ms",
    "change": "{:+.1%}",
    "ratio": "{:.2f}",
    "count": "{:.0f}",
}
"""Unit of a figure -> how it is written. A figure, a share and a change are fractions of one."""
NO_FIGURE = "the evaluation has no such figure"


@dataclass(frozen=True)
class Check:
    """One figure against one threshold."""

    name: str
    text: str
    """One sentence for a person."""
    threshold: float | None
    """None: it is switched off."""
    value: float | None = None
    """None: it is not known."""
    passed: bool | None = None
    """None: inconclusive or not checked."""
    interval: Interval | None = None
    """None: the figure has none."""
    attainable: float | None = None
    """The best that any model could get on these queries; None: it is not known."""
    uncertain: bool = False
    """Chance may be why it is on this side of the threshold: the interval crosses it, or a gain is not significant."""
    unit: str = "figure"
    """Of value, threshold and interval; see FORMS."""
    why: str | None = None
    """Why it was not checked."""
    wanted: bool = True
    """evaluation.gate.strict lets it not be missing. False: it is switched off, or the data has no such thing."""

    @property
    def outcome(self) -> Outcome:
        """How it ends."""
        if self.passed is None:
            return "inconclusive" if self.uncertain else "not checked"
        return "passed" if self.passed else "failed"

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "name": self.name,
            "value": self.value,
            "threshold": self.threshold,
            "outcome": self.outcome,
            "passed": self.passed,
            "interval": asdict(self.interval) if self.interval else None,
            "attainable": self.attainable,
            "unit": self.unit,
            "uncertain": self.uncertain,
            "why": self.why,
            "text": self.text,
        }


def not_checked(name: str, why: str, *, threshold: float | None = None, unit: str = "figure", wanted: bool = True) -> Check:
    """A check that could not be made, or was not asked for."""
    return Check(name, f"{name} was not checked: {why}", threshold, unit=unit, why=why, wanted=wanted)


def switched_off(name: str, setting: str) -> Check:
    """A check that is on by default, and is not wanted."""
    return not_checked(name, f"evaluation.gate.{setting} is off", wanted=False)


def bound(
    name: str,
    what: str,
    figure: Interval | float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "figure",
    why: str = NO_FIGURE,
    attainable: float | None = None,
    not_significant: float | None = None,
    is_noisy: bool = False,
) -> Iterator[Check]:
    """The check of one figure; none without a threshold.

    A figure that is no number, or was measured on no query, fails: whatever it should have been, it did not reach it.

    Args:
        what: the figure, as the sentence begins.
        figure: a number is a figure without an interval; None: not known.
        why: the reason for None.
        attainable: the best figure that any model could have. A threshold beyond it is called unreachable.
        not_significant: p of a gain that chance explains, whatever its interval says; None: it is significant, or no gain.
        is_noisy: missing the threshold is a failure only beyond doubt, as other work of the machine moves the figure, too.
    """
    threshold = least if least is not None else most
    if threshold is None:
        return
    if figure is None:
        yield not_checked(name, why, threshold=threshold, unit=unit)
        return
    value, interval = (figure.mean, figure) if isinstance(figure, Interval) else (figure, None)
    asked, form = f"at {'least' if least is not None else 'most'} {FORMS[unit].format(threshold)}", FORMS[unit]
    numbers = (value, interval.low, interval.high) if interval else (value,)
    if not all(map(math.isfinite, numbers)) or (interval and not interval.queries):
        where = "measured on no query" if interval and not interval.queries else "not a number"
        yield Check(name, f"{what}: {where} ({asked}): not passed", threshold, passed=False, unit=unit)
        return
    reached = value >= threshold - TINY if least is not None else value <= threshold + TINY
    crosses = interval is not None and interval.low <= threshold + TINY and interval.high >= threshold - TINY
    crosses = crosses and interval is not None and interval.high - interval.low > TINY  # no width: there is no doubt
    by_chance = reached and not_significant is not None and threshold >= 0
    uncertain = crosses or by_chance
    passes = None if uncertain and (reached or is_noisy) else reached
    ending = {True: "passed", False: "not passed", None: "inconclusive"}[passes]
    between = f" [{plain(form, interval.low)}, {plain(form, interval.high)}]" if interval else ""
    text = f"{what}: {form.format(value)}{between} ({asked}): {ending}"
    if by_chance:
        text += f", as it is not significant (p = {not_significant:.2g}), so it may be chance"
    elif crosses:
        text += f", {'but' if passes is False else 'as'} the interval crosses the threshold, so that may be chance"
    if least is not None and attainable is not None and threshold > attainable + TINY:
        text += (
            f" (the threshold is unreachable: a perfect model gets {form.format(attainable)} on these queries, so ask for "
            f"less, or for a gain)"
        )
    yield Check(name, text, threshold, value, passes, interval, attainable, uncertain, unit)


def in_points(interval: Interval) -> Interval:
    """A difference of shares as percentage points."""
    return Interval(100 * interval.mean, 100 * interval.low, 100 * interval.high, interval.queries)


def plain(form: str, value: float) -> str:
    """A number without its unit."""
    return form.split(" ", maxsplit=1)[0].format(value)
