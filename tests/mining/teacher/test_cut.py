"""Which pairs a teacher reads, and how its scores come back to the candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels.labels import Labels
from mining.candidates import Candidates
from mining.settings import MiningSettings, TeacherSettings
from mining.teacher.cut import MOST_POSITIVES, Pairs, attach, count_ties, depth_of, pairs_to_read

NAN = float("nan")


def settings_of(**options: Any) -> MiningSettings:
    return MiningSettings(
        **({"num_hits": 100, "num_negatives": 4, "margin_reference": "lowest", "teacher": TeacherSettings(model="m")} | options)
    )


def candidates(query_rows: list[int], rows: Any, self_rows: Any = None) -> Candidates:
    rows_QK = np.array(rows, np.int64).reshape(len(query_rows), -1)
    count, zeros = len(query_rows), np.zeros(len(query_rows), np.float32)
    return Candidates(
        query_rows=np.array(query_rows),
        rows=rows_QK,
        scores=np.zeros(rows_QK.shape, np.float32),
        lowest_positive=zeros,
        mean_positive=zeros,
        highest_positive=zeros,
        self_rows=np.array([-1] * count if self_rows is None else self_rows),
        excluded=np.zeros(count, np.int64),
        source=np.zeros(rows_QK.shape, np.uint8),
        position=np.zeros_like(rows_QK),
    )


def labels_of(judged: dict[tuple[int, int], int], queries: int, items: int) -> Labels:
    pairs = sorted(judged)
    table = pa.table(
        {
            "query_row": pa.array([q for q, _ in pairs], pa.int64()),
            "item_row": pa.array([i for _, i in pairs], pa.int64()),
            "score": pa.array([judged[pair] for pair in pairs], pa.int64()),
        }
    )
    return Labels.from_tables(table, pa.table({"group_code": [-1] * items, "text_code": range(items)}), queries)


def as_list(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.query_rows.tolist(), pairs.item_rows.tolist(), strict=True))


def scored(values: dict[tuple[int, int], float]) -> Pairs:
    queries, items = np.array(list(values), np.int64).reshape(-1, 2).T
    return Pairs.ordered(queries, items, np.array(list(values.values()), np.float32))


# which pairs


def test_a_teacher_reads_the_first_survivors_and_the_relevant_items() -> None:
    found = candidates([3, 5], [[9, 4, 8, 7], [1, 2, 0, -1]])
    alive = np.array([[True, False, True, True], [True, True, True, False]])
    labels = labels_of({(3, 6): 1, (3, 8): 0, (5, 3): 2, (5, 7): 1, (4, 1): 1}, 6, 10)
    # 8 is judged irrelevant for query 3: no teacher is asked, and the next survivor takes its place
    assert as_list(pairs_to_read(found, alive, labels, 2)) == [(3, 6), (3, 7), (3, 9), (5, 1), (5, 2), (5, 3), (5, 7)]


def test_a_query_that_is_an_item_is_not_compared_with_itself() -> None:
    found = candidates([0], [[1]], self_rows=[2])
    labels = labels_of({(0, 2): 1, (0, 3): 1}, 1, 4)
    assert as_list(pairs_to_read(found, np.array([[True]]), labels, 5)) == [(0, 1), (0, 3)]
    attached = attach(found, scored({(0, 1): 0.1, (0, 2): 1.0, (0, 3): 0.4}), labels, settings_of(margin_reference="highest"))
    assert attached.teacher_positive is not None
    assert attached.teacher_positive.tolist() == [np.float32(0.4)]


def test_of_many_relevant_items_those_of_the_smallest_rows_are_read() -> None:
    labels = labels_of({(0, item): 1 for item in range(30, 10, -1)}, 1, 40)
    pairs = pairs_to_read(candidates([0], [[-1]]), np.array([[False]]), labels, 5)
    assert as_list(pairs) == [(0, item) for item in range(11, 11 + MOST_POSITIVES)]


def test_without_a_depth_twice_the_negatives_are_read() -> None:
    assert depth_of(settings_of()) == 8
    assert depth_of(MiningSettings(num_negatives=2, teacher=TeacherSettings(model="m", depth=3))) == 3


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_pairs_to_read_do_not_depend_on_the_block(seed: int, depth: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    queries, items, width = 7, 25, 9
    rows = np.stack([generator.permutation(items)[:width] for _ in range(queries)])
    rows[generator.random(rows.shape) < 0.1] = -1
    alive = (generator.random(rows.shape) < 0.6) & (rows >= 0)
    judged = {
        (int(q), int(i)): int(s)
        for q, i, s in zip(
            generator.integers(0, queries, 40), generator.integers(0, items, 40), generator.integers(0, 3, 40), strict=True
        )
    }
    labels = labels_of(judged, queries, items)
    got = [
        pair
        for start in range(0, queries, size)
        for pair in as_list(
            pairs_to_read(
                candidates(list(range(queries))[start : start + size], rows[start : start + size]),
                alive[start : start + size],
                labels,
                depth,
            )
        )
    ]
    want = set()
    for query in range(queries):
        open_rows = [
            int(row)
            for row, living in zip(rows[query], alive[query], strict=True)
            if living and judged.get((query, int(row))) != 0
        ]
        relevant = sorted(item for (owner, item), score in judged.items() if owner == query and score > 0)
        want |= {(query, item) for item in [*open_rows[:depth], *relevant[:MOST_POSITIVES]]}
    assert got == sorted(want)


# scores come back


def test_scores_are_put_beside_their_candidates() -> None:
    found = candidates([2, 4], [[5, 6, -1], [6, 7, 5]])
    labels = labels_of({(2, 8): 1, (2, 9): 1}, 5, 10)
    teacher = scored({(2, 5): 0.5, (2, 8): 0.9, (2, 9): 0.7, (4, 5): 0.1, (4, 6): -0.2, (1, 6): 3.0})
    attached = attach(found, teacher, labels, settings_of())
    np.testing.assert_array_equal(attached.teacher, np.array([[0.5, NAN, NAN], [-0.2, NAN, 0.1]], np.float32))
    np.testing.assert_array_equal(attached.teacher_positive, np.array([0.7, NAN], np.float32))
    assert attached.rows is found.rows


@pytest.mark.parametrize(("reference", "want"), [("lowest", 0.25), ("mean", 0.5), ("highest", 0.75)])
def test_which_relevant_item_counts(reference: str, want: float) -> None:
    labels = labels_of({(0, 1): 1, (0, 2): 3, (0, 3): 1, (0, 4): 0}, 1, 6)
    teacher = scored({(0, 1): 0.25, (0, 2): 0.75, (0, 4): 9.0})  # 3 is relevant, but was not read
    attached = attach(candidates([0], [[5]]), teacher, labels, settings_of(margin_reference=reference))
    assert attached.teacher_positive is not None
    assert attached.teacher_positive.tolist() == [want]


def test_a_teacher_that_has_read_nothing_leaves_everything_unread() -> None:
    empty = Pairs.ordered(np.empty(0, np.int64), np.empty(0, np.int64))
    attached = attach(candidates([0], [[5, -1]]), empty, labels_of({(0, 1): 1}, 1, 6), settings_of())
    assert np.isnan(attached.teacher).all()
    assert np.isnan(attached.teacher_positive).all()


# tables


@given(
    st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 9)), st.floats(-1, 1, width=32)),
    st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 9)), st.floats(-1, 1, width=32)),
)
def test_pairs_behave_like_dictionaries(first: dict[tuple[int, int], float], second: dict[tuple[int, int], float]) -> None:
    one, two = scored(first), scored(second)
    assert as_list(one) == sorted(first)
    assert as_list(one.without(two)) == sorted(set(first) - set(second))
    joined = one.joined(two)
    assert dict(zip(as_list(joined), joined.scores.tolist(), strict=True)) == second | first
    assert as_list(joined.of(np.array([2, 3]))) == sorted(pair for pair in {**first, **second} if pair[0] in (2, 3))


@given(st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 9)), st.floats(-1, 1, width=32)))
def test_pairs_come_back_from_their_table(values: dict[tuple[int, int], float]) -> None:
    pairs, rows = scored(values), np.arange(7)
    table = pairs.to_table(rows, scored=True)
    assert table.num_rows == 7, "a query without pairs has a row as well"
    again = Pairs.from_table(table)
    assert as_list(again) == as_list(pairs)
    assert again.scores.tolist() == pairs.scores.tolist()
    unscored = Pairs.from_table(pairs.to_table(rows, scored=False))
    assert as_list(unscored) == as_list(pairs)
    assert np.isnan(unscored.scores).all()


def test_cosines_of_a_search_are_scores_too() -> None:
    table = pa.table(
        {"query_row": [4, 6], "also_rows": [[3, 1], []], "also_scores": pa.array([[0.5, 0.25], []], pa.list_(pa.float32()))}
    )
    pairs = Pairs.from_table(table)
    assert as_list(pairs) == [(4, 1), (4, 3)]
    assert pairs.scores.tolist() == [0.25, 0.5]


# scores that are all the same


@pytest.mark.parametrize(
    ("scores", "positive", "want"),
    [
        ([0.9, 0.8, 0.7], 0.95, (3, 0)),
        ([0.9, 0.8, 0.7], 0.9, (3, 1)),
        ([1.0, 1.0, 0.7], 0.95, (3, 2)),
        ([1.0, 1.0, 0.7], 1.0, (3, 2)),
        ([0.9, 0.8, 0.8], NAN, (3, 0)),
        ([0.9, 0.9, NAN], NAN, (2, 2)),
        ([NAN, NAN, NAN], NAN, (0, 0)),
        ([0.5, 0.5, NAN], 0.9, (2, 0)),
    ],
)
def test_candidates_that_share_the_highest_score_are_counted(scores: list[float], positive: float, want: tuple[int, int]) -> None:
    found = candidates([0, 4], [[1, 2, 3], [1, 2, 3]])
    read = np.array([scores, [0.3, 0.2, 0.1]], np.float32)
    one = replace(found, teacher=read, teacher_positive=np.array([positive, 0.9], np.float32))
    assert count_ties(one) == (want[0] + 3, want[1])
    assert count_ties(found) == (0, 0), "no teacher"
