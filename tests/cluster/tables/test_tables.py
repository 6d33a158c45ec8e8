"""Tables: parts, vectors and lists come back as they were written; damage is told."""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.digests import SealedEnd, read_end, seal_of
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import (
    Part,
    column_to_vectors,
    csr_to_lists,
    left_parts,
    lists_to_csr,
    part_name,
    parts_between,
    parts_from_json,
    read_part,
    read_parts,
    read_schema,
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
    assert part == Part("t/part-00000.parquet", 2, store.list("t")["t/part-00000.parquet"], 3, part.sha256)
    assert len(part.sha256) == 64
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


TABLES = {
    "texts": pa.table({"row": np.arange(50), "text": [f"text {n}" for n in range(50)]}),
    "vectors": pa.table({"vector": vectors_to_column(np.arange(60.0).reshape(20, 3))}),
    "no rows": pa.table({"n": pa.array([], pa.int64())}),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_flipped_bit_of_a_part_is_found(store: Store, name: str) -> None:
    part = write_part(store, "x.parquet", TABLES[name])
    whole = store.read_bytes(part.path)
    for at in range(0, len(whole), 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        assert seal_of(bytes(damaged)) is None, f"byte {at} of {len(whole)}"
    assert seal_of(whole) == part.sha256


def test_a_sealed_part_is_a_parquet_file_for_others(store: Store, tmp_path: Path) -> None:
    for name, table in TABLES.items():
        write_part(store, name, table, for_others=True)
        assert pq.read_table(tmp_path / name).equals(table)
        assert pq.ParquetFile(tmp_path / name, page_checksum_verification=True).read().equals(table)
        assert read_part(store, name).equals(table)


MANY = pa.table(
    {
        "text": [f"text {n}" * 4 for n in range(20_000)],
        "code": np.arange(20_000) ** 3,
        "vector": vectors_to_column(np.random.default_rng(0).standard_normal((20_000, 100), np.float32)),
        "many": [[n, n + 1] for n in range(20_000)],
        "nested": [{"a": n} for n in range(20_000)],
    }
)
"""Of several row groups, and larger than what is fetched whole."""


@pytest.mark.parametrize("rows", [None, (0, 20_000), (7, 8), (2_000, 15_001), (19_999, 20_000), (20_000, 30_000), (5, 5)])
@pytest.mark.parametrize("columns", [["code"], ["vector"], ["many", "code"], ["nested"], None])
def test_columns_and_rows_are_read_without_the_rest_of_the_part(
    store: Store, monkeypatch: pytest.MonkeyPatch, columns: list[str] | None, rows: tuple[int, int] | None
) -> None:
    part = write_part(store, "x", MANY)
    assert pq.read_metadata(io.BytesIO(store.read_bytes("x"))).num_row_groups > 2
    fetched, read = list[int](), Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *of: (fetched.append(of[3] - of[2]), read(*of))[1])
    want = MANY if columns is None else MANY.select(columns)
    assert read_part(store, part, columns, rows).equals(want if rows is None else want.slice(rows[0], rows[1] - rows[0]))
    if columns == ["code"] or (rows and rows[1] - rows[0] < 2):
        assert sum(fetched) < part.bytes * 0.5
    read_schema(store, part)
    assert read_schema(store, part).names == MANY.column_names


def test_vectors_are_fetched_at_once_across_the_row_numbers_between_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"row": np.arange(len(MANY)), "vector": MANY["vector"]})
    part = write_part(store, "x", table)
    fetched, read = list[int](), Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *of: (fetched.append(of[3] - of[2]), read(*of))[1])
    assert read_part(store, part, ["vector"]).equals(table.select(["vector"]))
    assert len(fetched) == 2, "the end, and the vectors"
    fetched.clear()
    assert read_part(store, part, ["row"]).equals(table.select(["row"]))
    assert sum(fetched) < part.bytes / 10, "vectors lie between row numbers, but are not fetched with them"


