"""From ids to rows: of queries in memory; of items in objects cut by a hash of the id, so that no process holds all of them.

What reads items writes the ids of its slice as one object, whose row groups are the *buckets* of the hash. A task takes one
bucket of all slices, and looks up what was asked for there, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.session.spread import spread_all
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, IN_FLIGHT, Part, read_group, stream_parts, write_groups
from jobs.stages.ingest.tables import repeated_error

BUCKET_IDS = 500_000
"""Ids of a bucket, about: with their hash table 50 to 100 MiB."""
MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio (Knuth 6.4)."""
WORD = 8


class Ids:
    """The ids of a table, in row order, in memory."""

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids.cast(pa.large_string())

    def rows(self, wanted: pa.Array) -> I64:
        """The row of each id; -1: there is none."""
        return rows_among(wanted, self._ids)

    def pieces(self) -> Iterator[pa.Array]:
        """All ids, some at a time."""
        yield self._ids

    def names(self, rows: I64) -> list[str]:
        """The ids of some rows."""
        names: list[str] = self._ids.take(pa.array(rows)).to_pylist()
        return names

    def __len__(self) -> int:
        return len(self._ids)


@dataclass(frozen=True)
class StoredIds:
    """The ids of the items."""

    store: Store
    corpus: list[Part]
    bucketed: list[Part]
    """One object for each slice."""
    buckets: int
    retries: int

    def __len__(self) -> int:
        return sum(part.rows for part in self.corpus)

    def pieces(self) -> Iterator[pa.Array]:
        """All ids, some at a time."""
        for _, table in stream_parts(self.store, self.corpus, ["id"]):
            yield table["id"].combine_chunks().cast(pa.large_string())

    def names(self, rows: I64) -> list[str]:
        """The ids of some rows."""
        names: list[str] = read_rows(self.store, self.corpus, rows, ["id"])["id"].to_pylist()
        return names

    def look_up(self, wanted: Sequence[pa.Array], places: list[tuple[str, int, int]]) -> list[I64]:
        """The rows of several arrays of ids, -1 where there is none, in one pass over all items.

        Args:
            places: of the items, for messages.

        Raises:
            DataError: an id occurs more than once.
        """
        ids = pa.concat_arrays([pa.array([], pa.large_string()), *(array.cast(pa.large_string()) for array in wanted)])
        order, stops = by_bucket(ids, self.buckets)
        pieces = [
            (self.store, self.bucketed, bucket, ids.take(pa.array(order[start:stop])))
            for bucket, (start, stop) in enumerate(zip([0, *stops], stops, strict=False))
        ]
        rows = np.full(len(ids), -1, np.int64)
        repeated, first = 0, (-1, -1)
        for (start, stop), answer in zip(
            zip([0, *stops], stops, strict=False), spread_all(match_bucket, pieces, retries=self.retries), strict=True
        ):
            rows[order[start:stop]] = answer.rows
            repeated += answer.repeated
            if answer.repeated and (first[0] < 0 or answer.first < first):
                first = answer.first
        if repeated:
            raise repeated_error(repeated, self.names(np.array(first[:1]))[0], np.array(first), places, "items")
        return np.split(rows, np.cumsum([len(array) for array in wanted])[:-1])


@dataclass(frozen=True)
class Matched:
    """What a bucket says."""

    rows: I64
    """Of what was asked for; -1: there is none."""
    repeated: int
    """Ids that occur more than once."""
    first: tuple[int, int]
    """The rows where the first of them occurs for the first and second time."""


def match_bucket(store: Store, bucketed: Sequence[Part], bucket: int, wanted: pa.Array) -> Matched:
    """Look up `wanted` among the ids of one bucket of all slices."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        table = pa.concat_tables(pool.map(lambda part: read_group(store, part, bucket), bucketed))
    ids, rows = table["id"].combine_chunks(), table["row"].to_numpy()
    if isinstance(ids, pa.ChunkedArray):  # of no chunks
        ids = pa.array([], pa.large_string())
    found = pc.index_in(pa.concat_arrays([ids, wanted]), value_set=ids)  # one hash table for both
    positions = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    own, asked = positions[: len(ids)], positions[len(ids) :]
    again = np.flatnonzero(own != np.arange(len(ids)))
    count, first = 0, (-1, -1)
    if len(again):
        originals, where = np.unique(own[again], return_index=True)
        count = len(originals)
        best = int(np.argmin(rows[originals]))
        first = (int(rows[originals[best]]), int(rows[again[where[best]]]))
    result = np.where(asked >= 0, rows[asked] if len(rows) else -1, -1)
    return Matched(np.where(wanted.is_null().to_numpy(zero_copy_only=False), -1, result), count, first)


def write_buckets(store: Store, path: str, ids: pa.Array, first_row: int, buckets: int) -> Part:
    """Write the ids of consecutive rows, a row group for each bucket."""
    order, stops = by_bucket(ids, buckets)
    return write_groups(store, path, pa.table({"id": ids.take(pa.array(order)), "row": order + first_row}), stops)


def by_bucket(ids: pa.Array, buckets: int) -> tuple[I64, list[int]]:
    """(the order that brings the ids of one bucket together, and keeps it within one; where each bucket ends)."""
    numbers = bucket_numbers(ids, buckets)
    stops = np.cumsum(np.bincount(numbers, minlength=buckets))
    return np.argsort(numbers, kind="stable"), [int(stop) for stop in stops]


def bucket_numbers(ids: pa.Array, buckets: int) -> npt.NDArray[np.int64]:
    """[N] the bucket of each id, which depends on its bytes only.

    Args:
        ids: large_string.
    """
    if buckets == 1 or not len(ids):
        return np.zeros(len(ids), np.int64)
    offsets = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + len(ids) + 1]
    lengths = np.diff(offsets)
    data = ids.buffers()[2]
    padded = np.zeros(int(offsets[-1] - offsets[0]) + WORD, np.uint8)
    if data is not None:
        padded[:-WORD] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    starts, mixed = offsets[:-1] - offsets[0], lengths.astype(np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WORD)
    left = np.flatnonzero(lengths > 0)
    at = 0
    while len(left):  # eight bytes of all ids that have so many
        word = np.ascontiguousarray(windows[starts[left] + at]).view("<u8")[:, 0]
        missing = np.maximum(0, at + WORD - lengths[left]).astype(np.uint64)
        hashed = (mixed[left] ^ (word << (np.uint64(8) * missing))) * MIX
        mixed[left] = hashed ^ (hashed >> np.uint64(32))
        at += WORD
        left = left[lengths[left] > at]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX  # what sets the last letters apart is in the highest bits only
    return ((mixed ^ (mixed >> np.uint64(32))) % np.uint64(buckets)).astype(np.int64)


def rows_among(wanted: Any, known: pa.Array) -> I64:
    """The place of each id among the known ones; -1: it is not there, or null."""
    found = pc.index_in(wanted.cast(pa.large_string()), value_set=known)
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
