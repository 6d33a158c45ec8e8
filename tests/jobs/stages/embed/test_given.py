"""Vectors that came with the data: copied in groups of parts, each of unit length; what an interrupted copy left is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import Part, column_to_vectors, part_name, read_part, vectors_to_column, write_part
from jobs.stages.embed.given import TASK_BYTES, copy_parts, groups_of


def part(number: int, size: int) -> Part:
    return Part(part_name(number), 1, size, number)


def test_groups_are_consecutive_and_neither_too_large_nor_too_few() -> None:
    small = [part(number, 1) for number in range(10)]
    assert [len(group) for group in groups_of(small, 4)] == [3, 3, 3, 1]
    assert [each for group in groups_of(small, 3) for each in group] == small
    large = [part(number, TASK_BYTES // 2 - number) for number in range(5)]
    assert [len(group) for group in groups_of(large, 1)] == [2, 2, 1]
    assert [len(group) for group in groups_of([part(0, 2 * TASK_BYTES), part(1, 1)], 1)] == [1, 1]
    assert list(groups_of([], 4)) == []


def test_copies_have_length_one_and_whole_ones_that_were_left_are_kept(tmp_path: Path) -> None:
    store, rng = Store(str(tmp_path)), np.random.default_rng(0)
    vectors = (rng.standard_normal((30, 8)) * 10.0 ** rng.integers(-9, 9, (30, 1))).astype(np.float32)
    parts = [
        write_part(
            store,
            f"corpus/{part_name(number)}",
            pa.table({"text": ["x"] * 10, "vector": vectors_to_column(vectors[start : start + 10])}),
            first_row=start,
        )
        for number, start in enumerate((0, 10, 20))
    ]
    targets = [f"vectors/{part_name(number)}" for number in range(3)]
    copied = copy_parts(store, parts, targets, "float32", [False] * 3)
    assert [(each.path, each.rows, each.first_row) for each in copied] == [
        (target, 10, 10 * number) for number, target in enumerate(targets)
    ]
    got = np.concatenate([column_to_vectors(read_part(store, each)["vector"]) for each in copied])
    exact = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    assert np.allclose(got, exact, atol=1e-7)
    assert np.concatenate([read_part(store, each)["row"].to_numpy() for each in copied]).tolist() == list(range(30))
    kept = (tmp_path / targets[0]).stat().st_mtime_ns
    (tmp_path / targets[1]).write_bytes(b"half a part")
    assert copy_parts(store, parts, targets, "float32", [True, True, False]) == copied
    assert (tmp_path / targets[0]).stat().st_mtime_ns == kept
