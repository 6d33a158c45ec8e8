"""The rows of an export: which query, relevant item and negatives go into each, and their columns. Pure.

Q queries of a block, P pairs of a query and a relevant item, R rows that are exported, N negatives of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa

from cluster.tables.tables import I64, csr_to_lists, lists_to_csr, offsets_of

Columns = Literal["n-tuple", "triplet", "labeled-list"]
Lookup = Callable[[I64], pa.ChunkedArray]
"""Rows of a table -> their texts."""


class Rows:
    """The rows that a block of the negatives table gives in one of the forms, in the order of its queries.

    A pair of a query and a relevant item is left out whole: as an n-tuple if the query has fewer than `num` negatives,
    in the other forms if it has none, and in all forms if a teacher leaves the query out. Negatives beyond `num` are not used.
    """

    def __init__(self, table: pa.Table, columns: Columns, num: int) -> None:
        self._table, self._columns, self._num = table, columns, num
        positive_offsets, self._positives = lists_to_csr(table["positive_rows"])
        self._offsets, self._negatives = lists_to_csr(table["negative_rows"])
        self.lengths = np.diff(self._offsets)
        """[Q] negatives of each query."""
        owners = np.repeat(np.arange(table.num_rows), np.diff(positive_offsets))
        enough = self.lengths[owners] >= (num if columns == "n-tuple" else 1)
        if "left_out" in table.column_names:
            enough &= ~table["left_out"].to_numpy()[owners]
        self.left_out = int((~enough).sum())
        """Pairs that are not exported."""
        pairs = np.flatnonzero(enough)
        if columns == "triplet":
            each = np.minimum(self.lengths[owners[pairs]], num)
            self._first = _within(each)
            pairs = np.repeat(pairs, each)
        self._pairs, self._owners = pairs, owners[pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def _negative_places(self, some: slice) -> tuple[I64, I64]:
        """(offsets [R+1], places in the flat negatives) of some rows."""
        owners = self._owners[some]
        if self._columns == "triplet":
            return np.arange(len(owners) + 1), self._offsets[owners] + self._first[some]
        each = np.minimum(self.lengths[owners], self._num)
        offsets = offsets_of(each)
        return offsets, np.repeat(self._offsets[owners], each) + _within(each)

    def texts(self, some: slice, queries: pa.ChunkedArray, items: Lookup) -> pa.Table:
        """Some rows as texts.

        Args:
            queries: [Q] texts of the block's queries.
            items: texts of corpus rows.
        """
        offsets, places = self._negative_places(some)
        anchor = queries.take(pa.array(self._owners[some]))
        positives, negatives = self._positives[self._pairs[some]], self._negatives[places]
        if self._columns == "labeled-list":
            lists = csr_to_lists(*_behind(offsets, positives, negatives, items))
            return pa.table({"anchor": anchor, "positive": lists, "labels": _labels(offsets)})
        columns = {"anchor": anchor, "positive": items(positives)}
        if self._columns == "triplet":
            return pa.table(columns | {"negative": items(negatives)})
        grid = negatives.reshape(len(positives), self._num)
        return pa.table(columns | {f"negative_{n + 1}": items(grid[:, n]) for n in range(self._num)})

    def ids(self, some: slice) -> pa.Table:
        """The same rows as ids and scores: query_id, positive_id, positive_score, negative_ids, negative_scores."""
        offsets, places = self._negative_places(some)
        pairs, taken = pa.array(self._pairs[some]), pa.array(places)
        struct = _flat(self._table["negatives"]).take(taken)
        return pa.table(
            {
                "query_id": self._table["query_id"].take(pa.array(self._owners[some])),
                "positive_id": _flat(self._table["positive_ids"]).take(pairs),
                "positive_score": _flat(self._table["positive_scores"]).take(pairs),
                "negative_ids": csr_to_lists(offsets, struct.field("item_id")),
                "negative_scores": csr_to_lists(offsets, struct.field("score")),
            }
        )


def _within(lengths: I64) -> I64:
    """0 … length - 1 for each of some lists, one after another."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _behind(offsets: I64, positives: I64, negatives: I64, items: Lookup) -> tuple[I64, pa.Array]:
    """Lists of texts (offsets, flat): each the relevant item, then its negatives."""
    flat = np.insert(negatives, offsets[:-1], positives)
    return offsets + np.arange(len(offsets)), pa.concat_arrays(items(flat).chunks)


def _labels(offsets: I64) -> pa.ListArray:
    """1 for the relevant item, 0 for each negative."""
    flat = np.insert(np.zeros(offsets[-1], np.int64), offsets[:-1], 1)
    return csr_to_lists(offsets + np.arange(len(offsets)), flat)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.flatten()
