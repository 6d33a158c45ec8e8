"""The outcome of an interleaving or an A/B test on real traffic: which side wins, how sure that is, what could have been seen.

A test of a fixed size is looked at once, at its end: whoever looks every day and stops at the first p below 0.05 finds an effect
in every third test of two equal sides. Looks before the end are allowed only where they were planned, each with its own limit
(O'Brien and Fleming's shape, spent as Lan and DeMets, Biometrika 1983), so that all looks together err as often as one.

N units (queries, sessions or users), L looks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Kind = Literal["interleaving", "ab"]
NORMAL = NormalDist()
POWER = 0.8
"""Of the minimum detectable effect: an effect of this size is found in four of five tests."""
GRID = 2001


@dataclass(frozen=True)
class LiveTest:
    """What a test says."""

    kind: Kind
    a: float
    """Interleaving: share of the decided units that a won. A/B: a's rate."""
    b: float
    effect: float
    """Interleaving: b's share of the decided units minus 0.5. A/B: b's rate minus a's."""
    low: float
    high: float
    p: float
    """Two-sided."""
    units: int
    decided: int
    """Units that count: interleaving leaves out ties."""
    detectable: float
    """Minimum detectable effect of a test of this size, with 80 % power."""
    limit: float
    """p must be below it: 1 − confidence, or less at an early look."""

    @property
    def winner(self) -> Literal["a", "b", None]:
        """The better side; None: the test does not tell."""
        return None if self.p >= self.limit else "b" if self.effect > 0 else "a"

    def as_json(self) -> dict[str, Any]:
        """As `--json` has it."""
        return asdict(self) | {"winner": self.winner}


def interleaving_test(credits_N: F64, *, limit: float = 0.05) -> LiveTest:
    """Sign test over units: did b win more of them than a? Exact binomial; the interval is Wilson's.

    Args:
        credits_N: clicks on b's items minus those on a's, of each unit; 0 is a tie, which says nothing of who is better.
        limit: of p.

    Raises:
        ValueError: no unit.
    """
    if not len(credits_N):
        raise ValueError("expected at least one unit, found none")
    wins, losses = int((credits_N > 0).sum()), int((credits_N < 0).sum())
    decided = wins + losses
    share = wins / decided if decided else 0.5
    low, high = _wilson(wins, decided, limit)
    return LiveTest(
        kind="interleaving",
        a=1 - share,
        b=share,
        effect=share - 0.5,
        low=low - 0.5,
        high=high - 0.5,
        p=float(sign_p(np.array([wins]), np.array([losses]))[0]),
        units=len(credits_N),
        decided=decided,
        detectable=detectable_share(decided, limit),
        limit=limit,
    )


def ab_test(a: tuple[int, int], b: tuple[int, int], *, limit: float = 0.05) -> LiveTest:
    """Two rates: pooled z test, interval of the difference by Newcombe (1998, method 10).

    Args:
        a, b: (successes, units) of each side. limit: of p.

    Raises:
        ValueError: a side has no unit, or more successes than units.
    """
    if min(a[1], b[1]) < 1 or not (0 <= a[0] <= a[1] and 0 <= b[0] <= b[1]):
        raise ValueError(f"expected units on both sides, and no more successes than units, found {a} and {b}")
    rate_a, rate_b = a[0] / a[1], b[0] / b[1]
    (low_a, high_a), (low_b, high_b) = _wilson(*a, limit), _wilson(*b, limit)
    effect = rate_b - rate_a
    pooled = (a[0] + b[0]) / (a[1] + b[1])
    return LiveTest(
        kind="ab",
        a=rate_a,
        b=rate_b,
        effect=effect,
        low=effect - math.hypot(rate_b - low_b, high_a - rate_a),
        high=effect + math.hypot(high_b - rate_b, rate_a - low_a),
        p=float(rates_p(*(np.array([value]) for value in (a[0], a[1], b[0], b[1])))[0]),
        units=a[1] + b[1],
        decided=a[1] + b[1],
        detectable=detectable_rate(pooled, min(a[1], b[1]), limit),
        limit=limit,
    )


