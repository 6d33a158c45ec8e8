"""The texts of one partition: how each was asked, its split, and whether users or the retriever rejected its results.

T texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import I64
from jobs.pairs.labels.splits import by_text, by_time
from jobs.pairs.partitions import read_partition
from jobs.stages.ingest.texts import normalise

COUNTS = ("count", "shown", "without_click", "reformulated", "low", "failed")
ASKED = pa.schema(
    [("text", pa.uint64()), ("raw", pa.string()), ("split", pa.string()), ("kind", pa.string()), ("own", pa.string())]
    + [(name, pa.int64()) for name in ("first", *COUNTS)]
)
"""The columns that are read; of what was asked and of what was made from items, each has some."""
MOSTLY, WITHOUT_CLICK, LEAST = 0.5, 0.8, 3
"""A text is rejected if this share of its queries is low or reformulated, or has no click, and it was asked so often."""
SYNTHETIC = ("generated", "title", "template")
KINDS = ("live", "editorial", "co_access", "anchor", *SYNTHETIC)
"""Of a text that is several of these, the first one counts."""


@dataclass
class Asked:
    """The texts."""

    key: npt.NDArray[np.uint64]
    """[T] ascending"""
    text: pa.Array
    """The spelling that was asked most."""
    split: I64
    """0 train, 1 dev, 2 test"""
    kind: pa.Array
    """live, or the source of a text that nobody asked"""
    own: pa.Array
    """The item that the text stands for; mostly null."""
    numbers: dict[str, I64]

    @property
    def count(self) -> I64:
        """[T] how often it was asked."""
        return self.numbers["count"]

    def rejected(self, words: tuple[str, ...], has_positive: Any, clicks: bool) -> pa.Table:
        """text u64, query str, count, reasons str of the rejected ones, the most asked first."""
        asked = np.maximum(1, self.count)
        numbers = self.numbers
        shown = numbers["shown"]
        reasons = {
            "low score": numbers["low"] >= np.maximum(1, MOSTLY * asked),
            "reformulated": numbers["reformulated"] >= np.maximum(1, MOSTLY * asked),
            "no click": (numbers["without_click"] >= WITHOUT_CLICK * np.maximum(1, shown)) & (shown >= LEAST) & clicks,
            "failed evaluation": numbers["failed"] > 0,
            "listed word": _has_word(self.text, words),
        }
        live = np.asarray(pc.equal(self.kind, "live"))
        any_ = (
            np.logical_or.reduce(list(reasons.values()))
            & live
            & ~(has_positive & ~reasons["listed word"] & ~reasons["low score"])
        )
        rows = np.flatnonzero(any_)
        said = [", ".join(name for name, flags in reasons.items() if flags[row]) for row in rows]
        table = pa.table(
            {
                "text": self.key[rows],
                "query": self.text.take(pa.array(rows)),
                "count": self.count[rows] + numbers["failed"][rows],
                "reasons": pa.array(said, pa.string()),
            }
        )
        return table.sort_by([("count", "descending"), ("text", "ascending")])


def _has_word(texts: pa.Array, words: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    if not words:
        return np.zeros(len(texts), bool)
    listed = {part for word in words for part in normalise(word).split()}
    return np.asarray([not listed.isdisjoint(normalise(text).split()) for text in texts.to_pylist()], bool)


def read_asked(
    store: Store, objects: Mapping[str, list[str]], number: int, partitions: int, held_out: float, cuts: tuple[int, int]
) -> Asked | None:
    """The texts of a partition; None: there are none."""
    asked = read_partition(store, objects["asked"], number, partitions)
    from_items = read_partition(store, objects["item_queries"], number, partitions)
    if asked is None and from_items is None:
        return None
    tables = [ASKED.empty_table(), *(table for table in (asked, from_items) if table is not None)]
    table = pa.concat_tables(tables, promote_options="default")
    key, inverse = np.unique(table["text"].to_numpy(), return_inverse=True)
    kinds = np.asarray(pc.fill_null(table["kind"], "live").to_pylist(), object)
    never = np.iinfo(np.int64).max
    first = np.full(len(key), never)
    time = pc.fill_null(table["first"], 0).to_numpy()
    np.minimum.at(first, inverse, np.where(time > 0, time, never))
    first = np.where(first == never, 0, first)
    numbers = {
        name: np.bincount(inverse, weights=pc.fill_null(table[name], 0).to_numpy(), minlength=len(key)).astype(np.int64)
        for name in COUNTS
    }
    # who asked it before what follows from items, the most asked spelling, then the smallest
    rank = np.asarray([KINDS.index(name) if name in KINDS else len(KINDS) for name in kinds.tolist()], np.int64)
    spelling = np.unique(np.asarray(table["raw"].to_pylist(), object), return_inverse=True)[1]
    order = np.lexsort((spelling, -pc.fill_null(table["count"], 0).to_numpy(), rank, inverse))
    best = order[np.concatenate([[True], np.diff(inverse[order]) > 0])]
    kind = pa.array(kinds[best].tolist(), pa.string())
    split = by_text(key, held_out)
    if cuts[0]:
        new = by_time(first, cuts)  # a text that was asked before stays where its hash puts it
        split = np.where((new > 0) & (first > 0), new, split)
    split = np.where(np.asarray(pc.is_in(kind, value_set=pa.array(SYNTHETIC))), 0, split)
    split = _as_before(table, inverse, split)
    return Asked(key, table["raw"].take(pa.array(best)).combine_chunks(), split, kind, _own(table, inverse, best), numbers)


def _as_before(table: pa.Table, inverse: I64, split: I64) -> I64:
    """The split of an earlier output stays: what was held out is never trained on."""
    before = np.full(len(split), -1, np.int64)
    codes = (
        pc.fill_null(pc.index_in(table["split"], value_set=pa.array(["train", "dev", "test"])), -1).to_numpy().astype(np.int64)
    )
    np.maximum.at(before, inverse, codes)
    return np.where(before >= 0, before, split)


def _own(table: pa.Table, inverse: I64, best: I64) -> pa.Array:
    """The item that a text stands for, where it is one item."""
    if "own" not in table.column_names:
        return pa.nulls(len(best), pa.string())
    own = table["own"]
    several = np.bincount(inverse[np.asarray(own.is_valid())], minlength=len(best)) > 1
    taken = own.take(pa.array(best)).combine_chunks()
    return pc.if_else(pa.array(several), pa.scalar(None, pa.string()), taken)