def test_every_flipped_bit_is_found_by_who_reads_it(store: Store) -> None:
    """Of a large part any column reads the end; a chunk is checked by who reads its column and rows, and by no one else."""
    part = write_part(store, "x", MANY)
    whole = store.read_bytes("x")
    end = read_end(whole)
    assert isinstance(end, SealedEnd)
    assert (end.digest, end.chunks[0].start) == (part.sha256, 4)
    assert all(left.stop == right.start for left, right in itertools.pairwise(end.chunks))
    for chunk in end.chunks:
        damaged = bytearray(whole)
        damaged[(chunk.start + chunk.stop) // 2] ^= 4
        store.write_bytes("x", bytes(damaged))
        first = sum(end.metadata.row_group(group).num_rows for group in range(chunk.group))
        name = chunk.column.partition(".")[0]
        with pytest.raises(DamagedObject, match="x was changed or damaged"):
            read_part(store, part, [name], (first, first + 1))
        other = next(column for column in MANY.column_names if column != name)
        assert read_part(store, part, [other], (first, first + 1)).num_rows == 1
    for at in range(end.chunks[-1].stop, len(whole), 397):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        store.write_bytes("x", bytes(damaged))
        with pytest.raises(DamagedObject, match="x was changed or damaged"):
            read_part(store, part, ["code"])
    other_part = write_part(store, "y", MANY.slice(1))
    store.write_bytes("x", store.read_bytes("y").ljust(part.bytes, b"\0"))
    with pytest.raises(DamagedObject, match="x was changed or damaged"):
        read_part(store, part, ["code"])
    with pytest.raises(DamagedObject, match="y is not the one that its commit lists"):
        read_part(store, replace(other_part, sha256=part.sha256), ["code"])


def test_the_end_of_a_part_with_many_row_groups_is_fetched_with_what_it_needs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.tables.fetch.END_BYTES", 100)
    part = write_part(store, "x", MANY)
    assert read_part(store, part, ["code"], (100, 110))["code"].to_pylist() == [n**3 for n in range(100, 110)]


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not parquet"])
def test_a_part_that_is_cut_off_or_something_else_is_told(store: Store, damage: Callable[[bytes], bytes]) -> None:
    part = write_part(store, "x.parquet", pa.table({"n": np.arange(1000)}))
    store.write_bytes(part.path, damage(store.read_bytes(part.path)))
    for read in (read_part, read_schema, lambda store, part: read_part(store, part.path)):
        with pytest.raises(DamagedObject, match=r"x\.parquet was changed or damaged .*`hardmine run` makes it anew") as error:
            read(store, part)
        assert pickle.loads(pickle.dumps(error.value)).url == store.url("x.parquet"), "it comes back whole from a worker"


def test_a_whole_part_that_is_not_the_committed_one_is_told(store: Store) -> None:
    part, other = write_part(store, "x", pa.table({"n": [1]})), write_part(store, "y", pa.table({"n": [2]}))
    store.write_bytes("x", store.read_bytes(other.path))
    with pytest.raises(DamagedObject, match="x is not the one that its commit lists"):
        read_part(store, part)


def test_a_missing_part_and_a_missing_column_are_told(store: Store) -> None:
    part = write_part(store, "x.parquet", pa.table({"n": np.arange(1000)}))
    with pytest.raises(ArtifactError, match=r"x\.parquet cannot be read as columns \['m'\]"):
        read_part(store, part.path, ["m"])
    with pytest.raises(DamagedObject, match="there is no such object"):
        read_part(store, "y.parquet")


def test_a_part_that_was_damaged_on_the_way_is_fetched_once_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write_part(store, "x", pa.table({"n": [1, 2]}))
    read, fetched = Store.read_bytes, list[str]()

    def damaged_once(self: Store, path: str, size: int | None = None) -> bytes:
        fetched.append(path)
        data = read(self, path, size)
        return data if len(fetched) > 1 else data[:10] + bytes([data[10] ^ 4]) + data[11:]

    monkeypatch.setattr(Store, "read_bytes", damaged_once)
    assert read_part(store, part)["n"].to_pylist() == [1, 2]
    assert fetched == ["x", "x"]


def test_of_what_an_interrupted_attempt_left_only_whole_parts_are_taken_over(store: Store) -> None:
    parts = [write_part(store, f"t/{part_name(n)}", pa.table({"n": [n, n]}), first_row=2 * n) for n in range(4)]
    store.write_bytes(parts[1].path, store.read_bytes(parts[1].path)[:-1] + b"?")
    wanted = [Part(part.path, 3 if n == 2 else 2, 0, part.first_row) for n, part in enumerate(parts)]
    assert left_parts(store, [*wanted, Part("t/part-00009.parquet", 2, 0)]) == {parts[n].path: parts[n] for n in (0, 3)}


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
