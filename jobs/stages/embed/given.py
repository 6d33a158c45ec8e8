"""The vectors that came with the data, made of unit length: copied by tasks that take a few parts each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.commits import Outcome
from cluster.session.spread import spread_all
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, column_to_vectors, left_part, stream_parts, vectors_to_column
from cluster.tables.writer import PartWriter
from jobs.stages.context import Context

AT_ONCE = 8192
"""Vectors that are in memory in double precision."""
TASK_BYTES = 256 * 2**20
"""Of the parts that one task copies, at most."""


def copy_vectors(context: Context, tables: Mapping[str, Sequence[Part]], folder: str) -> Outcome:
    """Write the vectors of these tables below `folder`; parts that an interrupted attempt left are kept."""
    started = time.monotonic()
    pieces = []
    for name, parts in tables.items():
        there = context.store.list(f"{folder}/{name}")
        for group in groups_of(parts, 2 * context.size.cpus):
            targets = [f"{folder}/{name}/{part.path.rsplit('/', 1)[-1]}" for part in group]
            left = [target in there for target in targets]
            pieces.append((context.store, group, targets, context.config.mining.embedding_dtype, left))
    copied = [part for group in spread_all(copy_parts, pieces, retries=context.config.cluster.retries) for part in group]
    written = iter(copied)
    vectors = {name: [next(written) for _ in parts] for name, parts in tables.items()}
    return Outcome(tables=vectors, work_seconds=time.monotonic() - started)


def groups_of(parts: Sequence[Part], tasks: int) -> Iterator[list[Part]]:
    """Consecutive parts, of TASK_BYTES at most, in `tasks` groups or more."""
    most, group, size = -(-len(parts) // max(1, tasks)), list[Part](), 0
    for part in parts:
        if group and (len(group) == most or size + part.bytes > TASK_BYTES):
            yield group
            group, size = [], 0
        group.append(part)
        size += part.bytes
    if group:
        yield group


def copy_parts(store: Store, parts: Sequence[Part], targets: Sequence[str], dtype: str, left: Sequence[bool]) -> list[Part]:
    """Write the vectors of some parts, each divided by its length.

    Args:
        left: whether an interrupted attempt left the target, which is kept if it is whole.
    """
    copied: dict[str, Part] = {}
    for part, target, there in zip(parts, targets, left, strict=True):
        kept = left_part(store, replace(part, path=target)) if there else None
        if kept is not None:
            copied[target] = kept
    wanted = [(part, target) for part, target in zip(parts, targets, strict=True) if target not in copied]
    writer = PartWriter(store)
    for (_, target), (part, table) in zip(
        wanted, stream_parts(store, [part for part, _ in wanted], ["vector"], least=1), strict=True
    ):
        unit = _of_unit_length(column_to_vectors(table["vector"]), dtype)
        rows = np.arange(part.first_row, part.first_row + part.rows, dtype=np.int64)
        writer.add(target, pa.table({"row": rows, "vector": vectors_to_column(unit)}), first_row=part.first_row)
    copied |= {part.path: part for part in writer.close()}
    return [copied[target] for target in targets]


def _of_unit_length(vectors: F32, dtype: str) -> npt.NDArray[Any]:
    unit = np.empty(vectors.shape, dtype)
    for start in range(0, len(vectors), AT_ONCE):
        some = vectors[start : start + AT_ONCE]
        norms = np.linalg.norm(some.astype(np.float64), axis=1, keepdims=True)
        unit[start : start + AT_ONCE] = (some / norms).astype(np.float32)
    return unit
