"""What an encoder reads: token lists or base vectors, by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import gather_csr
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, column_to_vectors, lists_to_csr, offsets_of, read_part


@dataclass(frozen=True)
class Tokens:
    """Token lists of N texts, one after another."""

    offsets: I64
    """[N+1] into values."""
    values: npt.NDArray[np.int32]

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
    """Frozen base vectors of N texts, [N, D] float32."""

    values: F32

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
        return Vectors(self.values[rows])


Features = Tokens | Vectors


def read_features(store: Store, path: str) -> Features:
    """The features of one part: its `tokens` column, or else its `vector` column."""
    table = read_part(store, path)
    if "tokens" in table.column_names:
        offsets, values = lists_to_csr(table["tokens"])
        return Tokens(offsets, values.astype(np.int32, copy=False))
    return Vectors(column_to_vectors(table["vector"]))


def load_features(store: Store, parts: Sequence[Part]) -> Features:
    """The features of a whole table, in row order."""
    blocks: list[Any] = [read_features(store, part.path) for part in parts]
    if isinstance(blocks[0], Vectors):
        return Vectors(np.concatenate([block.values for block in blocks]))
    lengths = np.concatenate([block.lengths for block in blocks])
    values = np.concatenate([block.values for block in blocks])
    return Tokens(offsets_of(lengths), values)
