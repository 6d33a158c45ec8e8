"""Reading JSONL as chunks; what is wrong is refused with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from cluster.errors import DataError, one_paragraph
from jobs.stages.ingest.reading.chunk import BOM, CHUNK_BYTES, CHUNK_ROWS, Chunk, start_of

DEEPEST = 20
"""Levels that a column may be nested; Parquet's readers stop at about 50."""


SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def jsonl_chunks(lines: Iterator[tuple[int, bytes]], where: str) -> Iterator[Chunk]:
    """The rows of a JSONL file.

    Args:
        lines: (number from 1, line). where: the file, for messages.

    Raises:
        DataError: a line is not a JSON object, repeats a key, or has a field of another type than the lines before.
    """
    rows: list[dict[str, Any]] = []
    first, size = 1, 0
    for number, line in lines:
        content = line.removeprefix(BOM) if number == 1 else line
        blank = not content.strip()
        if not blank:
            rows.append(_parse_line(content, where, number))
        size += len(content)
        if blank or len(rows) == CHUNK_ROWS or size >= CHUNK_BYTES:  # a chunk has no gap: its rows are numbered from the first
            if rows:
                yield _chunk(rows, where, first)
            rows, first, size = [], number + 1, 0
    if rows:
        yield _chunk(rows, where, first)


class _RepeatedKeyError(ValueError):
    """Raised inside the JSON parser."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return value


def _parse_line(line: bytes, where: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_object)
        if SURROGATE.search(line):
            json.dumps(value, ensure_ascii=False).encode()
    except _RepeatedKeyError as error:
        raise DataError(
            f"{where}, line {number}: expected each key once, found {str(error)!r} more than once in one object; "
            f"which value is meant? Remove the others"
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, line {number}: expected Unicode text, found half of a surrogate pair "
            f"(\\u{ord(error.object[error.start]):04x}), usually an emoji that was cut in two; remove it from the line"
        ) from error
    except RecursionError:
        raise DataError(
            f"{where}, line {number}: expected fields nested at most {DEEPEST} levels deep, found many more in "
            f"{start_of(line)!r}; flatten or remove the field"
        ) from None
    except ValueError as error:
        reason = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}, line {number}: expected one JSON object in UTF-8 per line, found "
            f"{start_of(line)!r} ({reason}); correct or remove this line"
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{where}, line {number}: expected a JSON object, found {type(value).__name__} {start_of(line)!r}; "
            f'every line must read {{"id": …, …}}'
        )
    return value


def _chunk(rows: list[dict[str, Any]], where: str, first: int) -> Chunk:
    keys = dict.fromkeys(key for row in rows for key in row)
    if not keys:
        raise DataError(f"{where}, line {first}: expected an object with an id, found {{}}; correct or remove this line")
    table = pa.table({key: _column(key, [row.get(key) for row in rows], where, first) for key in keys})
    refuse_deep(table, where)
    return Chunk(where, first, table)


def _column(key: str, values: list[Any], where: str, first: int) -> pa.Array:
    try:
        array = pa.array(values)
        if pa.types.is_floating(array.type) and bool in set(map(type, values)):  # pyarrow takes true for 1.0
            raise TypeError("true or false among numbers")
        if _has_empty_struct(array.type):  # Parquet cannot hold it: BEIR's "metadata": {} is no value, [{}] becomes text
            return pa.array([json.dumps(value) if value else None for value in values], pa.string())
        return array
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:  # pyarrow passes Python's own through
        if wide := [row for row, value in enumerate(values) if isinstance(value, int) and not -(2**63) <= value < 2**63]:
            raise DataError(
                f"{where}, line {first + wide[0]}: expected whole numbers of at most 64 bits in the field {key!r}, found "
                f"{values[wide[0]]}, which takes more than 64 bits with its sign; write the field as text in all lines"
            ) from error
        usual = next(value for value in values if value is not None)
        row = next((row for row, value in enumerate(values) if value is not None and not _alike(value, usual)), None)
        if row is None:
            lines, reason = f"lines {first} to {first + len(values) - 1}", one_paragraph(str(error))[:200]
        else:
            lines, reason = f"line {first + row}", f"{values[row]!r:.60} where others are like {usual!r:.60}"
        raise DataError(
            f"{where}, {lines}: expected values of one type in the field {key!r}, found {reason}; give the "
            f"field one type in all lines"
        ) from error


def _alike(value: Any, usual: Any) -> bool:
    """Whether a column may hold both."""
    if isinstance(usual, bool) or isinstance(value, bool):
        return isinstance(usual, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(usual, int | float) else type(usual))


def _has_empty_struct(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(kind.field(n).type) for n in range(kind.num_fields))
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)


def refuse_deep(table: pa.Table, where: str) -> None:
    """Raises DataError: a column is nested so deeply that its Parquet file could be written and not be read."""
    for field in table.schema:
        if (depth := _depth(field.type)) > DEEPEST:
            raise DataError(
                f"{where}: expected columns nested at most {DEEPEST} levels deep, found {depth} levels in "
                f"{field.name!r}; flatten or remove the column, or write it as text"
            )


def _depth(kind: pa.DataType) -> int:
    return 1 + max((_depth(kind.field(n).type) for n in range(kind.num_fields)), default=0) if pa.types.is_nested(kind) else 0
