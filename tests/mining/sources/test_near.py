"""Near-duplicates: which neighbours count, and whose they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels.labels import Labels
from cluster.storage.store import Store
from cluster.tables.tables import part_name, read_parts, write_part
from mining.sources.near import NEIGHBOURS, Near, find_near, near_of_block, near_pairs, read_near


def hits_table(hits: dict[int, list[tuple[int, float]]]) -> pa.Table:
    return pa.table(
        {
            "query_row": pa.array(hits, pa.int64()),
            "item_rows": pa.array([[row for row, _ in found] for found in hits.values()], pa.list_(pa.int64())),
            "scores": pa.array([[score for _, score in found] for found in hits.values()], pa.list_(pa.float32())),
        }
    )


def labels_of(judged: dict[tuple[int, int], int], queries: int, items: int) -> Labels:
    pairs = sorted(judged)
    table = pa.table(
        {
            "query_row": pa.array([q for q, _ in pairs], pa.int64()),
            "item_row": pa.array([i for _, i in pairs], pa.int64()),
            "score": [judged[pair] for pair in pairs],
        }
    )
    return Labels.from_tables(table, pa.table({"group_code": [-1] * items, "text_code": range(items)}), queries)


def as_dict(table: pa.Table) -> dict[int, list[int]]:
    return dict(zip(table["item_row"].to_pylist(), table["near_rows"].to_pylist(), strict=True))


def test_neighbours_at_or_above_the_threshold_are_near_but_never_the_item_itself() -> None:
    table, full = near_pairs(
        hits_table(
            {
                4: [(4, 1.0), (9, 0.99), (2, 0.98), (7, 0.97)],
                9: [(4, 0.99), (9, 0.99), (7, 0.5)],  # an equal one of a smaller row stands before the item itself
                7: [(7, 1.0), (4, 0.97)],
            }
        ),
        0.98,
    )
    assert as_dict(table) == {4: [9, 2], 9: [4]}
    assert full == 0


@pytest.mark.parametrize("itself", [True, False])
def test_an_item_all_of_whose_neighbours_are_near_is_counted(itself: bool) -> None:
    rows = [*([0] if itself else []), *range(1, NEIGHBOURS + 2)][: NEIGHBOURS + 1]
    table, full = near_pairs(hits_table({0: [(row, 1.0) for row in rows], 50: [(50, 1.0), (0, 0.995)]}), 0.98)
    assert as_dict(table) == {0: list(range(1, NEIGHBOURS + 1)), 50: [0]}, "as many near ones, whether or not it found itself"
    assert full == 1


def test_no_near_duplicate_leaves_an_empty_table_that_can_be_read() -> None:
    table, _ = near_pairs(hits_table({0: [(0, 1.0), (1, 0.3)]}), 0.9)
    near = Near.from_table(table)
    owner, rows = near_of_block(near, labels_of({(0, 0): 1}, 1, 3), np.array([0]))
    assert (len(owner), len(rows)) == (0, 0)


def test_the_near_duplicates_of_a_query_are_those_of_its_relevant_items() -> None:
    near = Near.from_table(pa.table({"item_row": [5, 2], "near_rows": [[8, 2], [7, 8]]}))
    labels = labels_of({(0, 2): 1, (0, 5): 3, (1, 5): 0, (2, 3): 1, (3, 5): 1}, 4, 10)
    owner, rows = near_of_block(near, labels, np.array([0, 1, 3]))
    # query 1 has item 5 judged irrelevant: its near-duplicates are none of its business
    assert list(zip(owner.tolist(), rows.tolist(), strict=True)) == [(0, 2), (0, 7), (0, 8), (2, 2), (2, 8)]


def slow_near(
    hits: dict[int, list[tuple[int, float]]], judged: dict[tuple[int, int], int], queries: list[int], threshold: float
) -> set[tuple[int, int]]:
    found = set()
    for place, query in enumerate(queries):
        for (owner, item), score in judged.items():
            if owner == query and score > 0:
                near = [row for row, cosine in hits.get(item, []) if row != item and np.float32(cosine) >= np.float32(threshold)]
                found |= {(place, row) for row in near[:NEIGHBOURS]}
    return found


@given(st.integers(0, 10_000), st.sampled_from([0.55, 0.8, 0.95]), st.integers(1, 4))
def test_blocks_give_what_a_loop_over_queries_does(seed: int, threshold: float, parts: int) -> None:
    generator = np.random.default_rng(seed)
    items, queries = 60, 12
    hits: dict[int, list[tuple[int, float]]] = {}
    for item in sorted(generator.choice(items, 20, replace=False).tolist()):
        rows = generator.choice(items, NEIGHBOURS + 1, replace=False).tolist()
        hits[item] = list(zip(rows, sorted(generator.uniform(0.5, 1.0, len(rows)).tolist(), reverse=True), strict=True))
    judged = {
        (int(q), int(i)): int(s)
        for q, i, s in zip(
            generator.integers(0, queries, 30), generator.integers(0, items, 30), generator.integers(0, 3, 30), strict=True
        )
    }
    tables = [near_pairs(hits_table(dict(list(hits.items())[part::parts])), threshold)[0] for part in range(parts)]
    block = sorted(generator.choice(queries, 7, replace=False).tolist())
    owner, rows = near_of_block(Near.from_table(pa.concat_tables(tables)), labels_of(judged, queries, items), np.array(block))
    got = list(zip(owner.tolist(), rows.tolist(), strict=True))
    assert got == sorted(slow_near(hits, judged, block, threshold))


@pytest.mark.cluster
def test_parts_of_hits_become_parts_of_pairs(ray_local: Any, tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    hits = [
        write_part(store, f"hits/{part_name(number)}", hits_table(found))
        for number, found in enumerate(
            [{0: [(0, 1.0), (5, 0.99)], 1: [(1, 1.0), (2, 0.2)]}, {5: [(0, 0.99), (5, 0.99)] + [(9, 0.99)] * (NEIGHBOURS - 1)}]
        )
    ]
    found = find_near(store, hits, "near", 0.9, retries=0)
    assert (found.items, found.pairs, found.full) == (2, 1 + NEIGHBOURS, 1)
    assert [part.path for part in found.parts] == ["near/part-00000.parquet", "near/part-00001.parquet"]
    assert as_dict(read_parts(store, found.parts)) == {0: [5], 5: [0] + [9] * (NEIGHBOURS - 1)}
    near = read_near(store, found.parts)
    assert near is not None
    assert near.items.tolist() == [0, 5]
    assert read_near(store, []) is None