def sign_p(wins_N: npt.NDArray[np.int64], losses_N: npt.NDArray[np.int64]) -> F64:
    """Two-sided p of many sign tests: exact binomial with a half, doubled; 1 where all is tied."""
    decided = wins_N + losses_N
    fewer = np.minimum(wins_N, losses_N)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, decided.max(initial=0) + 1)))])
    result = np.ones(len(wins_N))
    for number in range(len(wins_N)):
        total, k = int(decided[number]), np.arange(int(fewer[number]) + 1)
        if total:
            chances = log_factorial[total] - log_factorial[k] - log_factorial[total - k] - total * math.log(2)
            result[number] = min(1.0, 2 * float(np.exp(chances).sum()))
    return result


def rates_p(a_N: npt.NDArray[Any], units_a_N: npt.NDArray[Any], b_N: npt.NDArray[Any], units_b_N: npt.NDArray[Any]) -> F64:
    """Two-sided p of many comparisons of two rates, by the pooled normal test; 1 where nothing varies."""
    pooled = (a_N + b_N) / (units_a_N + units_b_N)
    error = np.sqrt(pooled * (1 - pooled) * (1 / units_a_N + 1 / units_b_N))
    z = np.abs(b_N / units_b_N - a_N / units_a_N) / np.where(error > 0, error, np.inf)
    return np.array([2 * NORMAL.cdf(-float(value)) for value in z])


def _wilson(successes: int, units: int, limit: float) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); all of 0 … 1 where there is no unit."""
    if not units:
        return 0.0, 1.0
    z = NORMAL.inv_cdf(1 - limit / 2)
    share, spread = successes / units, z * z / units
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / units + spread / (4 * units))
    return max(0.0, middle - half), min(1.0, middle + half)


def detectable_share(decided: int, limit: float = 0.05, power: float = POWER) -> float:
    """How far from a half b's share of the decided units must be for an interleaving of this size to find it."""
    return min(0.5, _sum_of_z(limit, power) * 0.5 / math.sqrt(decided)) if decided else 0.5


def detectable_rate(rate: float, units: int, limit: float = 0.05, power: float = POWER) -> float:
    """How large a difference of rates must be for an A/B test with this many units on each side to find it."""
    return _sum_of_z(limit, power) * math.sqrt(2 * rate * (1 - rate) / units)


def units_for(effect: float, rate: float | None = None, limit: float = 0.05, power: float = POWER) -> int:
    """Units that a test needs to find an effect: decided ones of an interleaving, or of each side of an A/B test at `rate`."""
    spread = 0.25 if rate is None else 2 * rate * (1 - rate)
    return math.ceil(_sum_of_z(limit, power) ** 2 * spread / effect**2)


def _sum_of_z(limit: float, power: float) -> float:
    return NORMAL.inv_cdf(1 - limit / 2) + NORMAL.inv_cdf(power)


def look_limits(looks: int, limit: float = 0.05) -> list[float]:
    """The limit of p at each of equally spaced looks, so that all together find an effect where there is none with `limit`.

    Lan and DeMets' spending function 2 − 2 Φ(z / √t) on each side, solved look by look: the density of the statistic among
    tests that have not stopped yet is integrated on a grid (Armitage, McPherson and Rowe 1969).
    """
    z_final = NORMAL.inv_cdf(1 - limit / 4)
    spent, limits = 0.0, []
    grid, density = np.zeros(1), np.ones(1)  # the sum of the increments so far, and its density × step
    for look in range(1, looks + 1):
        budget = 4 * (1 - NORMAL.cdf(z_final / math.sqrt(look / looks)))
        wide = np.linspace(-9 * math.sqrt(look), 9 * math.sqrt(look), GRID)
        step = wide[1] - wide[0]
        moved = np.exp(-0.5 * (wide[:, None] - grid[None]) ** 2) / math.sqrt(2 * math.pi) @ density * step
        bound = _bound(wide, moved, budget - spent)
        spent = budget
        limits.append(2 * NORMAL.cdf(-bound / math.sqrt(look)))
        inside = np.abs(wide) < bound
        grid, density = wide[inside], moved[inside]
    return limits


def _bound(grid: F64, mass: F64, wanted: float) -> float:
    """Where the two tails of a symmetric density hold this mass, by interpolation."""
    tail = 2 * (np.cumsum(mass[::-1])[::-1] - mass / 2)  # beyond each point of the upper half
    upper = grid >= 0
    return float(np.interp(-wanted, -tail[upper], grid[upper]))
