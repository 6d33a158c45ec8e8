"""What a teacher told mining, as training reads it from the negatives: relevant items, queries to leave out, scores.

Columns: `cluster.tables.tables`. A run without a teacher has none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, lists_to_csr, read_parts, read_schema

SOURCE = "teacher"
"""Source of labels that a teacher gave; training.label_sources may weigh and cap them."""
COLUMNS = ("positive_rows", "positive_teacher_scores", "relabelled_rows", "relabelled_scores", "left_out")


@dataclass(frozen=True)
class Taught:
    """What the teacher said of the labels."""

    query_rows: I64
    """[P] of relevant items with a score, known and new ones."""
    item_rows: I64
    """[P]"""
    scores: F32
    """[P]"""
    new: npt.NDArray[np.bool_]
    """[P] the teacher alone finds it relevant."""
    left_out: I64
    """Rows of queries that are not trained on."""

    def joined_with(self, labels: pa.Table) -> pa.Table:
        """The labels and the new relevant items, by query row, then item row; what is labelled stays as it is.

        The grade of a new one is the lowest of the relevant items: the teacher says that it is relevant, not how much.
        """
        values: dict[str, Any] = {"score": 1.0, "gain": 1.0, "weight": 1.0, "source": SOURCE}
        if "gain" in labels.column_names:
            grades = labels["gain"].to_numpy()[labels["score"].to_numpy() > 0]
            values["gain"] = float(grades.min()) if len(grades) else 1.0
        count = int(self.new.sum())
        rows = {"query_row": pa.array(self.query_rows[self.new]), "item_row": pa.array(self.item_rows[self.new])}
        columns = [rows[name] if name in rows else pa.array([values[name]] * count) for name in labels.column_names]
        added = pa.table(dict(zip(labels.column_names, columns, strict=True))).cast(labels.schema)
        both = pa.concat_tables([labels, added])
        queries, items = both["query_row"].to_numpy(), both["item_row"].to_numpy()
        order = np.lexsort((items, queries))  # stable: of equal pairs the label comes first
        queries, items = queries[order], items[order]
        first = np.diff(queries, prepend=-1).astype(bool) | np.diff(items, prepend=-1).astype(bool)
        return both.take(pa.array(order[first]))

    def scores_of(self, query_rows: I64, item_rows: I64) -> F32:
        """The teacher's score of each pair; NaN: it has not read it."""
        width = np.int64(max(self.item_rows.max(initial=0), item_rows.max(initial=0)) + 1)
        keys, asked = self.query_rows * width + self.item_rows, query_rows * width + item_rows
        order = np.argsort(keys, kind="stable")
        place = np.minimum(np.searchsorted(keys[order], asked), max(0, len(keys) - 1))
        if not len(keys):
            return np.full(len(asked), np.nan, np.float32)
        nearest = order[place]
        return np.where(keys[nearest] == asked, self.scores[nearest], np.float32(np.nan)).astype(np.float32)


def read_taught(store: Store, negatives: Sequence[Part]) -> Taught | None:
    """What the teacher of these negatives said; None: there was none."""
    if not negatives or "left_out" not in read_schema(store, negatives[0]).names:
        return None
    table = read_parts(store, negatives, ["query_row", *COLUMNS])
    queries = table["query_row"].to_numpy()
    known = _flat(queries, table["positive_rows"], table["positive_teacher_scores"])
    new = _flat(queries, table["relabelled_rows"], table["relabelled_scores"])
    read = ~np.isnan(known[2])
    is_new = np.repeat([False, True], [int(read.sum()), len(new[0])])
    return Taught(
        np.concatenate([known[0][read], new[0]]),
        np.concatenate([known[1][read], new[1]]),
        np.concatenate([known[2][read], new[2]]),
        is_new,
        queries[table["left_out"].to_numpy()],
    )


def _flat(queries: I64, rows: pa.ChunkedArray, scores: pa.ChunkedArray) -> tuple[I64, I64, F32]:
    offsets, items = lists_to_csr(rows)
    return np.repeat(queries, np.diff(offsets)), items.astype(np.int64), lists_to_csr(scores)[1].astype(np.float32)
