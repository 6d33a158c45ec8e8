"""Tables in storage become training examples: one for each query and source of its relevant labels."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import DataError
from cluster.storage.store import Store
from cluster.tables.tables import Part, vectors_to_column, write_part
from training.engine.schedule import Schedule
from training.settings import SourceSettings, TrainingSettings
from training.task import TrainData, TrainTask, read_examples

NUM_ITEMS, NUM_QUERIES = 12, 8
Row = tuple[int, int, int, float, str | None]


def task_of(
    store: Store,
    labels: list[Row],
    splits: list[str],
    *,
    negatives: list[tuple[int, list[int]]] | None = None,
    source_type: pa.DataType | None = None,
    **options: Any,
) -> TrainTask:
    """A task whose tables are written to `store`."""

    def write(name: str, columns: dict[str, Any]) -> list[Part]:
        return [write_part(store, f"{name}/part-00000.parquet", pa.table(columns))]

    labels = sorted(labels, key=lambda row: row[:2])
    columns: list[Any] = [list(column) for column in zip(*labels, strict=True)] or [[]] * 5
    items, queries = np.arange(NUM_ITEMS), np.arange(len(splits))
    mined = (
        []
        if negatives is None
        else write(
            "negatives",
            {
                "query_row": pa.array([query for query, _ in negatives], pa.int64()),
                "negative_rows": pa.array([rows for _, rows in negatives], pa.list_(pa.int64())),
            },
        )
    )
    return TrainTask(
        store=store,
        folder="out",
        kind="vectors",
        model={},
        model_prefix="",
        settings=TrainingSettings(**options),
        schedule=Schedule(1),
        data=TrainData(
            codes=write("codes", {"row": items, "group_code": np.full(NUM_ITEMS, -1), "text_code": items}),
            queries=write("queries", {"row": queries, "split": splits, "item_row": np.full(len(splits), -1)}),
            item_features=write("items", {"vector": vectors_to_column(np.eye(NUM_ITEMS, dtype=np.float32))}),
            query_features=write("asked", {"vector": vectors_to_column(np.eye(len(splits), NUM_ITEMS, dtype=np.float32))}),
            labels=write(
                "labels",
                {
                    "query_row": pa.array(columns[0], pa.int64()),
                    "item_row": pa.array(columns[1], pa.int64()),
                    "score": pa.array(columns[2], pa.int64()),
                    "weight": pa.array(columns[3], pa.float64()),
                    "source": pa.array(columns[4], source_type or pa.string()),
                },
            ),
            negatives=mined,
        ),
    )


def lists(offsets: Any, rows: Any) -> list[list[int]]:
    return [rows[low:high].tolist() for low, high in pairwise(offsets)]


def test_a_query_with_labels_from_two_sources_is_two_examples(tmp_path: Path) -> None:
    labels: list[Row] = [
        (0, 5, 1, 2.0, "synthetic"),
        (0, 3, 1, 0.5, "click"),
        (0, 7, 2, 1.0, "click"),
        (0, 9, 0, 9.0, "click"),
        (1, 2, 1, 4.0, None),
        (1, 4, 1, 2.0, ""),
        (2, 1, 1, 1.0, "unused"),
        (3, 0, 0, 1.0, "click"),
    ]
    task = task_of(
        Store(str(tmp_path)),
        labels,
        ["train", "train", "dev", "train"],
        negatives=[(1, [6, 8]), (0, [11, 10, 9])],
        label_sources={"synthetic": SourceSettings(weight=0.25), "": SourceSettings(weight=2.0)},
    )
    told = read_examples(task)
    examples = told.examples
    assert examples.source_names == ("", "click", "synthetic")
    assert examples.query_rows.tolist() == [0, 0, 1]
    assert examples.source_codes.tolist() == [1, 2, 0]
    assert lists(examples.positive_offsets, examples.positive_rows) == [[3, 7], [5], [2, 4]]
    assert lists(examples.negative_offsets, examples.negative_rows) == [[11, 10, 9], [11, 10, 9], [6, 8]]
    assert examples.weights.tolist() == [0.75, 0.5, 6.0]
    assert examples.weights.dtype == np.float32
    assert (told.dev.tolist(), told.near_misses.tolist(), told.labels.num_queries) == ([2], [], 4)


def test_labels_that_name_no_source_at_all_are_one_unnamed_source(tmp_path: Path) -> None:
    task = task_of(Store(str(tmp_path)), [(0, 5, 1, 1.0, None), (1, 3, 1, 1.0, None)], ["train", "train"], source_type=pa.null())
    examples = read_examples(task).examples
    assert examples.source_names == ("",)
    assert examples.source_codes.tolist() == [0, 0]


def test_without_a_relevant_training_label_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    task = task_of(Store(str(tmp_path)), [(0, 5, 1, 1.0, "click"), (1, 3, 0, 1.0, "click")], ["dev", "train"])
    with pytest.raises(DataError, match=r"no training query has a relevant item.*`split` and `score`"):
        read_examples(task)


def slow_examples(labels: list[Row], splits: list[str], factor: dict[str, float]) -> list[tuple[int, str, list[int], float]]:
    """(query, source, positives, weight), from the meaning of the words."""
    result = []
    for query in range(len(splits)):
        for source in sorted({row[4] or "" for row in labels if row[0] == query and row[2] > 0}):
            own = [row for row in labels if row[0] == query and row[2] > 0 and (row[4] or "") == source]
            if splits[query] == "train":
                weight = sum(row[3] for row in own) / len(own) * factor.get(source, 1.0)
                result.append((query, source, sorted(row[1] for row in own), float(np.float32(weight))))
    return result


PAIRS = st.lists(
    st.tuples(
        st.integers(0, NUM_QUERIES - 1),
        st.integers(0, NUM_ITEMS - 1),
        st.integers(0, 2),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        st.sampled_from([None, "", "click", "cart", "synthetic"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda row: row[:2],
)
MINED = st.none() | st.lists(
    st.tuples(st.integers(0, NUM_QUERIES - 1), st.lists(st.integers(0, NUM_ITEMS - 1), max_size=5)),
    max_size=NUM_QUERIES,
    unique_by=lambda row: row[0],
)


@settings(max_examples=40)
@given(PAIRS, st.lists(st.sampled_from(["train", "dev", "none"]), min_size=NUM_QUERIES, max_size=NUM_QUERIES), MINED)
def test_examples_equal_a_slow_reference(
    tmp_path_factory: pytest.TempPathFactory, labels: list[Row], splits: list[str], mined: list[tuple[int, list[int]]] | None
) -> None:
    store, factor = Store(str(tmp_path_factory.mktemp("task"))), {"cart": 0.5, "": 3.0}
    want = slow_examples(labels, splits, factor)
    task = task_of(
        store,
        labels,
        splits,
        negatives=mined,
        label_sources={name: SourceSettings(weight=weight) for name, weight in factor.items()},
    )
    if not want:
        with pytest.raises(DataError, match="no training query"):
            read_examples(task)
        return
    examples = read_examples(task).examples
    names = [examples.source_names[code] for code in examples.source_codes]
    positives = lists(examples.positive_offsets, examples.positive_rows)
    got = list(zip(examples.query_rows.tolist(), names, positives, examples.weights.tolist(), strict=True))
    assert got == want
    negatives = dict(mined or [])
    assert lists(examples.negative_offsets, examples.negative_rows) == [negatives.get(query, []) for query, *_ in want]
