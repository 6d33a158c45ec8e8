"""Masks of known relevance against a slow reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels.labels import NO_NEGATIVE, Labels, contains, gather_csr

QUERIES, ITEMS = 4, 7


@dataclass
class Case:
    judged: dict[tuple[int, int], int]
    groups: list[int]
    texts: list[int]
    query_rows: np.ndarray
    items: np.ndarray

    def labels(self) -> Labels:
        pairs = sorted(self.judged)
        table = pa.table(
            {
                "query_row": pa.array([query for query, _ in pairs], pa.int64()),
                "item_row": pa.array([item for _, item in pairs], pa.int64()),
                "score": pa.array([self.judged[pair] for pair in pairs], pa.int64()),
            }
        )
        items = pa.table({"row": range(ITEMS), "group_code": self.groups, "text_code": self.texts})
        return Labels.from_tables(table, items, QUERIES)

    def positives(self, query: int) -> list[int]:
        return [item for item in range(ITEMS) if self.judged.get((query, item), 0) > 0]

    def no_negatives(self, query: int) -> list[int]:
        return [item for item in range(ITEMS) if self.judged.get((query, item), 0) != 0]

    def is_positive(self, query: int, item: int) -> bool:
        groups = {self.groups[known] for known in self.no_negatives(query)} - {-1}
        return item in self.no_negatives(query) or self.groups[item] in groups

    def is_duplicate(self, query: int, item: int) -> bool:
        return self.texts[item] in {self.texts[known] for known in self.no_negatives(query)}

    def is_copy(self, query: int, item: int) -> bool:
        labelled = self.judged.get((query, item), NO_NEGATIVE) != NO_NEGATIVE
        return self.texts[item] in {self.texts[known] for known in self.positives(query)} and not labelled

    def is_judged(self, query: int, item: int) -> bool:
        return self.judged.get((query, item), 1) == 0


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pairs = st.tuples(st.integers(0, QUERIES - 1), st.integers(0, ITEMS - 1))
    judged = draw(st.dictionaries(pairs, st.integers(NO_NEGATIVE, 2), max_size=12))
    groups = draw(st.lists(st.integers(-1, 2), min_size=ITEMS, max_size=ITEMS))
    texts = draw(st.lists(st.integers(0, 4), min_size=ITEMS, max_size=ITEMS))
    query_rows = sorted(draw(st.sets(st.integers(0, QUERIES - 1), min_size=1)))
    width = draw(st.integers(0, 5))
    row = st.lists(st.integers(-1, ITEMS - 1), min_size=width, max_size=width)
    items = np.array([draw(row) for _ in query_rows], np.int64).reshape(len(query_rows), width)
    return Case(judged, groups, texts, np.array(query_rows), items)


def test_masks_worked_by_hand() -> None:
    # query 0: item 1 relevant (group 5, text 11), item 4 judged irrelevant though it is in the group of item 1
    case = Case(
        {(0, 1): 2, (0, 4): 0, (1, 0): 1},
        [-1, 5, 5, -1, 5, -1, -1],
        [10, 11, 12, 11, 14, 15, 10],
        np.array([0, 1]),
        np.array([[1, 2, 3, 4, 5, -1], [0, 1, 2, 5, 6, -1]]),
    )
    labels = case.labels()
    assert labels.positives(case.query_rows)[1].tolist() == [1, 0]
    assert labels.positive_mask(case.query_rows, case.items).astype(int).tolist() == [[1, 1, 0, 1, 0, 0], [1] + 5 * [0]]
    assert labels.duplicate_mask(case.query_rows, case.items).astype(int).tolist() == [[1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0]]
    assert labels.judged_mask(case.query_rows, case.items).astype(int).tolist() == [[0, 0, 0, 1, 0, 0], 6 * [0]]
    assert labels.known_mask(case.query_rows, np.array([1, 2, 3, 4, 6])).astype(int).tolist() == [
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
    ]


@given(cases())
def test_masks_equal_the_slow_reference(case: Case) -> None:
    labels = case.labels()
    for mask, rule in (
        (labels.positive_mask, case.is_positive),
        (labels.duplicate_mask, case.is_duplicate),
        (labels.judged_mask, case.is_judged),
        (labels.copy_mask, case.is_copy),
    ):
        got = mask(case.query_rows, case.items)
        want = [
            [item >= 0 and rule(query, item) for item in items] for query, items in zip(case.query_rows, case.items, strict=True)
        ]
        assert got.tolist() == want
    columns = np.arange(ITEMS)
    want = [
        [
            (case.is_positive(query, item) or case.is_duplicate(query, item)) and not case.is_judged(query, item)
            for item in columns
        ]
        for query in case.query_rows
    ]
    assert labels.known_mask(case.query_rows, columns).tolist() == want


@given(cases(), st.permutations(range(ITEMS)), st.lists(st.integers(-1, ITEMS - 1), min_size=QUERIES, max_size=QUERIES))
def test_known_pairs_are_where_the_mask_is_true(case: Case, columns: list[int], own: list[int]) -> None:
    for selves in (None, np.array(own)):
        labels = replace(case.labels(), self_rows=selves)
        for some in (np.array(columns), np.array(columns[:3])):
            rows, places = labels.known_pairs(case.query_rows, some)
            mask = np.zeros((len(case.query_rows), len(some)), bool)
            mask[rows, places] = True
            assert mask.tolist() == labels.known_mask(case.query_rows, some).tolist()
            assert len(rows) == mask.sum()
            assert (np.diff(rows) >= 0).all()


@given(cases())
def test_positives_and_judged_irrelevant_items_are_listed_per_query(case: Case) -> None:
    labels = case.labels()
    offsets, rows = labels.positives(case.query_rows)
    got = [rows[start:stop].tolist() for start, stop in pairwise(offsets)]
    assert got == [case.positives(query) for query in case.query_rows]
    offsets, rows = labels.judged_irrelevant(case.query_rows)
    got = [rows[start:stop].tolist() for start, stop in pairwise(offsets)]
    assert got == [[item for item in range(ITEMS) if case.is_judged(query, item)] for query in case.query_rows]


def test_a_run_without_labels_masks_nothing() -> None:
    case = Case({}, [0] * ITEMS, [0] * ITEMS, np.array([0, 3]), np.array([[0, 1], [2, -1]]))
    assert not case.labels().positive_mask(case.query_rows, case.items).any()
    assert not case.labels().known_mask(case.query_rows, np.arange(ITEMS)).any()


@given(st.lists(st.lists(st.integers(-2, 5), max_size=4), min_size=1, max_size=5), st.data())
def test_gather_and_contains_equal_plain_lists(lists: list[list[int]], data: st.DataObject) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])]).astype(np.int64)
    flat = np.array([value for values in lists for value in values], np.int64)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6)), np.int64)
    owner, index = gather_csr(offsets, rows)
    assert owner.tolist() == [n for n, row in enumerate(rows) for _ in lists[row]]
    assert flat[index].tolist() == [value for row in rows for value in lists[row]]
    wanted = np.tile(np.arange(-2, 7), (len(rows), 1))
    want = [[value >= 0 and value in lists[row] for value in range(-2, 7)] for row in rows]
    assert contains(owner, flat[index], wanted).tolist() == want


def test_a_query_that_is_an_item_is_never_trained_away_from_itself() -> None:
    labels = Labels(
        num_queries=2,
        num_items=3,
        offsets=np.array([0, 1, 2]),
        item_rows=np.array([1, 2]),
        scores=np.array([1, 0]),
        group_codes=np.full(3, -1),
        text_codes=np.arange(3),
        self_rows=np.array([0, -1]),
    )
    got = labels.known_mask(np.array([0, 1]), np.array([0, 1, 2]))
    assert got.tolist() == [[True, True, False], [False, False, False]]
