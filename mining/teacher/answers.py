"""What a server has answered of a block of pairs, kept in storage every few seconds: an interrupted block asks for the rest only.

Tables of query_row i64, item_row i64, score float (NaN: it has no score for the pair), beside the part that the block becomes.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from cluster.errors import DamagedObject
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, part_name, read_part, write_part
from mining.teacher.cut import Pairs

KEEP_EVERY_S = 5.0


class Answers:
    """The answers of one block."""

    def __init__(self, store: Store, target: str) -> None:
        """Args: target: address of the block's part of scores."""
        self._store, self._folder = store, f"{target.removesuffix('.parquet')}-answers"
        self._new: list[pa.Table] = []
        self._kept, self._since = 0, time.monotonic()

    def earlier(self) -> Pairs:
        """What interrupted attempts left whole."""
        tables = [pa.table({"query_row": pa.array([], pa.int64()), "item_row": pa.array([], pa.int64()), "score": _scores([])})]
        paths = self._store.list(self._folder)
        for path in paths:
            try:
                tables.append(read_part(self._store, path))
            except DamagedObject:  # its pairs are asked for again
                continue
        self._kept = max((int(path[-13:-8]) + 1 for path in paths), default=0)
        whole = pa.concat_tables(tables)
        return Pairs.ordered(*(whole[name].to_numpy() for name in ("query_row", "item_row", "score")))

    def add(self, query_rows: I64, item_rows: I64, scores: F32) -> None:
        """Some more; written by and by."""
        self._new.append(pa.table({"query_row": query_rows, "item_row": item_rows, "score": _scores(scores)}))
        if time.monotonic() - self._since > KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Write what is not written yet."""
        if self._new:
            write_part(self._store, f"{self._folder}/{part_name(self._kept)}", pa.concat_tables(self._new))
            self._kept += 1
        self._new, self._since = [], time.monotonic()

    def delete(self) -> None:
        """The block's part is written: nothing of this is needed any more."""
        self._store.delete(self._folder)


def _scores(values: F32 | list[float]) -> pa.Array:
    return pa.array(np.asarray(values, np.float32), pa.float32())
