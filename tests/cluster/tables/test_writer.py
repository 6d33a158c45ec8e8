"""Parts that are written side by side come back in order, whole, and what goes wrong is raised."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ClusterError
from cluster.storage.store import Store
from cluster.tables import writer as writer_module
from cluster.tables.tables import Part, read_part, write_part
from cluster.tables.writer import PartWriter


def table_of(number: int, rows: int = 100) -> pa.Table:
    return pa.table({"row": np.arange(rows) + number * rows})


def test_parts_come_back_in_the_order_in_which_they_were_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(store: Store, path: str, table: pa.Table, **options: Any) -> Part:
        time.sleep(0.05 if path.endswith("0") else 0)  # later ones are done first
        return write_part(store, path, table, **options)

    monkeypatch.setattr(writer_module, "write_part", slow)
    writer = PartWriter(Store(str(tmp_path)))
    for number in range(20):
        writer.add(f"part-{number}", table_of(number), first_row=number * 100)
        assert len(writer) == number + 1
    parts = writer.close()
    assert [(part.path, part.first_row) for part in parts] == [(f"part-{number}", number * 100) for number in range(20)]
    assert all(read_part(Store(str(tmp_path)), part).equals(table_of(number)) for number, part in enumerate(parts))


def test_no_more_is_pending_than_a_process_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def watched(store: Store, path: str, table: pa.Table, **options: Any) -> Part:
        with lock:
            held[0] += table.nbytes
            most[0] = max(most[0], held[0])
        time.sleep(0.005)
        part = write_part(store, path, table, **options)
        with lock:
            held[0] -= table.nbytes
        return part

    monkeypatch.setattr(writer_module, "write_part", watched)
    monkeypatch.setattr(writer_module, "PENDING_BYTES", 3 * table_of(0).nbytes)
    writer = PartWriter(Store(str(tmp_path)))
    for number in range(30):
        writer.add(f"part-{number}", table_of(number))
    writer.add("large", table_of(0, 10_000))
    assert held[0] == 0, "one that is larger than the room is written before anything else is done"
    assert len(writer.close()) == 31
    assert most[0] in (3 * table_of(0).nbytes, table_of(0, 10_000).nbytes)


def test_what_goes_wrong_is_raised_at_the_latest_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(store: Store, path: str, table: pa.Table, **options: Any) -> Part:
        if path == "part-1":
            raise ClusterError("the storage is full")
        return write_part(store, path, table, **options)

    monkeypatch.setattr(writer_module, "write_part", failing)
    writer = PartWriter(Store(str(tmp_path)))
    for number in range(3):
        writer.add(f"part-{number}", table_of(number))
    with pytest.raises(ClusterError, match="full"):
        writer.close()
