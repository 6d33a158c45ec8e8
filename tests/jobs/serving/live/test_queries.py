"""Reading a query log: any form, equal queries once, bands of traffic, labels; and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from jobs.serving.live.queries import bands, read_queries

ROWS: list[dict[str, Any]] = [
    {"query_id": "1", "user_query": "red shoe", "device": "phone"},
    {"query_id": "2", "user_query": "green bag", "device": "desktop"},
    {"query_id": "3", "user_query": " red shoe ", "device": "desktop"},
    {"query_id": "4", "user_query": "red shoe", "device": "phone"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("\n".join(mark.join(str(value) for value in row) for row in [list(rows[0]), *(r.values() for r in rows)]))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_equal_queries_are_one_with_its_traffic_in_any_form(tmp_path: Path, ending: str) -> None:
    got = read_queries(write(tmp_path / f"log.{ending}", ROWS), ["device"])
    assert [(query.text, query.count, query.slices) for query in got] == [
        ("red shoe", 3, {"device": "phone"}),
        ("green bag", 1, {"device": "desktop"}),
    ]


def test_a_folder_of_queries_and_events_is_one_log(tmp_path: Path) -> None:
    write(tmp_path / "monday.jsonl", ROWS[:2])
    write(tmp_path / "tuesday.jsonl", [*ROWS[2:], {"action_name": "click", "query_id": "1"}])
    assert [query.count for query in read_queries(tmp_path)] == [3, 1]


def test_counts_and_relevant_items_come_with_the_query(tmp_path: Path) -> None:
    rows = [{"query": "bag", "count": 7, "relevant": ["i1", "i2"]}, {"query": "bag", "count": 2, "relevant": ["i3"]}]
    (bag,) = read_queries(write(tmp_path / "log.jsonl", rows))
    assert (bag.count, bag.relevant) == (9, {"i1", "i2", "i3"})
    (bag,) = read_queries(write(tmp_path / "log.csv", [{"query": "bag", "relevant": "[i1]"}, {"query": "bag", "relevant": "i2"}]))
    assert bag.relevant == {"[i1]", "i2"}, "what is no JSON is an id"


def test_labels_name_a_query_by_its_text_or_its_id(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS)
    rows: list[dict[str, Any]] = [
        {"query_id": "3", "item_id": "i1", "score": 1},
        {"query_id": "2", "item_id": "i2", "score": 0},
        {"query": "green bag", "item_id": "i4", "score": 2},
        {"query_id": "77", "item_id": "i5", "score": 1},
    ]
    shoe, bag = read_queries(log, labels=write(tmp_path / "labels.jsonl", rows))
    assert (shoe.relevant, bag.relevant) == ({"i1"}, {"i4"})


def test_bands_hold_a_third_of_the_traffic_each_and_equals_stay_together() -> None:
    assert bands(np.array([40, 30, 20, 10])).tolist() == [0, 1, 2, 2]
    assert bands(np.array([1] * 9)).tolist() == [0] * 9
    assert bands(np.array([50, 10, 10, 10, 10, 10])).tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"question": "x"}\n', ["expected queries in a column user_query, query, text, search_term or q", "found question"]),
        ('{"query": "x"}\nnot json\n', ["line 2: expected a JSON object, found 'not json'"]),
        ('{"query": "x", "count": "many"}\n', ["line 1", "a number from 1 on, found 'many'"]),
        ('{"query": "x", "count": -3}\n', ["found -3"]),
        ("", ["found no row"]),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(DataError) as refused:
        read_queries(tmp_path / "log.jsonl")
    assert [word for word in words if word not in str(refused.value)] == []


def test_files_and_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS)
    with pytest.raises(DataError, match=r"--slice colour: expected a column of .*found device, query_id, user_query"):
        read_queries(log, ["colour"])
    with pytest.raises(DataError, match="expected a log in"):
        read_queries(tmp_path / "nothing.jsonl")
    labels = write(tmp_path / "labels.jsonl", [{"query": "another", "item_id": "i1"}])
    with pytest.raises(DataError, match="no label is of a query of the log"):
        read_queries(log, labels=labels)
    (tmp_path / "log.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is no Parquet file"):
        read_queries(tmp_path / "log.parquet")
