"""What a teacher told mining becomes labels, queries to leave out, and scores of what is trained on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import DataError
from cluster.storage.store import Store
from cluster.tables.tables import Part, write_part
from tests.training.test_task import task_of
from training.feed.batches import BatchPlan
from training.feed.taught import Taught
from training.settings import SourceSettings
from training.task import Told, read_examples

NAN = float("nan")
LABELS: list[Any] = [
    (0, 5, 1, 1.0, "click"),
    (0, 7, 1, 1.0, "click"),
    (1, 2, 2, 0.5, None),
    (2, 3, 1, 1.0, "click"),
    (3, 1, 1, 1.0, "click"),
]
SPLITS = ["train", "train", "train", "dev"]
ROWS: list[dict[str, Any]] = [
    {
        "query_row": 0,
        "positive_rows": [5, 7],
        "positive_teacher_scores": [0.9, None],
        "negative_rows": [10, 11],
        "negative_teacher_scores": [0.3, None],
        "relabelled_rows": [8, 2],
        "relabelled_scores": [0.95, 0.85],
        "better_candidates": 2,
        "left_out": False,
    },
    {
        "query_row": 1,
        "positive_rows": [2],
        "positive_teacher_scores": [0.5],
        "negative_rows": [],
        "negative_teacher_scores": [],
        "relabelled_rows": [],
        "relabelled_scores": [],
        "better_candidates": 0,
        "left_out": False,
    },
    {
        "query_row": 2,
        "positive_rows": [3],
        "positive_teacher_scores": [0.1],
        "negative_rows": [4],
        "negative_teacher_scores": [0.2],
        "relabelled_rows": [9],
        "relabelled_scores": [0.99],
        "better_candidates": 30,
        "left_out": True,
    },
]
FLOATS, INTS = pa.list_(pa.float32()), pa.list_(pa.int64())
TYPES = {"query_row": pa.int64(), "better_candidates": pa.int64(), "left_out": pa.bool_()}


def negatives_of(store: Store, rows: list[dict[str, Any]]) -> list[Part]:
    columns = {
        name: pa.array([row[name] for row in rows], TYPES.get(name, FLOATS if "scores" in name else INTS)) for name in rows[0]
    }
    return [write_part(store, "taught/part-00000.parquet", pa.table(columns))]


def told(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Told:
    store = Store(str(folder))
    task = task_of(store, LABELS, SPLITS, negatives=[], **options)
    task.data.negatives[:] = negatives_of(store, rows)
    return read_examples(task)


def test_relabelled_items_are_examples_of_their_own_source_and_known_to_the_labels(tmp_path: Path) -> None:
    result = told(tmp_path, ROWS, label_sources={"teacher": SourceSettings(weight=0.25)})
    examples = result.examples
    names = [examples.source_names[code] for code in examples.source_codes]
    positives = [examples.positive_rows[low:high].tolist() for low, high in pairwise(examples.positive_offsets)]
    assert list(zip(examples.query_rows.tolist(), names, positives, examples.weights.tolist(), strict=True)) == [
        (0, "click", [5, 7], 1.0),
        (0, "teacher", [2, 8], 0.25),
        (1, "", [2], 0.5),
    ]
    np.testing.assert_array_equal(examples.positive_scores, np.array([0.9, NAN, 0.85, 0.95, 0.5], np.float32))
    np.testing.assert_array_equal(examples.negative_scores, np.array([0.3, NAN, 0.3, NAN], np.float32))
    labels = result.labels
    assert labels.item_rows[labels.offsets[0] : labels.offsets[1]].tolist() == [2, 5, 7, 8], "no negative of that query"
    assert result.dev.tolist() == [3]


def test_a_label_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"relabelled_rows": [7], "relabelled_scores": [0.99]}]
    examples = told(tmp_path, rows).examples
    assert examples.source_names == ("", "click")
    assert examples.positive_rows.tolist()[:2] == [5, 7]


def test_a_teacher_that_leaves_out_every_query_is_told(tmp_path: Path) -> None:
    rows = [row | {"left_out": True} for row in ROWS]
    with pytest.raises(DataError, match="weak_positive leaves out all 3 training queries"):
        told(tmp_path, rows)


def test_without_a_teacher_nothing_changes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    examples = read_examples(task_of(store, LABELS, SPLITS, negatives=[(0, [10, 11])])).examples
    assert examples.source_names == ("", "click")
    assert (examples.positive_scores, examples.negative_scores) == (None, None)


def test_a_batch_has_the_score_of_every_pair_it_asks_about(tmp_path: Path) -> None:
    """Whatever the turn, the order and the ranks: each score is looked up by its query and item."""
    rng = np.random.default_rng(2)
    rows, known = [], {}
    for query in range(3):
        negatives = rng.permutation(np.arange(4, 12))[: 3 + query].tolist()
        scores = [None if rng.random() < 0.3 else float(np.float32(rng.random())) for _ in negatives]
        positives = {0: [5, 7], 1: [2], 2: [3]}[query]
        told_of = [float(np.float32(rng.random())) for _ in positives]
        known |= {(query, item): score for item, score in zip([*positives, *negatives], [*told_of, *scores], strict=True)}
        rows.append(
            ROWS[0]
            | {"query_row": query, "positive_rows": positives, "positive_teacher_scores": told_of}
            | {"negative_rows": negatives, "negative_teacher_scores": scores, "relabelled_rows": [], "relabelled_scores": []}
        )
    examples = told(tmp_path, rows).examples
    for world in (1, 3):
        for epoch in range(4):
            batch = BatchPlan(examples, 12, 3 // world, 2, 1, 5, 0, world).joined(epoch, 0)
            assert batch.teacher_BL is not None
            for b, query in enumerate(batch.query_rows.tolist()):
                items = [int(batch.positive_rows[b]), *batch.hard_BH[b].tolist()]
                want = [NAN if item < 0 or known[query, item] is None else known[query, item] for item in items]
                np.testing.assert_array_equal(batch.teacher_BL[b], np.array(want, np.float32))
            part = batch.rows(slice(1, 3))
            np.testing.assert_array_equal(part.teacher_BL, batch.teacher_BL[1:3])


def test_a_new_relevant_item_has_the_lowest_grade_of_relevant_ones() -> None:
    labels = pa.table({"query_row": [0, 0, 1], "item_row": [5, 6, 2], "score": [1.0, 0.0, 1.0], "gain": [4.0, 2.0, 3.0]})
    one, some = np.array([0]), np.array([8])
    taught = Taught(one, some, np.array([0.9], np.float32), np.array([True]), np.zeros(0, np.int64))
    assert taught.joined_with(labels).to_pylist()[2] == {"query_row": 0, "item_row": 8, "score": 1.0, "gain": 3.0}
