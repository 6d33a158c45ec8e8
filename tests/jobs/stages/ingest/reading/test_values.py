"""Ids and numbers mean the same in every file format; what is no number is refused with its row."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import DataError
from jobs.stages.ingest.lookup.ids import Ids
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.values import as_texts, id_column, id_hint, number_column


def chunk_of(values: Any, kind: pa.DataType | None = None) -> Chunk:
    return Chunk("f", 11, pa.table({"x": pa.array(values, kind)}))


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        (["1", "1.0", "-2", "0.5", "1e3", "0"], pa.string(), [1, 1, -2, 0.5, 1000, 0]),
        (["1", None], pa.large_string(), [1, math.nan]),
        ([1, None, -3], pa.int8(), [1, math.nan, -3]),
        ([1.0, 0.25], pa.float32(), [1, 0.25]),
        ([2**63], pa.uint64(), [2.0**63]),
        ([decimal.Decimal("1.50")], pa.decimal128(5, 2), [1.5]),
        ([None], pa.null(), [math.nan]),
    ],
)
def test_numbers_of_every_type(values: Any, kind: pa.DataType, want: list[float]) -> None:
    chunk = chunk_of(values, kind)
    np.testing.assert_array_equal(number_column(chunk.table, "x", chunk), np.array(want))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1_0",
        "0x1",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e999",
        "\uff11",
        "\u00b2",
        "+1",
        "01",
        "1.",
        ".5",
        "1,5",
        "1\n",
        "one",
    ],
)
def test_a_text_that_json_would_not_write_as_a_number_is_refused_with_its_row(text: str) -> None:
    chunk = chunk_of(["1", text])
    with pytest.raises(DataError, match=r"f, row 12: expected a number in 'x'.*1 row\(s\)") as failed:
        number_column(chunk.table, "x", chunk)
    assert repr(text) in str(failed.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    chunk = chunk_of([1.0, None, value])
    with pytest.raises(DataError, match="f, row 13: expected a number in 'x'"):
        number_column(chunk.table, "x", chunk)


@pytest.mark.parametrize("values", [[True], [[1]], [{"a": 1}], [b"1"]])
def test_columns_of_other_types_are_no_numbers(values: Any) -> None:
    chunk = chunk_of(values)
    with pytest.raises(DataError, match="'x' should hold numbers, found"):
        number_column(chunk.table, "x", chunk)


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        ([12.0, -3.0, 0.0, -0.0], pa.float64(), ["12", "-3", "0", "0"]),
        ([2.0**53], pa.float64(), ["9007199254740992"]),
        ([16.0], pa.float32(), ["16"]),
        ([2**63], pa.uint64(), ["9223372036854775808"]),
        (["12.0", " a"], pa.string(), ["12.0", " a"]),
    ],
)
def test_ids_are_texts_that_do_not_depend_on_the_type(values: Any, kind: pa.DataType, want: list[str]) -> None:
    chunk = chunk_of(values, kind)
    assert id_column(chunk.table, "x", chunk).to_pylist() == want


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, math.nan], "f, row 12: column 'x' is empty, or NaN, which also made doubles"),
        ([1.0, None], "f, row 12: column 'x' is empty, or NaN"),
        ([1.0, 1.5], r"f, row 12: expected an id in 'x'.*found 1\.5 in a column of double"),
        ([1.0, math.inf], "f, row 12: expected an id in 'x'.*found inf"),
        ([1.0, 2.0**60], "f, row 12: expected an id in 'x'.*as text"),
        (["a", "\t"], "f, row 12: column 'x' is empty; every row"),
        ([True], "'x' should hold texts or whole numbers, found bool"),
    ],
)
def test_rows_without_a_usable_id_are_named(values: Any, words: str) -> None:
    chunk = chunk_of(values)
    with pytest.raises(DataError, match=words):
        id_column(chunk.table, "x", chunk)


def test_an_optional_id_may_be_missing_in_any_way() -> None:
    for values in ([3.0, math.nan, None], ["3", "", None], ["3", " ", None]):
        chunk = chunk_of(values)
        assert id_column(chunk.table, "x", chunk, optional=True).to_pylist() == ["3", None, None]


def test_texts_of_numbers_do_not_depend_on_the_type() -> None:
    assert as_texts(pa.array([1990.0, 0.5, math.nan, None])).to_pylist() == ["1990", "0.5", None, None]
    assert as_texts(pa.array([1990, None])).to_pylist() == ["1990", None]


@pytest.mark.parametrize(
    ("unknown", "known", "words"),
    [
        ("i1 ", "i1", "'i1 ' differs from it in white space"),
        ("i1", "i1\u00a0", "white space"),
        ("\ufeffi1", "i1", "white space"),
        ("i1\0", "i1", "white space"),
        ('"i1"', "i1", "quotation marks"),
        ("'i1'", "i1", "quotation marks"),
        ("12.0", "12", "a .0 at its end"),
        ("12", "12.0", "a .0 at its end"),
        ("I1", "i1", "upper and lower case"),
        ("7", "007", "zeros before it"),
        ("0", "00", "zeros before it"),
        ("cafe\u0301", "caf\u00e9", "the Unicode form"),
        (' "I1.0" ', '"i1.0"', "upper and lower case"),
    ],
)
def test_an_id_that_is_nearly_known_gets_a_hint(unknown: str, known: str, words: str) -> None:
    hint = id_hint(pa.array(["zzz", unknown]), Ids(pa.array(["a", known, "b"])))
    assert f"There is {known!r}" in hint
    assert words in hint
    assert "1 of 2" in hint


def test_an_id_of_the_other_table_gets_the_hint_that_columns_are_swapped() -> None:
    hint = id_hint(pa.array(["q1", "x"]), Ids(pa.array(["i1"])), Ids(pa.array(["q1"])), "queries")
    assert hint == " 1 of them, such as 'q1', are ids of queries: perhaps the two columns are swapped."


def test_an_id_that_is_like_nothing_gets_no_hint() -> None:
    assert id_hint(pa.array(["i99"]), Ids(pa.array(["i1"])), Ids(pa.array(["q1"])), "queries") == ""
