"""Known items of a query: relevant ones and their group mates, but for those judged irrelevant to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels.labels import NO_NEGATIVE, Labels
from cluster.storage.store import Store
from cluster.tables.tables import csr_to_lists, offsets_of, write_part
from mining.search.known import known_items, read_lists, united
from mining.search.topk import Lists


def make_labels(judged: dict[tuple[int, int], int], groups: list[int], queries: int) -> Labels:
    pairs = sorted(judged)
    offsets = np.searchsorted([query for query, _ in pairs], np.arange(queries + 1)).astype(np.int64)
    return Labels(
        num_queries=queries,
        num_items=len(groups),
        offsets=offsets,
        item_rows=np.array([item for _, item in pairs], np.int64),
        scores=np.array([judged[pair] for pair in pairs], np.int64),
        group_codes=np.array(groups, np.int64),
        text_codes=np.arange(len(groups), dtype=np.int64),
    )


def known_of(labels: Labels, rows: list[int]) -> list[list[int]]:
    lists = known_items(labels, np.array(rows, np.int64))
    assert lists.offsets[0] == 0
    return [lists.rows[start:stop].tolist() for start, stop in zip(lists.offsets[:-1], lists.offsets[1:], strict=True)]


def test_known_items_worked_by_hand() -> None:
    # items 0, 2 and 5 are one franchise, 1 and 4 another, 3 stands alone
    groups = [7, 3, 7, -1, 3, 7]
    judged = {(0, 2): 1, (0, 3): 2, (1, 4): 1, (1, 1): 0, (2, 0): 0, (4, 5): 1, (4, 0): 0, (4, 2): 3}
    labels = make_labels(judged, groups, 5)
    assert known_of(labels, [0, 1, 2, 3, 4]) == [[0, 2, 3, 5], [4], [], [], [2, 5]]
    assert known_of(labels, [4, 0]) == [[2, 5], [0, 2, 3, 5]]
    assert known_of(labels, [3]) == [[]]


def test_without_groups_the_relevant_items_are_all_that_is_known() -> None:
    labels = make_labels({(0, 1): 1, (1, 0): 1, (1, 1): 0}, [-1, -1], 2)
    assert known_of(labels, [0, 1]) == [[1], [0]]
    assert known_of(make_labels({}, [4, 4], 2), [0, 1]) == [[], []]


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.integers(1, 6), st.data())
def test_known_items_equal_a_slow_reference(groups: list[int], queries: int, data: st.DataObject) -> None:
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, len(groups) - 1))
    judged = data.draw(st.dictionaries(pair, st.integers(NO_NEGATIVE, 2), max_size=20))
    rows = data.draw(st.lists(st.integers(0, queries - 1), min_size=1, max_size=8))
    want = []
    for query in rows:
        relevant = {item for (owner, item), score in judged.items() if owner == query and score != 0}
        known = relevant | {
            item for item, group in enumerate(groups) if group >= 0 and any(groups[other] == group for other in relevant)
        }
        want.append(sorted(item for item in known if judged.get((query, item), 1) != 0))
    assert known_of(make_labels(judged, groups, queries), rows) == want


def as_lists(values: list[list[int]]) -> Lists:
    return Lists(offsets_of(np.array([len(row) for row in values])), np.array([item for row in values for item in row], np.int64))


def test_two_lists_of_each_query_become_one_in_order_without_repeats() -> None:
    both = united(as_lists([[2, 5], [], [1], []]), as_lists([[9, 2, 9], [4], [], []]))
    assert [both.rows[a:b].tolist() for a, b in zip(both.offsets, both.offsets[1:], strict=False)] == [[2, 5, 9], [4], [1], []]


def test_lists_of_some_rows_are_read_from_the_parts_that_hold_them(tmp_path: Path) -> None:
    rows = [[3, 1], [], [7, 7, 2], [5], [0, 4]]
    store, parts = Store(str(tmp_path)), []
    for first, some in ((0, rows[:2]), (2, rows[2:])):
        lists = as_lists(some)
        parts.append(
            write_part(
                store, f"part-{first}.parquet", pa.table({"met": csr_to_lists(lists.offsets, lists.rows)}), first_row=first
            )
        )
    found = read_lists(store, parts, "met", np.array([0, 2, 4]))
    assert [found.rows[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)] == [
        rows[0],
        rows[2],
        rows[4],
    ]
    assert read_lists(store, parts, "met", np.zeros(0, np.int64)).offsets.tolist() == [0]
