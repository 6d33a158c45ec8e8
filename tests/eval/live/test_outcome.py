"""The outcome of live tests: by hand, against published limits, and how often it errs in a thousand simulated tests."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from eval.live.interleaving import credit, team_draft
from eval.live.outcome import (
    ab_test,
    detectable_rate,
    detectable_share,
    interleaving_test,
    look_limits,
    rates_p,
    sign_p,
    units_for,
)

REPEATS = 1_000
SURE = 3 * math.sqrt(0.05 * 0.95 / REPEATS)
"""Three standard errors of a share of 5 % over 1,000 repetitions."""


def test_an_interleaving_by_hand() -> None:
    result = interleaving_test(np.array([1.0] * 8 + [-2.0] * 2 + [0.0] * 5))
    # P(at most 2 of 10) = (1 + 10 + 45) / 1024, doubled
    assert result.p == pytest.approx(2 * 56 / 1024)
    assert (result.a, result.b, result.units, result.decided, result.winner) == (pytest.approx(0.2), 0.8, 15, 10, None)
    assert result.effect == pytest.approx(0.3)
    assert result.low + 0.5 == pytest.approx(0.4902, abs=1e-4)  # Wilson's interval of 8 in 10
    assert result.high + 0.5 == pytest.approx(0.9433, abs=1e-4)
    assert interleaving_test(np.array([-1.0] * 12)).winner == "a"
    tied = interleaving_test(np.zeros(4))
    assert (tied.p, tied.winner, tied.detectable) == (1.0, None, 0.5)


def test_an_ab_test_by_hand() -> None:
    result = ab_test((100, 1000), (130, 1000))
    z = 0.03 / math.sqrt(0.115 * 0.885 * 2 / 1000)
    assert result.p == pytest.approx(2 * NormalDist().cdf(-z))
    assert (result.winner, result.effect) == ("b", pytest.approx(0.03))
    # Newcombe 1998, table II, example a: 56/70 − 48/80 = 0.2, method 10: 0.0524 to 0.3339
    newcombe = ab_test((48, 80), (56, 70))
    assert (newcombe.low, newcombe.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
    assert ab_test((0, 50), (0, 50)).p == 1.0


@pytest.mark.parametrize("sides", [((0, 0), (1, 5)), ((6, 5), (1, 5)), ((-1, 5), (1, 5))])
def test_what_is_no_ab_test_is_refused(sides: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="expected units on both sides"):
        ab_test(*sides)


@pytest.mark.parametrize(
    ("looks", "published"),
    [(1, [1.960]), (2, [2.963, 1.969]), (4, [4.333, 2.963, 2.359, 2.014]), (5, [4.877, 3.357, 2.680, 2.290, 2.031])],
)
def test_looks_have_the_published_limits(looks: int, published: list[float]) -> None:
    """Lan and DeMets' O'Brien-Fleming-type limits at 5 %, as in Jennison and Turnbull (2000) and the program ld98."""
    got = [NormalDist().inv_cdf(1 - limit / 2) for limit in look_limits(looks)]
    np.testing.assert_allclose(got, published, atol=2e-3)


def test_units_for_and_the_detectable_effect_are_each_other_s_inverse() -> None:
    assert detectable_share(units_for(0.04)) == pytest.approx(0.04, rel=1e-3)
    assert detectable_rate(0.2, units_for(0.02, 0.2)) == pytest.approx(0.02, rel=1e-3)


def rates_of_finding(p: np.ndarray, limit: float = 0.05) -> float:
    return float((p < limit).mean())


def test_an_interleaving_errs_as_often_as_it_says_and_finds_what_it_says() -> None:
    rng, decided = np.random.default_rng(11), 800
    wins = rng.binomial(decided, 0.5, REPEATS)
    equal = rates_of_finding(sign_p(wins, decided - wins))
    assert 0.05 - 2 * SURE < equal < 0.05 + SURE, "an exact test errs a little less often"
    wins = rng.binomial(decided, 0.5 + detectable_share(decided), REPEATS)
    assert rates_of_finding(sign_p(wins, decided - wins)) == pytest.approx(0.8, abs=0.05)


def test_an_ab_test_errs_as_often_as_it_says_and_finds_what_it_says() -> None:
    rng, units, rate = np.random.default_rng(12), 3_000, 0.1
    sizes = np.full(REPEATS, units)
    a, b = rng.binomial(units, rate, (2, REPEATS))
    assert rates_of_finding(rates_p(a, sizes, b, sizes)) == pytest.approx(0.05, abs=SURE)
    effect = detectable_rate(rate, units)
    b = rng.binomial(units, rate + effect, REPEATS)
    assert rates_of_finding(rates_p(a, sizes, b, sizes)) == pytest.approx(0.8, abs=0.05)


def test_planned_looks_err_as_often_as_one_look_and_unplanned_ones_do_not() -> None:
    rng, looks, units = np.random.default_rng(13), 5, 200
    wins = rng.binomial(units, 0.5, (REPEATS, looks)).cumsum(axis=1)
    p = np.stack([sign_p(wins[:, look], units * (look + 1) - wins[:, look]) for look in range(looks)], axis=1)
    assert 0.05 - 2 * SURE < (p < np.array(look_limits(looks))).any(axis=1).mean() < 0.05 + SURE
    assert (p < 0.05).any(axis=1).mean() > 0.1, "what looking every day does"


def test_interleaved_clicks_of_simulated_users_favour_the_better_ranking_only() -> None:
    """Users click relevant items often, others rarely, and less the lower they stand: no favour but for relevance."""
    rng, relevant = np.random.default_rng(14), set(range(5))
    better, worse = [0, 1, 9, 2, 3, 8], [9, 0, 8, 1, 7, 2]

    def wins(a: list[int], b: list[int], queries: int) -> float:
        found = 0
        for _ in range(queries):
            shown = team_draft(a, b, 6, rng)
            chance = [(0.5 if item in relevant else 0.05) / position for position, item in enumerate(shown.items, start=1)]
            clicks = [item for item, drawn in zip(shown.items, rng.random(6) < chance, strict=True) if drawn]
            found += np.sign(credit(shown, clicks))
        return found / queries

    assert wins(worse, worse, 2000) == pytest.approx(0.0, abs=0.06)
    assert wins(worse, better, 1000) > 0.05
    assert wins(better, worse, 1000) < -0.05
