"""Reading CSV and TSV tables, whose first line names the columns, as chunks; what is wrong is refused with its row.

Every cell is a text, so that an id 007 stays one; an empty cell is no value. A first column without a name, as pandas writes
its index, is left out.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa

from cluster.errors import DataError
from jobs.stages.ingest.reading.chunk import BOM, CHUNK_BYTES, CHUNK_ROWS, Chunk, start_of

NAME = re.compile(r"(^|[\W_])(id|title|text|query|question|score|label|vector|embedding)$|[a-z]I[dD]$", re.IGNORECASE)
"""A header of items, queries or labels has at least one such name; values do not look so."""

Lines = Iterator[tuple[int, bytes]]
"""(number from 1, line)"""


def is_header(cells: Sequence[str]) -> bool:
    """Whether a line of a TSV names columns."""
    return any(NAME.search(cell.strip()) for cell in cells)


def table_chunks(lines: Lines, where: str, *, tabs: bool, names: Sequence[str] | None = None) -> Iterator[Chunk]:
    """The rows of a table, numbered as a spreadsheet numbers them: a header is row 1.

    Args:
        where: the file, for messages.
        tabs: cells are parted by tabs and quotation marks mean nothing; else by commas, semicolons or tabs, whichever the
            header has most of, and a cell in quotation marks may hold these and line breaks.
        names: of the columns; None: the first row has them.

    Raises:
        DataError: a row has more or fewer cells than there are columns, or its quotation marks do not close.
    """
    block: list[list[str]] = []
    first, size = 1, 0
    for number, cells in enumerate(_rows(lines, where, tabs), start=1):
        if cells and names is None:
            names = _header(cells, where, number)
            first = number + 1
            continue
        if cells and names is not None:
            if len(cells) != len(names):
                _refuse(cells, names, f"{where}, row {number}", tabs)
            block.append(cells)
            size += sum(map(len, cells))
        full = len(block) == CHUNK_ROWS or size >= CHUNK_BYTES
        if not cells or full:  # a chunk has no gap: its rows are numbered from the first
            if block and names is not None:
                yield _chunk(names, block, where, first)
            block, first, size = [], number + 1, 0
    if block and names is not None:
        yield _chunk(names, block, where, first)


def _header(cells: list[str], where: str, number: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not all(names[1:]):
        raise DataError(f"{where}, row {number}: expected the columns' names, found {names!r:.120}; give each column a name")
    return names


def _refuse(cells: list[str], names: Sequence[str], where: str, tabs: bool) -> None:
    hint = "" if tabs else "; a text with a comma or a line break in it needs quotation marks"
    raise DataError(
        f"{where}: expected {len(names)} cells ({', '.join(names)}), found {len(cells)} in {cells!r:.120}; correct or remove "
        f"this row{hint}"
    )


def _chunk(names: Sequence[str], rows: list[list[str]], where: str, first: int) -> Chunk:
    columns = zip(*rows, strict=True)
    arrays = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
    start = 0 if names[0] else 1  # the index of pandas
    return Chunk(where, first, pa.Table.from_arrays(arrays[start:], names=list(names[start:])))


def _rows(lines: Lines, where: str, tabs: bool) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # 128 KiB, less than a long document
    texts = _decoded(lines, where)
    start = next(texts, None)
    if start is None:
        return
    delimiter = "\t" if tabs else max(",;\t", key=start.count)
    everything, number = chain([start], texts), 0
    if tabs:
        rows = csv.reader(everything, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        rows = csv.reader(everything, delimiter=delimiter, strict=True)
    try:
        for cells in rows:
            number += 1
            yield cells if any(cell.strip() for cell in cells) else []
    except csv.Error as error:
        raise DataError(
            f"{where}, row {number + 1}: expected a row of {'TSV' if tabs else 'CSV'}, found {error}; quotation marks come in "
            f"pairs, and those inside a text are doubled. Correct or remove this row"
        ) from error


def _decoded(lines: Lines, where: str) -> Iterator[str]:
    for number, line in lines:
        try:
            yield (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}, line {number}: expected UTF-8 text, found {start_of(line)!r} ({error}); write the file again in UTF-8"
            ) from error
