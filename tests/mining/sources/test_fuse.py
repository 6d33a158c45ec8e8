"""Fusing sources: worked by hand, against exact fractions, and whole blocks at once."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables.tables import I64
from mining.sources.fuse import fuse, look_up


def lists_of(*lists: list[list[int]]) -> dict[int, I64]:
    return {code: np.array(rows, np.int64) for code, rows in enumerate(lists)}


def test_two_lists_worked_by_hand() -> None:
    # shares 3 : 1. 7 weighs 3/61 + 1/62, 5 weighs 3/62 + 1/61, 9 weighs 3/63, 8 weighs 1/63
    fused = fuse(lists_of([[7, 5, 9]], [[5, 7, 8]]), {0: 0.75, 1: 0.25})
    assert fused.rows.tolist() == [[7, 5, 9, 8]]
    assert fused.source.tolist() == [[0, 1, 0, 1]]
    assert fused.position.tolist() == [[0, 0, 2, 2]]
    assert fused.source.dtype == np.uint8


def test_what_both_list_beats_what_one_lists_first() -> None:
    fused = fuse(lists_of([[1, 2, 3]], [[4, 5, 3]]), {0: 1.0, 1: 1.0})
    assert fused.rows.tolist() == [[3, 1, 4, 2, 5]]  # 2/63 > 1/61; 1 and 4, 2 and 5 tie: smaller row first
    assert fused.source.tolist() == [[0, 0, 1, 0, 1]]  # 3 is third in both: the earlier source has it


def test_only_the_proportion_of_the_shares_counts() -> None:
    generator = np.random.default_rng(0)
    lists = lists_of(*(np.argsort(generator.random((20, 60)), axis=1)[:, :30].tolist() for _ in range(3)))
    one, other = fuse(lists, {0: 0.6, 1: 0.2, 2: 0.2}), fuse(lists, {0: 0.3, 1: 0.1, 2: 0.1})
    assert one.rows.tolist() == other.rows.tolist()


def test_one_list_stays_as_it_is_and_padding_goes_last() -> None:
    fused = fuse({2: np.array([[9, 4, -1], [-1, -1, -1], [3, 2, 1]], np.int64)}, {2: 0.1})
    assert fused.rows.tolist() == [[9, 4, -1], [-1, -1, -1], [3, 2, 1]]
    assert fused.source.tolist()[2] == [2, 2, 2]
    assert fused.position.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 2]]


def test_lists_of_nothing_give_a_column_of_padding() -> None:
    fused = fuse({0: np.full((2, 3), -1, np.int64), 1: np.zeros((2, 0), np.int64)}, {0: 1.0, 1: 1.0})
    assert fused.rows.tolist() == [[-1], [-1]]


def test_the_largest_rows_and_the_heaviest_item_do_not_overflow() -> None:
    row = 2**32 - 1
    fused = fuse({code: np.array([[row, code]], np.int64) for code in range(5)}, dict.fromkeys(range(5), 1.0))
    assert fused.rows.tolist() == [[row, 0, 1, 2, 3, 4]]
    assert (fused.source[0, 0], fused.position[0, 0]) == (0, 0)


def slow_fuse(lists: list[list[int]], shares: list[Fraction]) -> list[tuple[int, int, int]]:
    """(row, source, position) from the definition, in exact arithmetic."""
    weight: dict[int, Fraction] = {}
    places: dict[int, list[tuple[int, int]]] = {}
    for source, rows in enumerate(lists):
        for position, row in enumerate(rows):
            weight[row] = weight.get(row, Fraction(0)) + shares[source] / (60 + position + 1)
            places.setdefault(row, []).append((position, source))
    order = sorted(weight, key=lambda row: (-weight[row], row))
    return [(row, min(places[row])[1], min(places[row])[0]) for row in order]


blocks = st.integers(1, 5).flatmap(
    lambda count: st.lists(
        st.lists(st.lists(st.integers(0, 15), unique=True, max_size=8), min_size=count, max_size=count), min_size=1, max_size=4
    )
)


@given(blocks, st.lists(st.sampled_from([1, 2, 3, 4]), min_size=5, max_size=5))
def test_fusing_equals_exact_fractions(queries: list[list[list[int]]], weights: list[int]) -> None:
    count = len(queries[0])
    lists = {}
    for code in range(count):
        width = max(len(query[code]) for query in queries)
        lists[code] = np.array([query[code] + [-1] * (width - len(query[code])) for query in queries], np.int64).reshape(
            len(queries), width
        )
    fused = fuse(lists, {code: weights[code] / 10 for code in range(count)})
    for query, found in enumerate(queries):
        want = slow_fuse(found, [Fraction(weight) for weight in weights])
        real = fused.rows[query] >= 0
        got = list(zip(fused.rows[query][real], fused.source[query][real], fused.position[query][real], strict=True))
        assert got == want
        assert not real[len(want) :].any()


@pytest.mark.parametrize("block", [1, 7, 40])
def test_the_block_size_changes_nothing(block: int) -> None:
    generator = np.random.default_rng(1)
    lists = {code: np.argsort(generator.random((40, 50)), axis=1)[:, :20] for code in (0, 2, 3)}
    shares = {0: 0.5, 2: 0.3, 3: 0.2}
    whole = fuse(lists, shares)
    for start in range(0, 40, block):
        part = fuse({code: rows[start : start + block] for code, rows in lists.items()}, shares)
        width = part.rows.shape[1]
        for got, want in ((part.rows, whole.rows), (part.source, whole.source), (part.position, whole.position)):
            assert np.array_equal(got, want[start : start + block, :width])
        assert (whole.rows[start : start + block, width:] == -1).all()


def test_a_block_of_four_sources_takes_less_than_searching_it() -> None:
    generator = np.random.default_rng(2)
    lists = {code: np.argsort(generator.random((4096, 200)), axis=1)[:, :100] for code in range(4)}
    shares = dict.fromkeys(range(4), 0.25)
    fuse(lists, shares)  # compiled
    started = time.process_time()
    fuse(lists, shares)
    assert time.process_time() - started < 1.0  # of all threads together; 0.1 where nothing else runs


def test_values_are_looked_up_by_row() -> None:
    rows = np.array([[30, 10, -1, 20], [-1, -1, -1, -1]], np.int64)
    scores = np.array([[0.3, 0.1, 9.0, 0.2], [9.0, 9.0, 9.0, 9.0]], np.float32)
    got = look_up(np.array([[10, 20, 30, -1, 40], [10, -1, -1, -1, -1]], np.int64), rows, scores, missing=np.nan)
    assert got[0, :3].tolist() == [np.float32(0.1), np.float32(0.2), np.float32(0.3)]
    assert np.isnan(got[0, 3:]).all()
    assert np.isnan(got[1]).all()
    whole = look_up(np.array([[20, 5]], np.int64), rows[:1], np.array([[3, 1, 9, 2]], np.int64), missing=7)
    assert whole.tolist() == [[2, 7]]
    assert whole.dtype == np.int64


def test_looking_up_equals_a_dictionary() -> None:
    generator = np.random.default_rng(3)
    rows = np.argsort(generator.random((30, 80)), axis=1)[:, :50]
    rows[generator.random(rows.shape) < 0.2] = -1
    scores = generator.random(rows.shape).astype(np.float32)
    wanted = generator.integers(-1, 80, (30, 64))
    got = look_up(wanted, rows, scores, missing=-1.0)
    for query in range(30):
        known = {row: score for row, score in zip(rows[query].tolist(), scores[query].tolist(), strict=True) if row >= 0}
        assert got[query].tolist() == [known.get(row, -1.0) for row in wanted[query].tolist()]
