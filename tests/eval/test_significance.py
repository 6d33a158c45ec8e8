"""Bootstrap and permutation test against hand-worked cases, slow references, and known populations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from eval import significance
from eval.significance import Interval, compare, holm, paired_bootstrap, paired_permutation_p, smallest_gain, spread_of

F64 = npt.NDArray[np.float64]


def normal_pair(queries: int, shift: float, seed: int) -> tuple[F64, F64]:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(size=queries)
    return baseline + rng.normal(shift, 0.5, size=queries), baseline


def test_known_shift_lies_inside_and_zero_outside() -> None:
    values, baseline = normal_pair(2_000, shift=0.2, seed=0)
    got = paired_bootstrap(values, baseline)
    assert got.low < 0.2 < got.high
    assert got.low > 0
    assert got.mean == pytest.approx((values - baseline).mean())
    assert got.queries == 2_000
    # Normal theory: half a width of 1.96 standard errors.
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * (values - baseline).std() / math.sqrt(2_000), rel=0.05)


def test_bootstrap_equals_every_possible_resample() -> None:
    difference = np.array([0.0, 1.0, 5.0, -2.0, 0.25])
    want = np.array([np.mean(drawn) for drawn in itertools.product(difference, repeat=5)])
    got = significance._bootstrap_sums(difference, 200_000, np.random.default_rng(0)) / 5
    levels = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(got, levels) == pytest.approx(np.quantile(want, levels), abs=0.051)
    assert got.mean() == pytest.approx(want.mean(), abs=0.01)
    assert got.std() == pytest.approx(want.std(), rel=0.01)


def test_counting_distinct_values_agrees_with_drawing_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    values, baseline = rng.choice([0.0, 1 / 3, 1.0], p=[0.2, 0.3, 0.5], size=900), rng.choice([0.0, 1.0], size=900)
    counted = paired_bootstrap(values, baseline, resamples=20_000)
    monkeypatch.setattr(significance, "_DRAWS_PER_COUNT", 10**9)
    drawn = paired_bootstrap(values, baseline, resamples=20_000)
    assert counted.mean == drawn.mean
    assert counted.low == pytest.approx(drawn.low, abs=0.002)
    assert counted.high == pytest.approx(drawn.high, abs=0.002)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(300):
        values, baseline = normal_pair(200, shift=0.1, seed=trial)
        got = paired_bootstrap(values, baseline, resamples=1_000, confidence=0.9, seed=trial)
        covered += got.low <= 0.1 <= got.high
    assert 0.85 <= covered / 300 <= 0.95


def test_same_seed_same_interval_and_other_seed_another() -> None:
    values, baseline = normal_pair(300, shift=0.1, seed=1)
    first = paired_bootstrap(values, baseline, seed=4)
    assert first == paired_bootstrap(values.copy(), baseline, seed=4)
    assert first != paired_bootstrap(values, baseline, seed=5)
    p = paired_permutation_p(values, baseline, resamples=999, seed=4)
    assert p == paired_permutation_p(values.copy(), baseline, resamples=999, seed=4)


def test_pairs_with_nan_are_dropped_on_either_side() -> None:
    values, baseline = normal_pair(50, shift=0.3, seed=2)
    holes = np.insert(values, [0, 10], [np.nan, 1.0]), np.insert(baseline, [0, 10], [1.0, np.nan])
    assert paired_bootstrap(*holes) == paired_bootstrap(values, baseline)
    assert paired_permutation_p(*holes) == paired_permutation_p(values, baseline)


def test_equal_arrays_give_p_one_and_an_empty_interval() -> None:
    values = np.random.default_rng(0).random(100)
    assert paired_permutation_p(values, values) == 1.0
    assert paired_bootstrap(values, values) == Interval(0.0, 0.0, 0.0, 100)


def test_permutation_equals_all_sign_flips_with_ties_counted() -> None:
    # On paper many flips tie with the observed sum; thirds and tenths do not add up exactly in binary.
    difference = np.array([0.1, 0.2, 0.3, 1 / 3, -0.1, 0.1, 0.7, -0.2])
    sums = [abs(math.fsum(s * d for s, d in zip(signs, difference, strict=True)))
            for signs in itertools.product((-1, 1), repeat=8)]  # fmt: skip
    want = np.mean([total >= abs(difference.sum()) - 1e-9 for total in sums])
    got = paired_permutation_p(difference, np.zeros(8), resamples=100_000)
    assert got == pytest.approx(want, abs=0.006)
    assert paired_permutation_p(np.ones(3), np.zeros(3), resamples=50_000) == pytest.approx(1 / 4, abs=0.01)


def test_permutation_p_is_small_for_a_shift_and_never_zero() -> None:
    values, baseline = normal_pair(500, shift=0.5, seed=3)
    assert paired_permutation_p(values, baseline, resamples=999) == 1 / 1000
    assert paired_permutation_p(baseline, values, resamples=999) == 1 / 1000


def test_permutation_p_is_uniform_without_a_difference() -> None:
    ps = [paired_permutation_p(*normal_pair(60, shift=0.0, seed=trial), resamples=199) for trial in range(400)]
    assert np.mean(np.array(ps) <= 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(ps) == pytest.approx(0.5, abs=0.05)


def test_counting_distinct_sizes_agrees_with_flipping_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    values, baseline = rng.choice([0.0, 1 / 3, 1.0], p=[0.2, 0.3, 0.5], size=900), rng.choice([0.0, 1.0], p=[0.4, 0.6], size=900)
    counted = paired_permutation_p(values, baseline, resamples=50_000)
    monkeypatch.setattr(significance, "_DRAWS_PER_COUNT", 10**9)
    flipped = paired_permutation_p(values, baseline, resamples=50_000)
    assert 0.01 < counted < 0.99, "a case that tells something"
    assert counted == pytest.approx(flipped, abs=0.012)


def test_holm_by_hand_and_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    ps = np.random.default_rng(0).random(40).tolist()
    got = holm(ps)
    ranked = sorted(range(40), key=lambda n: ps[n])
    for place, n in enumerate(ranked):
        want = min(1.0, max(ps[earlier] * (40 - before) for before, earlier in enumerate(ranked[: place + 1])))
        assert got[n] == pytest.approx(want)


def test_comparison_is_each_test_alone_then_corrected() -> None:
    pairs = {name: normal_pair(300, shift, seed) for name, shift, seed in (("a", 0.07, 1), ("b", 0.3, 2), ("c", 0.0, 3))}
    values, baseline = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    got = compare(values | {"only here": values["a"]}, baseline, alone=["a"], resamples=2_000)
    ps = {name: paired_permutation_p(*pair, resamples=2_000) for name, pair in pairs.items()}
    assert list(got) == ["a", "b", "c"]
    for name, pair in pairs.items():
        assert got[name].interval == paired_bootstrap(*pair, resamples=2_000)
        assert got[name].p == ps[name]
    assert got["a"].p_adjusted == ps["a"], "named beforehand: a test of its own"
    assert [got[name].p_adjusted for name in "bc"] == holm([ps["b"], ps["c"]])
    assert got["b"].significant
    assert not got["c"].significant
    assert got["b"].as_json().keys() == {"mean", "low", "high", "queries", "p", "p_adjusted", "significant"}


def test_of_many_differences_that_are_none_hardly_ever_one_is_significant() -> None:
    false = 0
    for trial in range(60):
        pairs = {n: normal_pair(80, shift=0.0, seed=1_000 * trial + n) for n in range(12)}
        values, baseline = ({n: pair[side] for n, pair in pairs.items()} for side in (0, 1))
        false += any(found.significant for found in compare(values, baseline, resamples=1_000, confidence=0.9).values())
    assert false / 60 <= 0.2, "without the correction about 70 of 100 would be"


def test_bounded_blocks_hold_every_resample() -> None:
    for draws_each in (0, 1, 7, 10**9):
        blocks = significance._blocks(10_001, draws_each)
        assert sum(blocks) == 10_001
        assert min(blocks) >= 1
        assert max(blocks) == 1 or max(blocks) * draws_each <= significance._BLOCK_DRAWS


@pytest.mark.parametrize(
    ("values", "baseline", "options", "message"),
    [
        ([1.0], [1.0, 2.0], {}, "one value per query"),
        ([np.nan], [1.0], {}, "found none among 1"),
        ([], [], {}, "found none among 0"),
        ([np.inf], [1.0], {}, "infinite"),
        ([1.0], [0.0], {"resamples": 0}, "resamples must be >= 1, found 0"),
        ([1.0], [0.0], {"confidence": 1.0}, "between 0 and 1, found 1.0"),
    ],
)
def test_bad_input_is_named(values: list[float], baseline: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(np.array(values), np.array(baseline), **options)  # type: ignore[arg-type]


def test_the_smallest_gain_is_where_the_bootstrap_interval_leaves_0() -> None:
    rng = np.random.default_rng(3)
    before = (rng.random(400) < 0.4).astype(float)
    change = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.15, 0.7, 0.15])
    interval = paired_bootstrap(before + change, before)
    half = (interval.high - interval.low) / 2
    assert smallest_gain(float(change.std()), 400, confidence=0.95) == pytest.approx(half, rel=0.05)
    assert spread_of(interval, confidence=0.95) == pytest.approx(change.std(), rel=0.05)


def test_a_spread_and_its_smallest_gain_are_each_the_other_s_inverse() -> None:
    for spread, queries, confidence in ((0.2, 30, 0.9), (0.7, 4000, 0.99)):
        half = smallest_gain(spread, queries, confidence=confidence)
        assert spread_of(Interval(0.0, -half, half, queries), confidence=confidence) == pytest.approx(spread)


def test_unrelated_figures_between_0_and_1_never_spread_more_than_is_assumed() -> None:
    rng = np.random.default_rng(5)
    for share in (0.1, 0.5, 0.9):
        one, other = (rng.random((2, 20_000)) < share).astype(float)
        assert (one - other).std() <= 0.5**0.5 + 0.01
