"""Overlap and rank-biased overlap: by hand, against a slow reference, and what must hold of any two rankings."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.tables.tables import I64
from eval.live.rank_overlap import overlap, rank_biased_overlap, shared_at


def slow_rbo(a: list[int], b: list[int], p: float) -> float:
    """Webber, Moffat and Zobel, equation 23, for lists of which the shorter is padded."""
    size = max(len(a), len(b))
    agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, size + 1)]
    head = sum(value * p**d for d, value in enumerate(agreement, start=1))
    return agreement[-1] * p**size + (1 - p) / p * head if size else 1.0


def padded(lists: list[list[int]], width: int) -> I64:
    return np.array([row + [-1] * (width - len(row)) for row in lists], np.int64)


def test_by_hand() -> None:
    a, b = padded([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 3), padded([[1, 2, 3], [2, 1, 9], [7, 8, 9]], 3)
    np.testing.assert_array_equal(shared_at(a, b), [[1, 2, 3], [0, 2, 2], [0, 0, 0]])
    np.testing.assert_allclose(overlap(a, b), [1, 2 / 3, 0])
    # agreement 0, 1, 2/3; p = 0.5: 2/3 · 1/8 + (0 · 1/2 + 1 · 1/4 + 2/3 · 1/8)
    np.testing.assert_allclose(rank_biased_overlap(a, b, 0.5), [1, 2 / 24 + 1 / 4 + 2 / 24, 0])


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_any_lists_equal_the_slow_reference(p: float) -> None:
    rng = np.random.default_rng(3)
    lists = [[rng.permutation(14)[: rng.integers(0, 11)].tolist() for _ in range(80)] for _ in range(2)]
    a, b = (padded(side, 10) for side in lists)
    want = [slow_rbo(one, other, p) for one, other in zip(*lists, strict=True)]
    np.testing.assert_allclose(rank_biased_overlap(a, b, p), want, atol=1e-12)
    np.testing.assert_allclose(rank_biased_overlap(b, a, p), want, atol=1e-12)
    shares = [len(set(one) & set(other)) / max(len(one), len(other), 1) for one, other in zip(*lists, strict=True)]
    empty = [not one and not other for one, other in zip(*lists, strict=True)]
    np.testing.assert_allclose(overlap(a, b), np.where(empty, 1.0, shares))


def test_a_change_at_the_top_weighs_more() -> None:
    a = padded([[1, 2, 3, 4, 5]] * 2, 5)
    b = padded([[9, 2, 3, 4, 5], [1, 2, 3, 4, 9]], 5)
    first, last = rank_biased_overlap(a, b)
    assert first < last < 1
