"""The rows of an export: by hand, and against a slow reference that follows sentence-transformers' rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from cluster.tables.tables import I64
from jobs.finished.negatives.columns import Columns, Rows

QUERIES = pa.chunked_array([["a", "b", "c", "d"]])


def items(rows: I64) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([f"t{row}" for row in rows], pa.string())])


def negatives_table(relevant: list[list[int]], chosen: list[list[int]]) -> pa.Table:
    return pa.table(
        {
            "query_row": range(len(relevant)),
            "query_id": [f"q{n}" for n in range(len(relevant))],
            "positive_rows": pa.array(relevant, pa.list_(pa.int64())),
            "positive_ids": pa.array([[f"i{row}" for row in rows] for rows in relevant], pa.list_(pa.string())),
            "positive_scores": pa.array([[row / 64 for row in rows] for rows in relevant], pa.list_(pa.float32())),
            "negative_rows": pa.array(chosen, pa.list_(pa.int64())),
            "negatives": pa.array(
                [[{"item_id": f"i{row}", "score": row / 64, "position": 0} for row in rows] for rows in chosen],
                pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float32()), ("position", pa.int64())])),
            ),
        }
    )


TABLE = negatives_table([[1, 2], [3], [4], [5]], [[11, 12], [13, 14, 15], [16], []])


def taken(rows: Rows) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = rows.texts(slice(0, len(rows)), QUERIES, items).to_pylist()
    return got


@pytest.mark.parametrize("columns", get_args(Columns))
def test_a_query_that_a_teacher_leaves_out_is_in_no_row(columns: Columns) -> None:
    told = TABLE.append_column("left_out", pa.array([True, False, False, False]))
    anchors = {row["anchor"] for row in taken(Rows(told, columns, 1))}
    assert anchors == {row["anchor"] for row in taken(Rows(TABLE, columns, 1))} - {"a"}
    assert Rows(told, columns, 1).left_out == Rows(TABLE, columns, 1).left_out + 2


def test_an_n_tuple_has_all_its_negatives_or_is_left_out() -> None:
    rows = Rows(TABLE, "n-tuple", 2)
    assert taken(rows) == [
        {"anchor": "a", "positive": "t1", "negative_1": "t11", "negative_2": "t12"},
        {"anchor": "a", "positive": "t2", "negative_1": "t11", "negative_2": "t12"},
        {"anchor": "b", "positive": "t3", "negative_1": "t13", "negative_2": "t14"},
    ]
    assert (len(rows), rows.left_out) == (3, 2)
    assert rows.ids(slice(1, 3)).to_pylist() == [
        {
            "query_id": "q0",
            "positive_id": "i2",
            "positive_score": 2 / 64,
            "negative_ids": ["i11", "i12"],
            "negative_scores": [11 / 64, 12 / 64],
        },
        {
            "query_id": "q1",
            "positive_id": "i3",
            "positive_score": 3 / 64,
            "negative_ids": ["i13", "i14"],
            "negative_scores": [13 / 64, 14 / 64],
        },
    ]


def test_triplets_are_every_relevant_item_with_every_negative() -> None:
    rows = Rows(TABLE, "triplet", 2)
    assert taken(rows) == [
        {"anchor": "a", "positive": "t1", "negative": "t11"},
        {"anchor": "a", "positive": "t1", "negative": "t12"},
        {"anchor": "a", "positive": "t2", "negative": "t11"},
        {"anchor": "a", "positive": "t2", "negative": "t12"},
        {"anchor": "b", "positive": "t3", "negative": "t13"},
        {"anchor": "b", "positive": "t3", "negative": "t14"},
        {"anchor": "c", "positive": "t4", "negative": "t16"},
    ]
    assert rows.left_out == 1
    assert rows.ids(slice(6, 7)).to_pylist() == [
        {"query_id": "q2", "positive_id": "i4", "positive_score": 4 / 64, "negative_ids": ["i16"], "negative_scores": [16 / 64]}
    ]


def test_a_labeled_list_is_the_relevant_item_and_then_what_negatives_there_are() -> None:
    rows = Rows(TABLE, "labeled-list", 2)
    assert taken(rows) == [
        {"anchor": "a", "positive": ["t1", "t11", "t12"], "labels": [1, 0, 0]},
        {"anchor": "a", "positive": ["t2", "t11", "t12"], "labels": [1, 0, 0]},
        {"anchor": "b", "positive": ["t3", "t13", "t14"], "labels": [1, 0, 0]},
        {"anchor": "c", "positive": ["t4", "t16"], "labels": [1, 0]},
    ]
    assert rows.left_out == 1


def slow(relevant: list[list[int]], chosen: list[list[int]], columns: str, num: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for query, (own, others) in enumerate(zip(relevant, chosen, strict=True)):
        for item in own:
            head = {"anchor": f"query {query}", "positive": f"t{item}"}
            some = [f"t{other}" for other in others[:num]]
            if columns == "triplet":
                found += [head | {"negative": text} for text in some]
            elif columns == "labeled-list" and some:
                found.append(head | {"positive": [f"t{item}", *some], "labels": [1] + [0] * len(some)})
            elif columns == "n-tuple" and len(some) == num:
                found.append(head | {f"negative_{n}": text for n, text in enumerate(some, start=1)})
    return found


@pytest.mark.parametrize("columns", get_args(Columns))
@pytest.mark.parametrize("num", [1, 3, 6])
def test_rows_equal_the_slow_reference_in_slices_of_any_size(columns: Columns, num: int) -> None:
    generator = np.random.default_rng(num)
    relevant = [generator.choice(99, generator.integers(0, 4), replace=False).tolist() for _ in range(40)]
    chosen = [generator.choice(99, generator.integers(0, 7), replace=False).tolist() for _ in range(40)]
    queries = pa.chunked_array([[f"query {n}" for n in range(25)], [f"query {n}" for n in range(25, 40)]])
    rows = Rows(negatives_table(relevant, chosen), columns, num)
    want = slow(relevant, chosen, columns, num)
    for size in (1, 7, 1000):
        slices = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        tables = [rows.texts(some, queries, items) for some in slices]
        assert len({table.schema for table in tables}) == 1
        assert [row for table in tables for row in table.to_pylist()] == want
        ids = pa.concat_tables([rows.ids(some) for some in slices]).to_pylist()
        assert [(f"query {row['query_id'][1:]}", row["positive_id"][1:]) for row in ids] == [
            (row["anchor"], (row["positive"] if isinstance(row["positive"], str) else row["positive"][0])[1:]) for row in want
        ]
        shown: dict[str, Callable[[dict[str, Any]], list[str]]] = {
            "triplet": lambda row: [row["negative"]],
            "labeled-list": lambda row: row["positive"][1:],
            "n-tuple": lambda row: [row[f"negative_{n + 1}"] for n in range(num)],
        }
        assert [[f"t{item[1:]}" for item in row["negative_ids"]] for row in ids] == [shown[columns](row) for row in want]
    pairs = sum(len(own) for own in relevant)
    used = len({(row["anchor"], str(row["positive"])) for row in want})
    assert rows.left_out == pairs - used
