"""Vectors that came with the data are copied as vectors of unit length, and nothing else is read for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.session.resources import ClusterSettings
from cluster.storage.store import Store
from cluster.tables.tables import load_vectors, read_part, read_parts, vectors_to_column, write_part
from jobs.stages.embed import given
from jobs.stages.embed.given import copy_vectors

ROWS, WIDTH = 3_000, 40
VECTORS = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32) * 7


def context_of(store: Store, dtype: str) -> Any:
    config = SimpleNamespace(mining=SimpleNamespace(embedding_dtype=dtype), cluster=ClusterSettings(retries=0))
    return SimpleNamespace(store=store, config=config)


def corpus_of(store: Store) -> list[Any]:
    texts = [f"text {number} " * 40 for number in range(ROWS)]
    table = pa.table({"id": texts, "text": texts, "vector": vectors_to_column(VECTORS)})
    return [write_part(store, f"c/part-{n}.parquet", table.slice(n, 1_000), first_row=n) for n in range(0, ROWS, 1_000)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vectors_get_unit_length_whatever_is_done_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    store = Store(str(tmp_path))
    parts = corpus_of(store)
    written = copy_vectors(context_of(store, dtype), {"corpus": parts}, "one").tables["corpus"]
    want = VECTORS / np.linalg.norm(VECTORS.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_array_equal(load_vectors(store, written), want.astype(np.float32).astype(dtype).astype(np.float32))
    assert read_parts(store, written)["row"].to_pylist() == list(range(ROWS))
    monkeypatch.setattr(given, "AT_ONCE", 77)
    again = copy_vectors(context_of(store, dtype), {"corpus": parts}, "two").tables["corpus"]
    assert [part.sha256 for part in again] == [part.sha256 for part in written]


def test_a_resumed_copy_keeps_whole_parts_and_makes_damaged_ones_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    parts = corpus_of(store)
    want = copy_vectors(context_of(store, "float32"), {"corpus": parts}, "v").tables["corpus"]
    store.delete(want[1].path)
    store.write_bytes(want[2].path, store.read_bytes(want[2].path)[:-9])
    made, write = list[str](), given._write
    monkeypatch.setattr(given, "_write", lambda *of: (made.append(of[2]), write(*of))[1])
    got = copy_vectors(context_of(store, "float32"), {"corpus": parts}, "v").tables["corpus"]
    assert made == [want[1].path, want[2].path]
    assert got == want
    assert all(read_part(store, part).num_rows == part.rows for part in got)
