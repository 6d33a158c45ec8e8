"""Reading the user's tables: Parquet, JSONL and BEIR's TSV, from a disk or S3, in chunks that say where they are from."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, ClusterError, DataError, one_paragraph
from cluster.storage import StorageSettings, Store

CHUNK_ROWS = 65_536
ENDINGS = (".parquet", ".pq", ".jsonl", ".jsonl.gz", ".json")
LABEL_COLUMNS = ("query_id", "item_id", "score")
HEADER_WORDS = {"score", "label", "relevance", "relevancy", "rel", "rating", "grade"}
"""What the third column of a TSV may be called; BEIR says score."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source file."""

    file: str
    first_row: int
    """Number of the first row in the file, from 1 (the line number of a JSONL or TSV file)."""
    table: pa.Table


def source_files(url: str, storage: StorageSettings) -> tuple[Store, list[str]]:
    """The files that `url` stands for: itself, or the data files below a folder (in order of their names).

    Raises:
        DataError: there is none.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    store = Store(parent or "/", storage)
    if name.endswith((*ENDINGS, ".tsv")) and store.size(name) is not None:
        return store, [name]
    below = Store(url, storage)  # also a folder that is called corpus.parquet, as Spark and Ray write them
    there = list(below.list())
    names = [path for path in there if path.endswith(ENDINGS) and not path.rpartition("/")[2].startswith(("_", "."))]
    if not names and name.endswith((*ENDINGS, ".tsv")):
        raise DataError(f"there is no file {url}; check the address in [data]")
    if not names:
        other = "a file of another kind" if store.size(name) is not None else ", ".join(there[:4]) or "nothing"
        raise DataError(
            f"expected a .parquet, .jsonl or .jsonl.gz file, or a folder of them, at {url}; found {other}; "
            f"check the address in [data], or convert the data"
        )
    return below, names


def fingerprint(url: str, storage: StorageSettings) -> dict[str, str]:
    """File -> what tells its content apart: a SHA-256 on disk, size and ETag on S3."""
    store, names = source_files(url, storage)
    return {name: store.fingerprint(name) for name in names}


def count_rows(url: str, storage: StorageSettings) -> int:
    """Rows of a source; reads only the footers of Parquet files. Raises DataError as `read_chunks`."""
    store, names = source_files(url, storage)
    if not all(_is_parquet(name) for name in names):
        return sum(chunk.table.num_rows for chunk in read_chunks(url, storage))
    count = 0
    for name in names:
        with _reading(store, name, "Parquet file"), _open(store, name) as stream:
            count += pq.ParquetFile(stream).metadata.num_rows
    return count


def read_chunks(url: str, storage: StorageSettings) -> Iterator[Chunk]:
    """All rows of a source, file by file.

    Raises:
        DataError: a file is missing, or not what its name says; names file and line.
        ClusterError: the storage failed while a file was read.
    """
    store, names = source_files(url, storage)
    for name in names:
        if _is_parquet(name):
            yield from _parquet(store, name)
        elif name.endswith(".tsv"):
            yield from _tsv(store, name)
        else:
            yield from _jsonl(store, name)


def _is_parquet(name: str) -> bool:
    return name.endswith((".parquet", ".pq"))


def _open(store: Store, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, store.open(name))
    except ArtifactError as error:
        raise DataError(str(error)) from error


@contextmanager
def _reading(store: Store, name: str, what: str) -> Iterator[None]:
    """Raises DataError for what is wrong in the file, ClusterError for what is wrong with the storage."""
    try:
        yield
    except (pa.ArrowException, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(_damaged(store, name, what, error)) from error
    except OSError as error:
        if error.errno:  # pyarrow's own complaints about the content have no number
            raise ClusterError(
                f"cannot read {store.url(name)} ({one_paragraph(str(error))}); check the storage, then run "
                f"the same command again: it resumes"
            ) from error
        raise DataError(_damaged(store, name, what, error)) from error


def _damaged(store: Store, name: str, what: str, error: BaseException) -> str:
    reason = one_paragraph(str(error))[:300]
    return f"{store.url(name)} is not a readable {what} ({reason}); it may be cut off or of another kind: write it again"


def _parquet(store: Store, name: str) -> Iterator[Chunk]:
    where = store.url(name)
    row = 1
    with _reading(store, name, "Parquet file"), _open(store, name) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(CHUNK_ROWS):
            yield Chunk(where, row, _plain(pa.Table.from_batches([batch])))
            row += batch.num_rows


def _plain(table: pa.Table) -> pa.Table:
    """Categories as their values: their codes differ from file to file."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _lines(store: Store, name: str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line), unpacked where the name ends with .gz."""
    packed = name.endswith(".gz")
    with _reading(store, name, "gzip file" if packed else "text file"), _open(store, name) as stream:
        raw = cast(io.RawIOBase, gzip.GzipFile(fileobj=stream) if packed else stream)
        with io.BufferedReader(raw, 1 << 20) as lines:
            yield from enumerate(lines, start=1)


