"""NDCG of re-ranked hits, by hand and as the evaluation measures it."""

from __future__ import annotations

import numpy as np
import pytest

from training.reranker.validation import Candidates, ndcg_of


def test_two_lists_by_hand() -> None:
    chosen = Candidates(
        np.array([0, 1]),
        np.array([[5, 6, 7], [8, 9, -1]]),
        np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]], np.float32),
        np.array([3.0 + 1.0 / np.log2(3), 2.0 + 2.0 / np.log2(3)]),
    )
    got = ndcg_of(np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 9.0]], np.float32), chosen)
    want = [(1.0 + 3.0 / np.log2(3)) / (3.0 + 1.0 / np.log2(3)), 2.0 / (2.0 + 2.0 / np.log2(3))]
    assert got.tolist() == pytest.approx(want), "of equal scores the hits' own order; what is no hit never counts"
