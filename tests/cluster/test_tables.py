"""Tables: parts, vectors and lists come back as they were written; damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ArtifactError
from cluster.storage import Store
from cluster.tables import (
    Part,
    column_to_vectors,
    csr_to_lists,
    lists_to_csr,
    load_vectors,
    part_name,
    parts_between,
    parts_from_json,
    read_part,
    read_parts,
    vectors_to_column,
    write_part,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def chunked(column: pa.Array, at: int) -> pa.ChunkedArray:
    return pa.chunked_array([column.slice(0, at), column.slice(at)])


def test_a_part_comes_back_with_its_counts(store: Store) -> None:
    table = pa.table({"row": [3, 4], "text": ["ä", None]})
    part = write_part(store, "t/part-00000.parquet", table, first_row=3)
    assert part == Part("t/part-00000.parquet", 2, store.list("t")["t/part-00000.parquet"], 3)
    assert read_part(store, part.path).equals(table)
    assert read_part(store, part.path, ["text"]).column_names == ["text"]
    assert parts_from_json([part.to_json()]) == [part]


def test_equal_tables_give_equal_bytes(store: Store) -> None:
    for name in ("a", "b"):
        write_part(store, name, pa.table({"n": np.arange(1000)}))
    assert store.read_bytes("a") == store.read_bytes("b")


def test_parts_are_read_in_order_also_where_one_has_only_nulls(store: Store) -> None:
    parts = [
        write_part(store, part_name(0), pa.table({"text": pa.nulls(2)})),
        write_part(store, part_name(1), pa.table({"text": ["x"]})),
    ]
    assert read_parts(store, parts)["text"].to_pylist() == [None, None, "x"]
    with pytest.raises(ValueError, match="at least one part"):
        read_parts(store, [])


def test_part_names_sort_like_their_numbers() -> None:
    names = [part_name(number) for number in (0, 2, 10, 99_999)]
    assert names == sorted(names)


def test_a_damaged_part_a_missing_part_and_a_missing_column_are_told(store: Store) -> None:
    part = write_part(store, "x.parquet", pa.table({"n": np.arange(1000)}))
    with pytest.raises(ArtifactError, match=r"x\.parquet cannot be read"):
        read_part(store, part.path, ["m"])
    whole = store.read_bytes(part.path)
    for damaged in (whole[:-20], whole[: len(whole) // 2], b"", b"not parquet"):
        store.write_bytes(part.path, damaged)
        with pytest.raises(ArtifactError, match=r"x\.parquet cannot be read"):
            read_part(store, part.path)
    with pytest.raises(ArtifactError, match="there is no such object"):
        read_part(store, "y.parquet")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_vectors_come_back_as_float32_in_row_order(store: Store, dtype: str, rows: int) -> None:
    vectors = np.arange(rows * 3).reshape(rows, 3).astype(dtype)
    part = write_part(store, "v", pa.table({"vector": vectors_to_column(vectors)}))
    got = load_vectors(store, [part, part])
    assert got.dtype == np.float32
    assert got.shape == (2 * rows, 3)
    assert np.array_equal(got, np.concatenate([vectors, vectors]))
    column = read_part(store, "v")["vector"]
    assert column.type == pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), 3)
    assert np.array_equal(column_to_vectors(column.slice(1)), vectors[1:])


def test_lists_of_different_lengths_are_no_vectors_even_if_their_sum_divides() -> None:
    with pytest.raises(ArtifactError, match="lengths from 1 to 3"):
        column_to_vectors(pa.chunked_array([[[1.0], [1.0, 2.0, 3.0]]]))
    with pytest.raises(ArtifactError, match="lengths from 0 to 2"):
        column_to_vectors(pa.chunked_array([[[1.0, 2.0], None]]))
    assert column_to_vectors(pa.chunked_array([[[1.0, 2.0], [3.0, 4.0]]])).tolist() == [[1, 2], [3, 4]]
    assert column_to_vectors(pa.chunked_array([], pa.list_(pa.float32()))).shape == (0, 0)


@given(st.lists(st.none() | st.lists(st.integers(0, 9), max_size=4), max_size=8), st.integers(0, 8), st.integers(0, 3))
def test_lists_and_offsets_are_inverse_also_over_chunks_and_slices(lists: list[list[int] | None], at: int, skip: int) -> None:
    column = chunked(pa.array(lists, pa.list_(pa.int64())), at).slice(skip)
    offsets, values = lists_to_csr(column)
    want = [item or [] for item in lists[skip:]]
    assert np.diff(offsets).tolist() == [len(item) for item in want]
    assert csr_to_lists(offsets, values).to_pylist() == want


def test_parts_between_gives_the_parts_and_slices_of_a_range() -> None:
    parts = [Part("a", 4, 0, 0), Part("b", 4, 0, 4), Part("c", 2, 0, 8)]
    assert list(parts_between(parts, 3, 9)) == [(parts[0], 3, 4), (parts[1], 0, 4), (parts[2], 0, 1)]
    assert list(parts_between(parts, 4, 8)) == [(parts[1], 0, 4)]
    assert list(parts_between(parts, 5, 5)) == []


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_parts_between_covers_every_row_of_the_range_once(sizes: list[int], data: st.DataObject) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [Part(str(n), size, 0, int(starts[n])) for n, size in enumerate(sizes)]
    start = data.draw(st.integers(0, int(starts[-1])))
    stop = data.draw(st.integers(start, int(starts[-1])))
    got = [part.first_row + row for part, low, high in parts_between(parts, start, stop) for row in range(low, high)]
    assert got == list(range(start, stop))
