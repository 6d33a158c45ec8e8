"""Reading what is written line by line, JSONL and BEIR's TSV, as chunks; what is wrong is refused with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.errors import DataError, one_paragraph

CHUNK_ROWS = 65_536
LABEL_COLUMNS = ("query_id", "item_id", "score")
SCORE_NAMES = frozenset(
    {"score", "label", "relevance", "relevancy", "rel", "rating", "grade", "gain", "qrel", "judgement", "judgment"}
)
"""What the score of a label is called elsewhere, in lower case; BEIR says score."""
NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
"""A number as JSON writes it: the one form of a number in a text. Not 1_0, 0x1, nan, or digits of another script."""
DEEPEST = 20
"""Levels that a column may be nested; Parquet's readers stop at about 50."""
BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source file."""

    file: str
    first_row: int
    """Number of the first row in the file, from 1 (the line number of a JSONL or TSV file)."""
    table: pa.Table

    def where(self, row: Any, ids: pa.Array | None = None) -> str:
        """A row, counted from 0, for a message: the file, its number there and, if the ids are known, its id."""
        name = "" if ids is None else f" (id {ids[int(row)].as_py()!r})"
        return f"{self.file}, row {self.first_row + int(row)}{name}"


def jsonl_chunks(lines: Iterator[tuple[int, bytes]], where: str) -> Iterator[Chunk]:
    """The rows of a JSONL file.

    Args:
        lines: (number from 1, line). where: the file, for messages.

    Raises:
        DataError: a line is not a JSON object, repeats a key, or has a field of another type than the lines before.
    """
    rows: list[dict[str, Any]] = []
    first = 1
    for number, line in lines:
        content = line.removeprefix(BOM) if number == 1 else line
        blank = not content.strip()
        if not blank:
            rows.append(_parse_line(content, where, number))
        if blank or len(rows) == CHUNK_ROWS:  # a chunk has no gap: its rows are numbered from the first
            if rows:
                yield _chunk(rows, where, first)
            rows, first = [], number + 1
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
            f"{_start(line)!r}; flatten or remove the field"
        ) from None
    except ValueError as error:
        reason = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}, line {number}: expected one JSON object in UTF-8 per line, found "
            f"{_start(line)!r} ({reason}); correct or remove this line"
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{where}, line {number}: expected a JSON object, found {type(value).__name__} {_start(line)!r}; "
            f'every line must read {{"id": …, …}}'
        )
    return value


def _start(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()[:80]


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


def tsv_chunks(lines: Iterator[tuple[int, bytes]], where: str) -> Iterator[Chunk]:
    """BEIR labels: query-id, corpus-id, score, with or without a header line. The scores stay texts.

    Raises:
        DataError: a line does not have three cells, or a header names them in another order.
    """
    rows: list[list[str]] = []
    first = 1
    for number, line in lines:
        cells = _cells(line.removeprefix(BOM) if number == 1 else line, where, number)
        header = number == 1 and len(cells) == 3 and not re.fullmatch(NUMBER, cells[2])
        if header:
            _check_header(cells, where)
        elif cells and len(cells) != 3:
            raise DataError(_three_cells(cells, where, number))
        if cells and not header:
            rows.append(cells)
        if not cells or header or len(rows) == CHUNK_ROWS:  # the rows after it are numbered anew
            yield from _labels(rows, where, first)
            rows, first = [], number + 1
    yield from _labels(rows, where, first)


def _check_header(cells: list[str], where: str) -> None:
    query, item, score = (cell.strip().strip('"').lower() for cell in cells)
    if score not in SCORE_NAMES:
        raise DataError(_three_cells(cells, where, 1))
    if query.startswith(("corpus", "item", "doc")) or item.startswith(("query", "qid")):
        raise DataError(
            f"{where}, line 1: expected the columns query id, item id, score in this order, found the header "
            f"{cells!r:.120}; swap the first two columns"
        )


def _three_cells(cells: list[str], where: str, number: int) -> str:
    trec = "; of TREC's four columns take out the second" if len(" ".join(cells).split()) == 4 else ""
    return (
        f"{where}, line {number}: expected query id, item id and a number, separated by tabs (above them, if any, the "
        f"header query-id, corpus-id, score), found {cells!r:.120}; correct or remove this line{trec}"
    )


def _cells(line: bytes, where: str, number: int) -> list[str]:
    try:
        text = line.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, line {number}: expected UTF-8 text, found {_start(line)!r} ({error}); write the file again in UTF-8"
        ) from error
    return text.split("\t") if text.strip() else []


def _labels(rows: list[list[str]], where: str, first: int) -> Iterator[Chunk]:
    if rows:
        columns = zip(*rows, strict=True)
        yield Chunk(where, first, pa.table({name: list(values) for name, values in zip(LABEL_COLUMNS, columns, strict=True)}))
