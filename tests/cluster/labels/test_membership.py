"""The compiled loops against sets."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels.labels import by_owner, contains, contains_code
from cluster.labels.membership import FEW, mark_lists, mark_repeats, mark_values, sign_lists

ROOT = Path(__file__).parents[3]


def csr(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])]).astype(np.int64)
    return offsets, np.array([value for values in lists for value in values], np.int64)


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, 100])
def test_values_are_found_however_many_a_query_knows(count: int) -> None:
    rng = np.random.default_rng(count)
    known = [rng.integers(0, 150, size).tolist() for size in (count, 0, count)]
    wanted = rng.integers(-2, 150, (3, 60))
    out = np.empty(wanted.shape, bool)
    mark_values(*csr(known), wanted, out)
    want = [[bool(item >= 0) and item in values for item in line] for line, values in zip(wanted, known, strict=True)]
    assert out.tolist() == want


@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=5, max_size=5), min_size=1, max_size=4),
    st.lists(st.sampled_from([0, 1, 2, 2**62, 2**62 + 1, -7]), min_size=6, max_size=6),
)
def test_only_the_first_item_of_a_code_is_no_repeat(rows: list[list[int]], codes: list[int]) -> None:
    out = np.empty((len(rows), 5), bool)
    mark_repeats(np.array(codes), np.array(rows), out)
    for line, repeated in zip(rows, out, strict=True):
        seen = [codes[row] if row >= 0 else None for row in line]
        assert repeated.tolist() == [code is not None and code in seen[:place] for place, code in enumerate(seen)]


@pytest.mark.parametrize("width", [1, 2, 31, 1000])
def test_repeats_are_found_in_lists_of_any_length(width: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.choice(rng.integers(0, 2**62, max(2, width // 2)), 400)
    items = np.random.default_rng(1).integers(0, 400, (3, width))
    out = np.empty(items.shape, bool)
    mark_repeats(codes, items, out)
    for line, repeated in zip(codes[items], out, strict=True):
        assert repeated.sum() == width - len(set(line.tolist()))
        assert [code in line[:place] for place, code in enumerate(line)] == repeated.tolist()


@pytest.mark.parametrize("values", [5, 64, 65, 300])
def test_lists_overlap_as_sets_do_for_few_and_for_many_values(values: int) -> None:
    rng = np.random.default_rng(values)
    lists = [rng.integers(0, values, size).tolist() for size in rng.integers(0, 4, 50)]
    known = [rng.integers(0, values, size).tolist() for size in rng.integers(0, 12, 20)]
    items = rng.integers(-1, 50, (20, 30))
    offsets, codes = csr(lists)
    signs, out = np.empty(50, np.uint64), np.empty(items.shape, bool)
    sign_lists(offsets, codes, signs)
    want = [[bool(item >= 0 and set(lists[item]) & set(mine)) for item in line] for line, mine in zip(items, known, strict=True)]
    for exact in {False, values <= 64}:
        mark_lists(*csr(known), offsets, codes, signs, exact, items, out)
        assert out.tolist() == want


def test_owners_may_come_in_any_order() -> None:
    owner, values = np.array([2, 0, 2, 0]), np.array([5, 6, 7, 8])
    offsets, grouped = by_owner(owner, values, 4)
    assert [grouped[low:high].tolist() for low, high in pairwise(offsets)] == [[6, 8], [], [5, 7], []]
    assert contains(owner, values, np.array([[6], [6], [7], [7]])).tolist() == [[True], [False], [True], [False]]
    codes = np.array([5, -1, 8])
    got = contains_code(owner, values, codes, np.array([[2, 1], [2, 0], [0, -1], [0, 1]]))
    assert got.tolist() == [[True, False], [False, False], [True, False], [False, False]]


def test_what_has_no_code_is_not_among_what_has_none() -> None:
    got = contains_code(np.array([0, 0]), np.array([-1, 3]), np.array([-1, 3]), np.array([[0, 1, -1]]))
    assert got.tolist() == [[False, True, False]]


def test_labels_load_without_the_compiler() -> None:
    code = "import sys, cluster.labels.labels, mining.choice.attributes; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
