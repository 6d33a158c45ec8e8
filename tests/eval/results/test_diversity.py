"""Figures of exposure, popularity and similarity against hand-worked cases and slow references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eval.results.diversity import (
    coverage,
    exposure,
    gini,
    intra_list_similarity,
    mean_by_owner,
    percentiles,
    popularity,
    top_share,
)

COUNTS = arrays.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 50))


def test_exposure_counts_lists_and_no_padding() -> None:
    shown = exposure(np.array([[0, 2, -1], [2, 3, 0], [-1, -1, -1]]))
    assert shown.tolist() == [2, 2, 1], "of the items 0, 2 and 3"
    assert coverage(shown, 6) == 3 / 6
    assert top_share(shown, 6, 0.5) == 1.0
    assert top_share(shown, 6, 0.01) == 2 / 5, "one item at least"


@given(COUNTS)
def test_gini_is_the_mean_difference_of_any_two_items_over_twice_the_mean(counts: np.ndarray) -> None:
    pairs = np.abs(counts[:, None] - counts[None, :]).mean()
    want = pairs / (2 * counts.mean()) if counts.any() else 0.0
    assert gini(counts, len(counts)) == pytest.approx(want, abs=1e-12)
    shown = counts[counts > 0]
    figures = [(gini(some, len(counts)), top_share(some, len(counts)), coverage(some, len(counts))) for some in (counts, shown)]
    assert figures[0] == figures[1], "items that are never shown need not be listed"


@given(COUNTS)
def test_exposure_figures_lie_in_their_range(counts: np.ndarray) -> None:
    assert -1e-12 <= gini(counts, len(counts)) < 1
    assert 0 <= top_share(counts, len(counts)) <= 1
    assert 0 <= coverage(counts, len(counts)) <= 1


def test_equal_exposure_is_the_low_end_and_one_item_the_high_end() -> None:
    assert gini(np.full(200, 3), 200) == pytest.approx(0)
    assert top_share(np.full(200, 3), 200) == pytest.approx(0.01)
    assert gini(np.array([9]), 200) == pytest.approx(1 - 1 / 200)
    assert top_share(np.array([9]), 200) == 1.0
    assert (gini(np.zeros(0, np.int64), 5), top_share(np.zeros(0, np.int64), 5)) == (0, 0)


@given(st.lists(st.one_of(st.integers(0, 5).map(float), st.just(math.nan)), min_size=1, max_size=40))
def test_percentile_is_the_share_below_and_half_of_the_equal_ones(values: list[float]) -> None:
    filled = [-math.inf if math.isnan(value) else value for value in values]
    want = [
        (sum(other < value for other in filled) + sum(other == value for other in filled) / 2) / len(filled) for value in filled
    ]
    got = percentiles(np.array(values), np.array(values))
    assert got == pytest.approx(want)
    assert got.mean() == pytest.approx(0.5)
    listed = [value for value in values if value != 0]
    assert np.array_equal(percentiles(np.array(values), np.array(listed, np.float64), values.count(0)), got), (
        "zeros need not be listed"
    )


def test_popularity_is_a_mean_of_means() -> None:
    percentile = np.array([0.0, 0.2, 1.0])
    assert popularity(np.array([[2, 2, 2], [0, -1, -1], [-1, -1, -1]]), percentile) == pytest.approx((1.0 + 0.0) / 2)
    assert popularity(np.array([[0, 1, 2]]), percentiles(np.array([5.0, 6, 7]), np.array([5.0, 6, 7]))) == pytest.approx(0.5)
    assert math.isnan(popularity(np.full((2, 3), -1), percentile))
    assert mean_by_owner(np.array([0, 4, 4]), np.array([1.0, 0.0, 0.5])) == pytest.approx((1.0 + 0.25) / 2)


def test_intra_list_similarity_equals_the_mean_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 7)).astype(np.float32) * rng.random((40, 1), dtype=np.float32)
    places = np.stack([rng.permutation(40)[:10] for _ in range(600)])
    places[5, 3:], places[6, 1:], places[7] = -1, -1, -1
    got = intra_list_similarity(places, vectors)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for query in (0, 5, 255, 256, 599):
        real = [place for place in places[query].tolist() if place >= 0]
        want = np.mean([unit[a] @ unit[b] for a, b in itertools.combinations(real, 2)])
        assert got[query] == pytest.approx(want, abs=1e-12)
    assert np.isnan(got[[6, 7]]).all()
    assert intra_list_similarity(np.zeros((1, 3), np.int64), vectors)[0] == pytest.approx(1.0)
