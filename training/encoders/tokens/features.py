"""What an encoder reads: token lists or base vectors, by row; those of some rows of a table, or of all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.labels import gather_csr
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, column_to_vectors, lists_to_csr, offsets_of, read_part, read_schema

F16 = npt.NDArray[np.float16]
READ_AT_ONCE = 8
"""Parts that are fetched and decoded at the same time, if they are small."""
READ_BYTES = 128 * 2**20
"""Bytes of larger ones, each of which takes about three times its size until its rows are picked."""


@dataclass(frozen=True)
class Tokens:
    """Token lists of N texts, one after another."""

    offsets: I64
    """[N+1] into values."""
    values: npt.NDArray[np.int32]

    @classmethod
    def joined(cls, blocks: Sequence[Tokens]) -> Tokens:
        """The texts of all blocks, one after another."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(block.lengths for block in blocks)])
        return cls(offsets_of(lengths), np.concatenate([np.zeros(0, np.int32), *(block.values for block in blocks)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> I64:
        """Tokens of each text, [N]."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: I64) -> I64:
        """Tokens of the texts of `rows`."""
        lengths: I64 = self.offsets[rows + 1] - self.offsets[rows]
        return lengths

    def take(self, rows: I64) -> Tokens:
        """The token lists of `rows`, in that order."""
        _, index = gather_csr(self.offsets, rows)
        return Tokens(offsets_of(self.lengths_of(rows)), self.values[index])


@dataclass(frozen=True)
class Vectors:
    """Frozen base vectors of N texts, [N, D]."""

    values: F32 | F16
    """As they are stored; what an encoder gets is float32."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> I64:
        """One unit of work each, [N]."""
        return np.ones(len(self.values), np.int64)

    def lengths_of(self, rows: I64) -> I64:
        """One unit of work each."""
        return np.ones(len(rows), np.int64)

    def take(self, rows: I64) -> Vectors:
        """The vectors of `rows`, in that order."""
        return Vectors(self.values[rows].astype(np.float32, copy=False))


Features = Tokens | Vectors


def read_features(store: Store, path: str) -> Features:
    """The features of one part: its `tokens` column, or else its `vector` column."""
    table = read_part(store, path)
    if "tokens" in table.column_names:
        return _tokens(table["tokens"])
    return Vectors(column_to_vectors(table["vector"]))


def load_features(store: Store, parts: Sequence[Part], rows: I64 | None = None) -> Features:
    """The features of a table in row order: of some rows, ascending, or of all.

    Memory: those rows, and a few parts. Vectors stay in half precision where they are stored so.
    """
    firsts = offsets_of(np.array([part.rows for part in parts]))
    rows = np.arange(firsts[-1]) if rows is None else rows
    places = np.searchsorted(rows, firsts)
    wanted = [number for number in range(len(parts)) if places[number] < places[number + 1]] or [0]
    column = "tokens" if "tokens" in read_schema(store, parts[wanted[0]]).names else "vector"

    def read(number: int) -> Features:
        own = rows[places[number] : places[number + 1]] - firsts[number]
        first, last = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
        table, own = read_part(store, parts[number], [column], (first, last)), own - first
        if column == "tokens":
            return _tokens(table["tokens"]).take(own)
        half = pa.types.is_float16(table["vector"].type.value_type)
        return Vectors(column_to_vectors(table["vector"])[own].astype(np.float16 if half else np.float32, copy=False))

    blocks: list[Tokens] = []
    vectors: F32 | F16 | None = None
    largest = max(part.bytes for part in parts) or 1
    at_once = max(2, min(READ_AT_ONCE, READ_BYTES // largest))
    with ThreadPoolExecutor(at_once) as pool:
        for start in range(0, len(wanted), at_once):  # no more in memory than are read at once
            some = wanted[start : start + at_once]
            for number, block in zip(some, pool.map(read, some), strict=True):
                if isinstance(block, Tokens):
                    blocks.append(block)
                    continue
                if vectors is None:  # filled in place: two copies of millions of rows are too many
                    vectors = np.empty((len(rows), block.values.shape[1]), block.values.dtype)
                vectors[places[number] : places[number + 1]] = block.values
    if vectors is not None:
        return Vectors(vectors)
    return Tokens.joined(blocks)


def _tokens(column: pa.ChunkedArray) -> Tokens:
    offsets, values = lists_to_csr(column)
    return Tokens(offsets, values.astype(np.int32, copy=False))
