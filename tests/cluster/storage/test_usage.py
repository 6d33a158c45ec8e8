"""Every request and byte is counted, once."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import store as store_module
from cluster.storage.store import Store
from cluster.storage.usage import Meter, Usage, Used, process_kind, take_peak
from cluster.tables.tables import read_part, write_part


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(store_module, "METER", meter)
    monkeypatch.setattr("cluster.storage.usage.METER", meter)
    return meter


def counted(meter: Meter) -> tuple[int, int, int]:
    counts, meter._counts = meter._counts, Used()
    return counts.requests, counts.read_bytes, counts.written_bytes


def test_requests_and_bytes_of_a_store_are_counted(tmp_path: Path, meter: Meter) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a", b"12345")
    assert counted(meter) == (1, 0, 5)
    assert store.create("b", b"123")
    assert counted(meter) == (1, 0, 3)
    assert store.read_bytes("a") == b"12345"
    assert store.read_range("a", 1, 3) == b"23"
    assert counted(meter) == (2, 7, 0)
    store.list()
    store.exists("a")
    store.delete("b")
    assert counted(meter) == (3, 0, 0)


def test_bytes_of_streams_are_counted_as_they_are_read(tmp_path: Path, meter: Meter) -> None:
    store = Store(str(tmp_path))
    pq.write_table(pa.table({"a": np.arange(100_000), "b": np.random.default_rng(0).random(100_000)}), tmp_path / "x.parquet")
    (tmp_path / "lines.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    counted(meter)
    with store.open("x.parquet") as stream:
        assert pq.ParquetFile(stream).read(["a"])["a"].to_pylist() == list(range(100_000))
    size = (tmp_path / "x.parquet").stat().st_size
    assert 0 < counted(meter)[1] < size * 0.7, "one of two columns"
    with store.open("lines.gz") as stream, io.BufferedReader(gzip.GzipFile(fileobj=stream)) as lines:
        assert list(lines) == [b"one\n", b"two\n"]
    assert counted(meter)[1] >= (tmp_path / "lines.gz").stat().st_size
    assert stream.closed


def test_a_column_costs_about_its_bytes(tmp_path: Path, meter: Meter) -> None:
    store = Store(str(tmp_path))
    table = pa.table(
        {"n": np.random.default_rng(0).integers(0, 2**62, 500_000), "text": ["x" * 50 + str(n) for n in range(500_000)]}
    )
    part = write_part(store, "x", table)
    counted(meter)
    read_part(store, part, ["n"])
    requests, read, _ = counted(meter)
    assert 500_000 * 8 <= read <= 500_000 * 8 * 1.3
    assert requests <= 2 + part.rows // 50_000


def test_the_largest_process_of_a_kind_counts_and_bytes_add_up() -> None:
    usage = Usage()
    usage.add("task", Used(1, 10, 0, 100))
    usage.add("task", Used(2, 0, 5, 300))
    usage.add("task", Used(1, 1, 1, 200))
    usage.add("driver", Used(1, 0, 0, 7))
    assert usage.take() == {
        "driver": {"requests": 1, "read_bytes": 0, "written_bytes": 0, "peak_bytes": 7},
        "task": {"requests": 4, "read_bytes": 11, "written_bytes": 6, "peak_bytes": 300},
    }
    assert usage.take() == {}


def test_peak_memory_is_that_since_it_was_last_asked() -> None:
    take_peak()
    held = np.ones(100 * 2**20, np.uint8)
    del held
    high = take_peak()
    low = take_peak()
    assert high - low > 80 * 2**20
    assert process_kind() == "driver"
