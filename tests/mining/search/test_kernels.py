"""Compiled loops against plain Python: exact scores, order, and the running best of tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.tables.tables import F32, I64
from mining.search.kernels import CHUNK, RunningTop, drop_listed, score_list, score_needed, score_pairs, sort_hits

INT_EXTREMES = [0, 1, -1, 2**31 - 1, -(2**31) + 1, 5, 5, 5]
FLOAT_EXTREMES = [0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-45, -1e-45, np.inf, 0.5, 0.5]


def unit(count: int, dimension: int, seed: int) -> F32:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exact_scores(queries_QD: F32, items_ND: F32) -> F32:
    """[Q, N] in float64, rounded once."""
    return (queries_QD.astype(np.float64)[:, None] * items_ND.astype(np.float64)[None]).sum(-1).astype(np.float32)


def running_top(offers: list[tuple[npt.NDArray[Any], I64, I64]], queries: int, keep: int, dtype: type[Any]) -> Any:
    top = RunningTop(queries, keep, dtype)
    for tile, owners, rows in offers:
        top.offer(tile, owners, rows)
    return top.best()


def check_top(offers: list[tuple[npt.NDArray[Any], I64, I64]], queries: int, keep: int, dtype: type[Any]) -> None:
    """What was kept scores as the best of all that was offered, and each row kept was offered with that score."""
    scores, rows = running_top(offers, queries, keep, dtype)
    assert (scores.dtype, rows.dtype) == (np.dtype(dtype), np.int64)
    for query in range(queries):
        offered = {
            int(row): tile[line, column]
            for tile, owners, names in offers
            for line in np.flatnonzero(owners == query)
            for column, row in enumerate(names)
        }
        want = sorted(offered.values(), reverse=True)[:keep]
        real = rows[query] >= 0
        assert real.tolist() == [True] * len(want) + [False] * (keep - len(want))
        assert scores[query, : len(want)].tolist() == want
        assert len(set(rows[query, real].tolist())) == len(want)
        assert [offered[row] for row in rows[query, real].tolist()] == want


def test_the_running_best_worked_by_hand() -> None:
    top = RunningTop(3, 2, np.int32)
    top.offer(np.array([[5, -7, 9], [-3, -1, -2]], np.int32), np.array([2, 0]), np.array([10, 11, 12]))
    top.offer(np.array([[6]], np.int32), np.array([2]), np.array([4]))
    scores, rows = top.best()
    assert rows.tolist() == [[11, 12], [-1, -1], [12, 4]]
    assert scores[[0, 2]].tolist() == [[-1, -2], [9, 6]]
    assert (scores[1] == np.iinfo(np.int32).min).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize(
    ("queries", "keep", "widths"),
    [(3, 1, (1,)), (4, 7, (1, 3, 65, 64, 63, 127, 129)), (2, 300, (50, 49)), (5, 40, (2049, 1, 200)), (1, 64, (64, 64, 64, 64))],
)
def test_the_running_best_equals_a_sort_for_tiles_of_any_width_with_owners_in_any_order(
    dtype: type[Any], queries: int, keep: int, widths: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(keep)
    offers, start = [], 0
    for width in widths:
        owners = generator.permutation(queries)[: int(generator.integers(1, queries + 1))].astype(np.int64)
        tile = generator.integers(-50, 50, (len(owners), width)).astype(dtype)  # many are equal
        offers.append((tile, owners, np.arange(start, start + width)))
        start += width
    check_top(offers, queries, keep, dtype)


@settings(max_examples=60)
@given(st.data(), st.sampled_from([np.int32, np.float32]), st.integers(1, 12), st.lists(st.integers(1, 3 * CHUNK), max_size=5))
def test_the_running_best_of_extreme_values_equals_a_sort(
    data: st.DataObject, dtype: type[Any], keep: int, widths: list[int]
) -> None:
    values = np.array(INT_EXTREMES if dtype is np.int32 else FLOAT_EXTREMES, dtype)
    generator = np.random.default_rng(data.draw(st.integers(0, 999)))
    offers, start = [], 2**32 - 1 - sum(widths)  # rows up to the largest that fit beside a score
    for width in widths:
        offers.append((generator.choice(values, (2, width)), np.array([1, 0]), np.arange(start, start + width)))
        start += width
    check_top(offers, 2, keep, dtype)


def test_nothing_offered_leaves_padding_only() -> None:
    scores, rows = running_top([], 2, 3, np.float32)
    assert scores.shape == (2, 3)
    assert (rows == -1).all()


def slow_sort(scores_QK: F32, rows_QK: I64, num_hits: int) -> list[list[tuple[float, int]]]:
    """Real hits by (-score, row); -0.0 counts as 0.0."""
    lines = []
    for scores, rows in zip(scores_QK, rows_QK, strict=True):
        real = np.flatnonzero(rows >= 0)
        order = real[np.lexsort((rows[real], -(scores[real] + np.float32(0.0))))]
        lines.append([(float(scores[place]), int(rows[place])) for place in order[:num_hits]])
    return lines


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 999))
def test_sorted_hits_equal_lexsort_with_signed_zeros_infinities_and_padding(width: int, num_hits: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.choice(np.array([*FLOAT_EXTREMES, -np.inf], np.float32), (4, width))
    rows = np.array([generator.permutation(np.r_[np.arange(width), 2**32 - 1 - np.arange(width)])[:width] for _ in range(4)])
    rows[generator.random(rows.shape) < 0.3] = -1
    got_scores, got_rows = sort_hits(scores, rows, num_hits)
    assert got_scores.shape == got_rows.shape == (4, min(num_hits, width))
    for query, want in enumerate(slow_sort(scores, rows, num_hits)):
        assert got_rows[query].tolist() == [row for _, row in want] + [-1] * (got_rows.shape[1] - len(want))
        assert got_scores[query, : len(want)].tolist() == [score for score, _ in want]
        assert np.isneginf(got_scores[query, len(want) :]).all()


def test_a_negative_zero_neither_comes_after_a_zero_nor_stays_negative() -> None:
    scores, rows = sort_hits(np.array([[0.0, -0.0]], np.float32), np.array([[5, 3]]), 2)
    assert rows.tolist() == [[3, 5]]
    assert not np.signbit(scores).any()


@settings(max_examples=40)
@given(st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 99))
def test_listed_items_are_dropped_from_their_own_query_only(lists: list[set[int]], width: int, seed: int) -> None:
    index = np.random.default_rng(seed).integers(-1, 21, (len(lists), width))
    want = [[-1 if item in known else item for item in line] for line, known in zip(index.tolist(), lists, strict=True)]
    offsets = np.cumsum([0, *(len(known) for known in lists)])
    rows = np.array([item for known in lists for item in sorted(known)], np.int64)
    drop_listed(index, offsets, rows)
    assert index.tolist() == want


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7, 8, 16, 31, 64, 100, 385])
def test_a_pair_scores_the_same_bits_in_every_loop(dimension: int) -> None:
    queries, items = unit(30, dimension, 1), unit(40, dimension, 2)
    index = np.random.default_rng(3).integers(-1, 40, (30, 25))
    pairs = np.empty(index.shape, np.float32)
    score_pairs(queries, items, index, pairs)
    flat = np.full(index.size, -np.inf, np.float32)
    score_list(queries, items, np.repeat(np.arange(30), 25), index.ravel(), flat)
    needed, kept = np.empty_like(pairs), index.copy()
    score_needed(queries, items, np.zeros_like(pairs), np.full(30, 9.0, np.float32), 5, kept, needed)
    assert pairs.tobytes() == flat.tobytes() == needed.tobytes()
    assert np.array_equal(kept, index)
    want = np.where(index >= 0, np.take_along_axis(exact_scores(queries, items), np.maximum(index, 0), 1), -np.inf)
    assert np.allclose(pairs, want, rtol=0, atol=6e-8)


def test_a_list_of_pairs_keeps_what_it_holds_where_the_row_is_negative() -> None:
    queries, items = np.array([[1, 0], [0, 2]], np.float32), np.array([[3, 4], [5, 6]], np.float32)
    scores = np.array([-np.inf, 7.5, -1, -1], np.float32)
    score_list(queries, items, np.array([0, 0, 1, 1]), np.array([1, -1, 0, 1]), scores)
    assert scores.tolist() == [5.0, 7.5, 8.0, 12.0]


def test_scoring_what_is_needed_worked_by_hand() -> None:
    queries, items = np.array([[1.0]], np.float32), np.array([[0.5], [0.25], [0.75], [0.125]], np.float32)
    index, scores = np.array([[0, -1, 2, 1, 3]]), np.empty((1, 5), np.float32)
    # the first two real ones score 0.5 and 0.75: what is proposed below 0.5 - 0.25 is not read
    proposed = np.array([[0.7, 0.65, 0.6, 0.25, 0.2]], np.float32)
    score_needed(queries, items, proposed, np.array([0.25], np.float32), 2, index, scores)
    assert index.tolist() == [[0, -1, 2, 1, -1]]
    assert scores.tolist() == [[0.5, -np.inf, 0.75, 0.25, -np.inf]]


@settings(max_examples=80)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0.0, 1.5), st.integers(0, 999))
def test_scoring_what_is_needed_never_loses_one_of_the_k_best(items: int, num_hits: int, error: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries_QD, items_ND = unit(6, 3, seed), unit(items, 3, seed + 1)
    items_ND[generator.random(items) < 0.4] = items_ND[0]  # ties
    exact = exact_scores(queries_QD, items_ND)
    error_Q = np.float32(error) * generator.random(6).astype(np.float32)
    rough = exact + generator.choice([-1.0, 1.0], exact.shape).astype(np.float32) * error_Q[:, None] * np.float32(0.999)
    index = np.argsort(-rough, axis=1, kind="stable")
    proposed = np.ascontiguousarray(np.take_along_axis(rough, index, 1))
    index[generator.random(index.shape) < 0.2] = -1  # known items
    eligible, scores = index.copy(), np.empty(index.shape, np.float32)
    score_needed(queries_QD, items_ND, proposed, error_Q + np.float32(1e-6), num_hits, index, scores)
    got, want = (
        sort_hits(scores, index, num_hits),
        [
            sorted((row for row in line if row >= 0), key=lambda row: (-exact[query, row], row))[:num_hits]
            for query, line in enumerate(eligible.tolist())
        ],
    )
    assert [[row for row in line if row >= 0] for line in got[1].tolist()] == want
