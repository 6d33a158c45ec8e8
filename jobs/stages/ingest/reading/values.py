"""Ids and numbers of the user's tables, read one way from every file format; and what an id that matches nothing may mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from jobs.stages.ingest.reading.chunk import NUMBER, Chunk

LARGEST_WHOLE = 2**53
"""Above it a double no longer holds every whole number, so two ids could have become one."""
SPELLINGS: tuple[tuple[str, Callable[[pa.Array], pa.Array]], ...] = (
    ("white space around it", lambda ids: pc.utf8_trim(ids, " \t\r\n\0\u00a0\u200b\ufeff")),
    ("quotation marks", lambda ids: pc.utf8_trim(ids, " \"'")),
    ("a .0 at its end", lambda ids: pc.replace_substring_regex(ids, r"^(-?[0-9]+)\.0+$", r"\1")),
    ("upper and lower case", pc.utf8_lower),
    ("zeros before it", lambda ids: pc.replace_substring_regex(ids, r"^0+([0-9])", r"\1")),
    ("the Unicode form of a character", lambda ids: pc.utf8_normalize(ids, "NFKC")),
)
"""What sets two spellings of an id apart, and what takes it away. Each builds on those before it."""


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece."""
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def id_column(table: pa.Table, column: str, chunk: Chunk, *, optional: bool = False) -> pa.Array:
    """A column of ids as texts; whole doubles, which a column of integers becomes where one is missing, as integers.

    Args:
        optional: a row may have none, null.

    Raises:
        DataError: the column has another type, an id is no whole number, or a row has none.
    """
    kind = table[column].type
    values = one_array(table[column])
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~np.isnan(numbers) & ((numbers != np.floor(numbers)) | (np.abs(numbers) > LARGEST_WHOLE)))
        if len(wrong):
            raise DataError(
                f"{chunk.where(wrong[0])}: expected an id in {column!r}, a text or a whole number, found "
                f"{float(numbers[wrong[0]])!r} in a column of {kind}; write the ids as text"
            )
    elif not _is_id(kind):
        raise DataError(f"{chunk.file}: column {column!r} should hold texts or whole numbers, found {kind}; write it as text")
    ids = as_texts(values)
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), True)
    if optional or not pc.any(empty).as_py():
        return pc.if_else(empty, pa.scalar(None, pa.string()), ids) if optional else ids
    where = int(np.flatnonzero(empty.to_numpy(zero_copy_only=False))[0])
    reason = "" if not pa.types.is_floating(kind) else ", or NaN, which also made doubles of the whole column"
    raise DataError(f"{chunk.where(where)}: column {column!r} is empty{reason}; every row needs an id: add it or remove the row")


def _is_id(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    return any(test(kind) for test in tests)


def as_texts(values: pa.Array) -> pa.Array:
    """Values as texts that do not depend on the column's type: 12.0 is "12", NaN is null."""
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) <= LARGEST_WHOLE)
    integers = pa.array(np.where(whole, numbers, 0).astype(np.int64)).cast(pa.string())
    texts = pc.if_else(pa.array(whole), integers, values.cast(pa.string()))
    return pc.if_else(pa.array(np.isnan(numbers)), pa.scalar(None, pa.string()), texts)


def number_column(table: pa.Table, column: str, chunk: Chunk) -> npt.NDArray[np.float64]:
    """A column of numbers; NaN where a row has none. A text is a number if JSON would write it so.

    Raises:
        DataError: the column has another type, a text is no number, or a number is NaN or infinite.
    """
    kind = table[column].type
    values = one_array(table[column])
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    if not texts and not numeric:
        raise DataError(f"{chunk.file}: column {column!r} should hold numbers, found {kind}; write it as numbers")
    if texts:
        _refuse(values, pc.invert(pc.match_substring_regex(values, NUMBER)), column, chunk)
    numbers = values.cast(pa.float64(), safe=texts)
    _refuse(values, pc.invert(pc.is_finite(numbers)), column, chunk)
    return np.asarray(pc.fill_null(numbers, float("nan")).to_numpy(zero_copy_only=False), np.float64)


def _refuse(values: pa.Array, wrong: pa.Array, column: str, chunk: Chunk) -> None:
    rows = np.flatnonzero(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False))
    if len(rows):
        raise DataError(
            f"{chunk.where(rows[0])}: expected a number in {column!r}, written like 1, 0.5 or -1, found "
            f"{values[int(rows[0])].as_py()!r:.60}; {len(rows)} row(s) of this chunk differ. Correct or remove them"
        )


class KnownIds(Protocol):
    """All ids of a table."""

    def pieces(self) -> Iterator[pa.Array]:
        """The ids, large_string, in row order, some at a time."""


def id_hint(unknown: pa.Array, known: KnownIds, others: KnownIds | None = None, what: str = "") -> str:
    """Why the ids may be unknown, as the end of a message; empty where nothing is alike.

    Args:
        unknown: ids that are not among the `known` ones.
        others: ids of the other table, of `what`, which may have been given instead.
    """
    unknown = unknown.cast(pa.large_string())
    if others is not None:
        swapped = [pc.is_in(unknown, value_set=piece) for piece in others.pieces()]
        matches = unknown.filter(functools.reduce(pc.or_, swapped, pa.array(np.zeros(len(unknown), bool))))
        if len(matches):
            example = matches[0].as_py()
            return f" {len(matches)} of them, such as {example!r}, are ids of {what}: perhaps the two columns are swapped."
    spelled = [unknown]
    for _, spell in SPELLINGS:
        spelled.append(spell(spelled[-1]))
    alike: list[dict[int, str]] = [{} for _ in SPELLINGS]
    for piece in known.pieces():
        right = piece
        for (_, spell), left, matched in zip(SPELLINGS, spelled[1:], alike, strict=True):
            right = spell(right)
            places = pc.index_in(left, value_set=right)
            for row in np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False)).tolist():
                matched.setdefault(row, piece[places[row].as_py()].as_py())
    for (difference, _), matched in zip(SPELLINGS, alike, strict=True):
        if matched:
            first = min(matched)
            others_too = f", as {len(matched)} of {len(unknown)} unknown ids do" if len(unknown) > 1 else ""
            return (
                f" There is {matched[first]!r}: {unknown[first].as_py()!r} differs from it in "
                f"{difference}{others_too}; write them alike."
            )
    return ""
