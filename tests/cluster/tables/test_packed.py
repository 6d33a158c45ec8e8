"""Packed vectors come back bit by bit, as the lists that they were; what is no vector is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage.store import Store
from cluster.tables.packed import pack, unpack, unpack_schema
from cluster.tables.tables import column_to_vectors, read_part, read_schema, vectors_to_column, write_part


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("rows", "width"), [(0, 3), (1, 1), (5, 7), (3000, 96)])
def test_vectors_come_back_bit_by_bit_in_any_cut(tmp_path: Path, dtype: Any, rows: int, width: int) -> None:
    rng = np.random.default_rng(rows)
    halves = rng.integers(0, 2**16, (rows, width * np.dtype(dtype).itemsize // 2), np.uint16)  # NaN of every kind, too
    vectors = halves.view(dtype)
    column = vectors_to_column(vectors)
    cut = pa.chunked_array([column.slice(0, rows // 3), column.slice(rows // 3)], column.type)
    table = pa.table({"row": np.arange(rows), "vector": cut}).slice(rows // 5)
    store = Store(str(tmp_path))
    part = write_part(store, "x", table)
    stored = pq.read_table(tmp_path / "x")
    assert stored.schema.field("vector").type == pa.binary(width * np.dtype(dtype).itemsize)
    assert stored["vector"].to_pylist() == [bytes(vector.tobytes()) for vector in vectors[rows // 5 :]]
    got = read_part(store, part)
    assert got.schema == table.schema == read_schema(store, part)
    assert got["vector"].combine_chunks().flatten().to_numpy().tobytes() == vectors[rows // 5 :].tobytes()
    if dtype != np.float64 and rows > 10:
        assert column_to_vectors(got["vector"]).shape == (len(table), width)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, None]], pa.list_(pa.float32(), 2)),
        pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
        pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        pa.array([[1.0]], pa.list_(pa.field("other", pa.float32()), 1)),
        pa.array([[1.0]], pa.list_(pa.field("item", pa.float32(), nullable=False), 1)),
        pa.array([b"ab"], pa.binary(2)),
    ],
    ids=str,
)
def test_what_is_no_vector_stays_as_it_is(tmp_path: Path, column: pa.Array) -> None:
    table = pa.table({"column": column})
    assert pack(table) is table
    assert unpack(table) is table
    store = Store(str(tmp_path))
    assert read_part(store, write_part(store, "x", table)).equals(table)


def test_metadata_nulls_and_other_columns_of_a_field_stay() -> None:
    vector = pa.field("vector", pa.list_(pa.float32(), 1), nullable=False, metadata={"a": "b"})
    table = pa.Table.from_arrays(
        [pa.array([[1.0]], vector.type), pa.array(["x"])], schema=pa.schema([vector, pa.field("id", pa.string())])
    )
    back = unpack(pack(table))
    assert back.schema.equals(table.schema, check_metadata=True)
    assert unpack_schema(pack(table).schema).equals(table.schema, check_metadata=True)
    assert back.equals(table)
