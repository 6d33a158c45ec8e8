"""A re-ranker's order, against sorting each query by hand; ties and padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import Judgements, per_query_metrics
from eval.reranking.order import perfect_order, reorder, tied_at_the_top

INF = np.inf


def test_hits_come_by_score_and_equal_scores_keep_the_retrievers_order() -> None:
    rows = np.array([[7, 3, 9, 4], [5, 6, -1, -1]])
    scores = np.array([[0.1, 0.5, 0.5, 0.9], [-3.0, -2.0, np.nan, 8.0]], np.float32)
    got_rows, got_scores = reorder(rows, scores)
    assert got_rows.tolist() == [[4, 3, 9, 7], [6, 5, -1, -1]]
    assert got_scores.tolist() == np.array([[0.9, 0.5, 0.5, 0.1], [-2.0, -3.0, -INF, -INF]], np.float32).tolist()


def test_hits_behind_the_depth_stay_where_they_are() -> None:
    rows = np.array([[7, 3, 9, 4]])
    got, scores = reorder(rows, np.array([[0.1, 0.5, np.nan, 0.9]], np.float32), depth=2)
    assert got.tolist() == [[3, 7, 9, 4]]
    assert np.isneginf(scores[0, 2:]).all()
    assert reorder(rows, np.array([[4, 3, 2, 5]], np.float32), depth=99)[0].tolist() == [[4, 7, 3, 9]]


def test_a_hit_without_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="hit 1 of query 0"):
        reorder(np.array([[7, 3]]), np.array([[0.1, np.nan]], np.float32))


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(0, 6), st.integers(1, 8)
)
def test_it_equals_sorting_each_query(scores: list[list[int]], hits: int, depth: int) -> None:
    rows = np.tile(np.where(np.arange(6) < hits, np.arange(6), -1), (len(scores), 1))
    got, _ = reorder(rows, np.array(scores, np.float32), depth=depth)
    for row, own in zip(got.tolist(), scores, strict=True):
        read = sorted(range(min(hits, depth)), key=lambda item: (-own[item], item))
        assert row == [*read, *range(len(read), hits), *[-1] * (6 - hits)]


def test_a_tie_at_the_top_is_one_of_different_texts() -> None:
    scores = np.array([[0.9, 0.9, 0.1], [0.9, 0.9, 0.1], [0.9, 0.8, 0.8], [-INF, -INF, -INF]], np.float32)
    codes = np.array([[1, 2, 3], [4, 4, 5], [1, 2, 2], [0, 1, 2]])
    assert tied_at_the_top(scores, codes).tolist() == [True, False, False, False]


def test_a_perfect_order_is_by_grade_and_no_other_order_of_the_hits_is_better() -> None:
    judgements = Judgements.from_triples([4, 4, 4, 9], [1, 2, 3, 7], [1, 3, 2, 1])
    rows = np.array([[5, 1, 3, 8], [6, 7, -1, -1], [1, 2, -1, -1]])
    queries = np.array([4, 9, 2])
    best = perfect_order(rows, queries, judgements)
    assert best.tolist() == [[3, 1, 5, 8], [7, 6, -1, -1], [1, 2, -1, -1]]
    wide = np.pad(rows, ((0, 0), (0, 10)), constant_values=-1)
    top = per_query_metrics(perfect_order(wide, queries, judgements), queries, judgements, ks=(1, 3))
    rng = np.random.default_rng(0)
    for _ in range(20):
        other, _ = reorder(wide, rng.random(wide.shape).astype(np.float32))
        for metric, values in per_query_metrics(other, queries, judgements, ks=(1, 3)).items():
            better = top[metric] - values if metric != "bad_top1" else values - top[metric]
            assert (better[:2] >= 0).all(), metric


def test_without_labels_every_order_is_perfect() -> None:
    none = Judgements.from_triples([], [], [])
    assert perfect_order(np.array([[5, 1]]), np.array([0]), none).tolist() == [[5, 1]]
