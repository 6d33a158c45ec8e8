"""Reading TSV and text files as chunks, by their first line: BEIR's or TREC's labels, else a table.

| first line | is |
|---|---|
| three cells, the third a number, or a header that ends with score, label … | BEIR's labels |
| four pieces, the second 0, Q0 or another whole number, the fourth a number | TREC's labels: query, iteration, item, score |
| two cells, the first a number | a table of id and text without a header (MS MARCO) |
| names of columns | a table |

What is wrong is refused with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from cluster.errors import DataError
from jobs.stages.ingest.reading.chunk import BOM, CHUNK_ROWS, NUMBER, SCORE_NAMES, Chunk, start_of
from jobs.stages.ingest.reading.csv_table import is_header, table_chunks

LABEL_COLUMNS = ("query_id", "item_id", "score")


def tsv_chunks(lines: Iterator[tuple[int, bytes]], where: str) -> Iterator[Chunk]:
    """The rows of a TSV or text file. The scores of labels stay texts.

    Raises:
        DataError: a line does not have the cells that the first line promises, or a header names labels in another order.
    """
    start = next(lines, None)
    if start is None:
        return
    everything = chain([start], lines)
    cells = _cells(start[1].removeprefix(BOM), where, start[0])
    if _is_trec(cells):
        yield from _label_chunks(everything, where, trec=True)
    elif len(cells) == 2 and re.fullmatch(r"[0-9]+", cells[0]):
        yield from table_chunks(everything, where, tabs=True, names=("id", "text"))
    elif len(cells) == 3 and (re.fullmatch(NUMBER, cells[2]) or _name(cells[2]) in SCORE_NAMES):
        yield from _label_chunks(everything, where, trec=False)
    elif is_header(cells):
        yield from table_chunks(everything, where, tabs=True)
    else:
        yield from _label_chunks(everything, where, trec=False)


def _is_trec(cells: list[str]) -> bool:
    pieces = " ".join(cells).split()
    return (
        len(cells) in (1, 4)
        and len(pieces) == 4
        and bool(re.fullmatch(r"-?[0-9]+|[qQ]0", pieces[1]) and re.fullmatch(NUMBER, pieces[3]))
    )


def _name(cell: str) -> str:
    return cell.strip().strip('"').lower()


def _label_chunks(lines: Iterator[tuple[int, bytes]], where: str, *, trec: bool) -> Iterator[Chunk]:
    """Labels, with or without a header line: query, item, score; of TREC's four columns without the second."""
    rows: list[list[str]] = []
    first = 1
    for number, line in lines:
        cells = _cells(line.removeprefix(BOM) if number == 1 else line, where, number)
        if trec and cells:
            pieces = " ".join(cells).split()
            if len(pieces) != 4:
                raise DataError(
                    f"{where}, line {number}: expected TREC's query id, iteration, item id and score as in the first line, "
                    f"found {cells!r:.120}; correct or remove this line"
                )
            cells = [pieces[0], *pieces[2:]]
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
    query, item, score = map(_name, cells)
    if score not in SCORE_NAMES:
        raise DataError(_three_cells(cells, where, 1))
    if query.startswith(("corpus", "item", "doc")) or item.startswith(("query", "qid")):
        raise DataError(
            f"{where}, line 1: expected the columns query id, item id, score in this order, found the header "
            f"{cells!r:.120}; swap the first two columns"
        )


def _three_cells(cells: list[str], where: str, number: int) -> str:
    return (
        f"{where}, line {number}: expected query id, item id and a number, separated by tabs (above them, if any, the "
        f"header query-id, corpus-id, score), found {cells!r:.120}; correct or remove this line"
    )


def _cells(line: bytes, where: str, number: int) -> list[str]:
    try:
        text = line.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, line {number}: expected UTF-8 text, found {start_of(line)!r} ({error}); write the file again in UTF-8"
        ) from error
    return text.split("\t") if text.strip() else []


def _labels(rows: list[list[str]], where: str, first: int) -> Iterator[Chunk]:
    if rows:
        columns = zip(*rows, strict=True)
        yield Chunk(where, first, pa.table({name: list(values) for name, values in zip(LABEL_COLUMNS, columns, strict=True)}))