def _jsonl(store: Store, name: str) -> Iterator[Chunk]:
    where = store.url(name)
    rows: list[dict[str, Any]] = []
    first = 1
    for number, line in _lines(store, name):
        blank = not line.strip()
        if not blank:
            rows.append(_parse_line(line, where, number))
        if blank or len(rows) == CHUNK_ROWS:  # a chunk has no gap: its rows are numbered from the first
            if rows:
                yield _chunk(rows, where, first)
            rows, first = [], number + 1
    if rows:
        yield _chunk(rows, where, first)


def _parse_line(line: bytes, where: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
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
    return Chunk(where, first, pa.table({key: _column(key, [row.get(key) for row in rows], where, first) for key in keys}))


def _column(key: str, values: list[Any], where: str, first: int) -> pa.Array:
    try:
        array = pa.array(values)
        if _has_empty_struct(array.type):  # Parquet cannot hold it: BEIR's "metadata": {} is no value, [{}] becomes text
            return pa.array([json.dumps(value) if value else None for value in values], pa.string())
        return array
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:  # pyarrow passes Python's own through
        usual = next(value for value in values if value is not None)
        kind = (int, float) if isinstance(usual, int | float) else type(usual)
        other = next((row for row, value in enumerate(values) if value is not None and not isinstance(value, kind)), None)
        if other is None:
            place, found = f"lines {first} to {first + len(values) - 1}", one_paragraph(str(error))[:200]
        else:
            place, found = f"line {first + other}", f"{values[other]!r:.60} where others are like {usual!r:.60}"
        raise DataError(
            f"{where}, {place}: expected values of one type in the field {key!r}, found {found}; give the "
            f"field one type in all lines"
        ) from error


def _has_empty_struct(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(kind.field(n).type) for n in range(kind.num_fields))
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)


def _tsv(store: Store, name: str) -> Iterator[Chunk]:
    """BEIR labels: query-id, corpus-id, score, with or without a header line."""
    where = store.url(name)
    rows: list[list[Any]] = []
    first = 1
    for number, line in _lines(store, name):
        cells = _cells(line, where, number)
        if len(cells) == 3 and _whole(cells[2]) is not None:
            rows.append([*cells[:2], _whole(cells[2])])
        elif cells and not (number == 1 and len(cells) == 3 and cells[2].strip().lower() in HEADER_WORDS):
            raise DataError(
                f"{where}, line {number}: expected query id, item id and a whole number, separated by tabs "
                f"(above them, if any, the header query-id, corpus-id, score); found {cells!r:.120}; correct or "
                f"remove this line"
            )
        else:  # a header or a blank line: the rows after it are numbered anew
            yield from _labels(rows, where, first)
            rows, first = [], number + 1
    yield from _labels(rows, where, first)


def _cells(line: bytes, where: str, number: int) -> list[str]:
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, line {number}: expected UTF-8 text, found {_start(line)!r} ({error}); write the file again in UTF-8"
        ) from error
    return text.split("\t") if text.strip() else []


def _labels(rows: list[list[Any]], where: str, first: int) -> Iterator[Chunk]:
    if rows:
        columns = zip(*rows, strict=True)
        yield Chunk(where, first, pa.table({name: list(values) for name, values in zip(LABEL_COLUMNS, columns, strict=True)}))


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
