"""Rows of a table in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError
from cluster.storage.store import Store
from cluster.tables.rows import cut, has_texts, long_texts, read_rows
from cluster.tables.tables import Part, write_part


def parts_of(store: Store, table: pa.Table, rows: int) -> list[Part]:
    return [
        write_part(store, f"t/part-{start:05d}.parquet", table.slice(start, rows), first_row=start)
        for start in range(0, table.num_rows, rows)
    ]


@pytest.mark.parametrize("rows", [1, 3, 10, 50])
def test_rows_come_in_the_order_that_was_asked_for_from_any_cut_into_parts(tmp_path: Path, rows: int) -> None:
    table = pa.table({"row": range(23), "id": [f"i{n}" for n in range(23)], "text": [f"text {n}" for n in range(23)]})
    store, generator = Store(str(tmp_path)), np.random.default_rng(rows)
    parts = parts_of(store, table, rows)
    for wanted in ([22, 0, 0, 7, 22], [], [5], generator.integers(0, 23, 60).tolist()):
        got = read_rows(store, parts[::-1], np.array(wanted, np.int64), ["id", "text"])
        assert got.to_pylist() == [{"id": f"i{n}", "text": f"text {n}"} for n in wanted]


def test_only_parts_that_hold_a_wanted_row_are_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    parts = parts_of(store, pa.table({"text": [f"text {n}" for n in range(30)]}), 10)
    store.delete(parts[1].path)
    assert read_rows(store, parts, np.array([29, 3]), ["text"])["text"].to_pylist() == ["text 29", "text 3"]


def test_a_row_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    parts = parts_of(store, pa.table({"text": ["a", "b"]}), 2)
    with pytest.raises(ArtifactError, match=r"rows up to 2 .* found 1 of 2"):
        read_rows(store, parts, np.array([1, 2]), ["text"])


def test_a_column_of_texts_is_told_from_others(tmp_path: Path) -> None:
    part = parts_of(Store(str(tmp_path)), pa.table({"title": ["a"], "tags": [["x"]], "year": [1]}), 1)[0]
    assert [has_texts(Store(str(tmp_path)), part, name) for name in ("title", "tags", "year", "none")] == [
        True,
        False,
        False,
        False,
    ]


def test_long_texts_are_cut_and_marked_by_characters_not_bytes() -> None:
    texts = pa.chunked_array([["", None, "12345", "123456"], ["тест-тест", "日本語日本語"]], pa.string())
    assert cut(texts, 5) == ["", "", "12345", "1234…", "тест…", "日本語日…"]


@pytest.mark.slow
def test_texts_of_2_gib_and_more_become_large_texts() -> None:
    """Arrow's usual texts hold less; these are three chunks whose memory is one."""
    text = pa.array(["x" * (2**31 // 3 + 2**20)])
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        pa.concat_arrays([text, text, text])
    table = pa.table({"text": pa.chunked_array([text, text, text]), "n": [1, 2, 3]})
    assert long_texts(table).schema == pa.schema({"text": pa.large_string(), "n": pa.int64()})
    short = pa.table({"text": ["x"], "n": [1]})
    assert long_texts(short) is short
