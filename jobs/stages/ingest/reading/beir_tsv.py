"""Reading BEIR's label files, TSV, as chunks; what is wrong is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from cluster.errors import DataError
from jobs.stages.ingest.reading.chunk import BOM, CHUNK_ROWS, NUMBER, SCORE_NAMES, Chunk, start_of

LABEL_COLUMNS = ("query_id", "item_id", "score")


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
            f"{where}, line {number}: expected UTF-8 text, found {start_of(line)!r} ({error}); write the file again in UTF-8"
        ) from error
    return text.split("\t") if text.strip() else []


def _labels(rows: list[list[str]], where: str, first: int) -> Iterator[Chunk]:
    if rows:
        columns = zip(*rows, strict=True)
        yield Chunk(where, first, pa.table({name: list(values) for name, values in zip(LABEL_COLUMNS, columns, strict=True)}))
