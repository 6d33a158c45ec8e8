"""Recall and the samples it is measured on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables.tables import Part
from mining.search.recall import SAMPLED_PARTS, TUNE, VERIFY, parts_of_sample, recall_of, sample_blocks, sampled_parts
from mining.search.shards import plan_blocks


def test_recall_worked_by_hand() -> None:
    exact = np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]])
    assert recall_of(exact, exact) == 1.0
    assert recall_of(np.array([[3, 1, 9], [5, -1, -1], [7, 8, 9]]), exact) == 3 / 5  # in any order; padding is no hit
    assert recall_of(np.full((3, 3), -1), exact) == 0.0
    assert recall_of(np.array([[7]]), np.array([[-1]])) == 1.0  # there was nothing to find


def test_samples_worked_by_hand() -> None:
    blocks = plan_blocks(np.arange(100, 140), 10)
    tune, verify = sample_blocks(blocks, 8)
    assert (tune.index, verify.index) == (TUNE, VERIFY)
    # 4 queries of each of 4 blocks, from its first to its last
    assert tune.query_rows.tolist() == [100, 106, 110, 116, 120, 126, 130, 136]
    assert verify.query_rows.tolist() == [103, 109, 113, 119, 123, 129, 133, 139]


@given(st.integers(1, 3000), st.integers(1, 200), st.integers(16, 300))
def test_samples_ascend_share_nothing_and_are_as_large_as_there_are_queries(queries: int, block: int, count: int) -> None:
    rows = np.arange(queries) * 3 + 7
    blocks = plan_blocks(rows, block)
    tune, verify = (sample.query_rows for sample in sample_blocks(blocks, count))
    for sample in (tune, verify):
        assert (np.diff(sample) > 0).all()
        assert np.isin(sample, rows).all()
        assert len(sample) >= 1
    if queries == 1:
        assert tune.tolist() == verify.tolist()
        return
    assert not np.intersect1d(tune, verify).size
    assert len(tune) - len(verify) in (0, 1)
    assert len(tune) <= 2 * count
    if block >= queries:  # one block gives what is asked for, or half of its queries
        assert len(tune) == min(count, -(-queries // 2))
    touched = {int(place) // block for place in (np.concatenate([tune, verify]) - 7) // 3}
    assert len(touched) <= 8


@pytest.mark.parametrize(
    ("parts", "rows", "wanted"),
    [(1, 100, 30), (3, 100, 299), (3, 100, 301), (5000, 16, 10_000), (5000, 16, 100), (300, 1, 300), (1000, 4096, 65_536)],
)
def test_a_sample_of_items_is_as_large_as_wanted_or_everything(parts: int, rows: int, wanted: int) -> None:
    table = [Part(f"part-{number}", rows, 0, number * rows) for number in range(parts)]
    table[-1] = Part("last", max(1, rows // 2), 0, (parts - 1) * rows)
    got = sampled_parts(table, wanted)
    told = parts_of_sample(parts, rows, wanted)  # without the last part's few rows
    assert len(got) == min(told, wanted) or (wanted > told * rows - rows and told < len(got) <= 2 * told)
    total = sum(part.rows for part in table)
    assert sum(count for _, count in got) == min(wanted, total)
    assert all(1 <= count <= part.rows for part, count in got)
    assert len({part.path for part, _ in got}) == len(got)
    if wanted <= SAMPLED_PARTS * rows // 2:
        assert len(got) <= SAMPLED_PARTS  # no more is read than is needed
    first, last = got[0][0], got[-1][0]
    assert first.first_row <= 0.1 * total  # from all over the corpus
    assert last.first_row + last.rows >= 0.9 * total
