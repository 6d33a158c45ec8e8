"""The vectors that came with the data, made of unit length: copied part by part, by as many tasks as the cluster has CPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from cluster.commits import Outcome
from cluster.session.spread import spread_all
from cluster.storage.store import Store
from cluster.tables.tables import Part, column_to_vectors, left_part, read_part, vectors_to_column, write_part
from jobs.stages.context import Context

AT_ONCE = 8192
"""Vectors that are in memory in double precision."""


def copy_vectors(context: Context, tables: Mapping[str, Sequence[Part]], folder: str) -> Outcome:
    """Write the vectors of these tables below `folder`; parts that an interrupted attempt left are kept."""
    started = time.monotonic()
    dtype = context.config.mining.embedding_dtype
    pieces = []
    for name, parts in tables.items():
        there = context.store.list(f"{folder}/{name}")
        for part in parts:
            target = f"{folder}/{name}/{part.path.rsplit('/', 1)[-1]}"
            pieces.append((context.store, part, target, dtype, target in there))
    written = iter(spread_all(copy_part, pieces, retries=context.config.cluster.retries))
    vectors = {name: [next(written) for _ in parts] for name, parts in tables.items()}
    return Outcome(tables=vectors, work_seconds=time.monotonic() - started)


def copy_part(store: Store, part: Part, target: str, dtype: str, there: bool) -> Part:
    """Write the vectors of one part, each divided by its length.

    Args:
        there: an interrupted attempt left the target, which is kept if it is whole.
    """
    left = left_part(store, Part(target, part.rows, 0, part.first_row)) if there else None
    return left or _write(store, part, target, dtype)


def _write(store: Store, part: Part, target: str, dtype: str) -> Part:
    vectors = column_to_vectors(read_part(store, part, ["vector"])["vector"])
    unit = np.empty(vectors.shape, dtype)
    for start in range(0, len(vectors), AT_ONCE):
        some = vectors[start : start + AT_ONCE]
        norms = np.linalg.norm(some.astype(np.float64), axis=1, keepdims=True)
        unit[start : start + AT_ONCE] = (some / norms).astype(np.float32)
    rows = np.arange(part.first_row, part.first_row + part.rows, dtype=np.int64)
    return write_part(store, target, pa.table({"row": rows, "vector": vectors_to_column(unit)}), first_row=part.first_row)
