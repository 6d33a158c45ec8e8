"""Paired times: percentiles, intervals, and what noise that hits both sides does to them."""

from __future__ import annotations

import numpy as np
import pytest

from eval.gate.latency import compare_latency


def test_percentiles_and_what_is_added() -> None:
    base = np.arange(1.0, 102.0)
    found = compare_latency(base + 5, base)
    assert (found.pairs, found.base_p50, found.model_p50, found.base_p95, found.model_p95) == (101, 51.0, 56.0, 96.0, 101.0)
    assert found.added_ms.mean == 5.0
    assert (found.added_ms.low, found.added_ms.high) == (5.0, 5.0), "the same pairs are drawn for both"
    assert found.p95_increase is not None
    assert found.p95_increase.mean == pytest.approx(5 / 96)


def test_noise_on_both_sides_cancels_and_noise_on_one_widens() -> None:
    rng = np.random.default_rng(0)
    moments = rng.lognormal(2.0, 0.5, 300)
    shared = compare_latency(moments + 1.0, moments).added_ms
    apart = compare_latency(rng.permutation(moments) + 1.0, moments).added_ms
    assert shared.mean == pytest.approx(1.0)
    assert shared.high - shared.low < 0.05 * (apart.high - apart.low)
    assert apart.low < 1.0 < apart.high


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    rng = np.random.default_rng(1)
    model, base = rng.lognormal(1.0, 0.4, 60), rng.lognormal(0.9, 0.4, 60)
    drawn = np.random.default_rng(7).integers(60, size=(500, 60))
    added = [np.median(model[rows]) - np.median(base[rows]) for rows in drawn]
    grown = [np.quantile(model[rows], 0.95) / np.quantile(base[rows], 0.95) - 1 for rows in drawn]
    found = compare_latency(model, base, resamples=500, seed=7)
    assert (found.added_ms.low, found.added_ms.high) == pytest.approx(tuple(np.quantile(added, [0.025, 0.975])))
    assert found.p95_increase is not None
    assert (found.p95_increase.low, found.p95_increase.high) == pytest.approx(tuple(np.quantile(grown, [0.025, 0.975])))


def test_without_a_base_all_of_the_time_is_added() -> None:
    found = compare_latency(np.array([1.0, 2.0, 3.0]), None)
    assert found.added_ms.mean == 2.0
    assert found.base_p50 is None
    assert found.p95_increase is None


@pytest.mark.parametrize(("model", "base"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([np.nan], [1.0])])
def test_times_that_are_none_are_refused(model: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected one time|finite"):
        compare_latency(np.array(model), np.array(base))
