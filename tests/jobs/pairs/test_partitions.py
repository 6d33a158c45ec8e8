"""What lies between two stages: each partition comes back as it was, alone, and damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ClusterError
from cluster.storage.store import Store
from jobs.pairs import partitions
from jobs.pairs.partitions import PartitionWriter, read_partition, read_segments, write_partitions

COUNT = 7


def rows(count: int, seed: int) -> tuple[pa.Table, np.ndarray]:  # type: ignore[type-arg]
    random = np.random.default_rng(seed)
    shown = [None if n % 3 == 0 else [f"i{n}", f"é{n % 5}"] for n in range(count)]
    return pa.table({"number": np.arange(count) + 1000 * seed, "shown": shown}), random.integers(0, COUNT - 1, count)


@pytest.mark.parametrize("held", [1, 2**30], ids=["an object for each call", "one object"])
def test_every_row_comes_back_in_its_partition_and_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(partitions, "OBJECT_BYTES", held)
    store = Store(str(tmp_path))
    writer = PartitionWriter(store, "stage/rows-00003", COUNT)
    want: dict[int, list[int]] = {number: [] for number in range(COUNT)}
    for seed in range(3):
        table, partition = rows(100, seed)
        writer.add(table, partition)
        for number, own in zip(table["number"].to_pylist(), partition.tolist(), strict=True):
            want[own].append(number)
    objects = writer.close()
    assert len(objects) == (3 if held == 1 else 1)
    assert objects == store.list("stage")
    for number in range(COUNT):
        got = read_partition(store, objects, number, COUNT)
        assert (got["number"].to_pylist() if got else []) == want[number]
    assert read_partition(store, objects, COUNT - 1, COUNT) is None, "the last one has no rows"
    parts = list(read_segments(store, objects, 2, COUNT))
    assert [len(part) for part in parts] == [sum(value // 1000 == seed for value in want[2]) for seed in range(3)]


def test_without_rows_nothing_is_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert write_partitions(store, "rows-0", rows(0, 1)[0], np.zeros(0, np.int64), COUNT) == {}
    assert store.list() == {}


@pytest.mark.parametrize("kind", ["a byte", "cut off", "gone"])
def test_a_damaged_object_is_told_with_what_to_delete(tmp_path: Path, kind: str) -> None:
    store = Store(str(tmp_path))
    (path,) = write_partitions(store, "work/rows-0", *rows(200, 1), COUNT)
    file = tmp_path / path
    data = bytearray(file.read_bytes())
    if kind == "gone":
        file.unlink()
    else:
        data[-10] ^= 1
        file.write_bytes(bytes(data) if kind == "a byte" else bytes(data[:-10]))
    with pytest.raises(ClusterError, match=r"delete the folder .*/work and run the same command again"):
        read_partition(store, [path], COUNT - 2, COUNT)
