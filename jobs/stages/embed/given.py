"""The vectors that came with the data, made of unit length: copied part by part, by as many tasks as the cluster has CPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from cluster.commits import Outcome
from cluster.storage.store import Store
from cluster.tables.tables import Part, column_to_vectors, left_parts, read_part, vectors_to_column, write_part
from jobs.stages.context import Context
from jobs.stages.spread import spread_all

AT_ONCE = 8192
"""Vectors that are in memory in double precision."""


def copy_vectors(context: Context, tables: Mapping[str, Sequence[Part]], folder: str) -> Outcome:
    """Write the vectors of these tables below `folder`; parts that an interrupted attempt left are kept."""
    started = time.monotonic()
    targets = {part.path: f"{folder}/{name}/{part.path.rsplit('/', 1)[-1]}" for name, parts in tables.items() for part in parts}
    wanted = [Part(targets[part.path], part.rows, 0, part.first_row) for parts in tables.values() for part in parts]
    done = left_parts(context.store, wanted)
    dtype = context.config.mining.embedding_dtype
    missing = [
        (context.store, part, targets[part.path], dtype)
        for parts in tables.values()
        for part in parts
        if targets[part.path] not in done
    ]
    done |= {part.path: part for part in spread_all(copy_part, missing, retries=context.config.cluster.retries)}
    written = {name: [done[targets[part.path]] for part in parts] for name, parts in tables.items()}
    return Outcome(tables=written, work_seconds=time.monotonic() - started)


def copy_part(store: Store, part: Part, target: str, dtype: str) -> Part:
    """Write the vectors of one part, each divided by its length."""
    vectors = column_to_vectors(read_part(store, part, ["vector"])["vector"])
    unit = np.empty(vectors.shape, dtype)
    for start in range(0, len(vectors), AT_ONCE):
        some = vectors[start : start + AT_ONCE]
        norms = np.linalg.norm(some.astype(np.float64), axis=1, keepdims=True)
        unit[start : start + AT_ONCE] = (some / norms).astype(np.float32)
    rows = np.arange(part.first_row, part.first_row + part.rows, dtype=np.int64)
    return write_part(store, target, pa.table({"row": rows, "vector": vectors_to_column(unit)}), first_row=part.first_row)
