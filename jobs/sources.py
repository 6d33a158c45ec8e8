"""Reading the user's tables: Parquet, JSONL and BEIR's TSV, from a disk or S3, in chunks that say where they are from."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, DataError
from cluster.storage import Store, StorageSettings

CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source file."""

    file: str
    first_row: int
    """Number of the first row in the file, from 1 (the line number of a JSONL file)."""
    table: pa.Table


def source_files(url: str, storage: StorageSettings) -> tuple[Store, list[str]]:
    """The files that `url` stands for: itself, or the data files below a folder.

    Raises:
        DataError: there is none.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    store = Store(parent or "/", storage)
    if name.endswith((".parquet", ".jsonl", ".jsonl.gz", ".tsv", ".json", ".pq")):
        if store.size(name) is None:
            raise DataError(f"there is no file {url}; check the address in [data]")
        return store, [name]
    below = Store(url, storage)
    names = [path for path in below.list() if path.endswith((".parquet", ".jsonl", ".jsonl.gz", ".pq"))]
    if not names:
        raise DataError(f"expected a .parquet, .jsonl or .jsonl.gz file, or a folder of them, at {url}; found none; check "
                        f"the address in [data]")
    return below, names


def fingerprint(url: str, storage: StorageSettings) -> dict[str, str]:
    """File -> what tells its content apart: a SHA-256 on disk, size and ETag on S3."""
    store, names = source_files(url, storage)
    return {name: store.fingerprint(name) for name in names}


def read_chunks(url: str, storage: StorageSettings) -> Iterator[Chunk]:
    """All rows of a source, file by file.

    Raises:
        DataError: a file is missing, or not what its name says; names file and line.
    """
    store, names = source_files(url, storage)
    for name in names:
        where = store.url(name)
        if name.endswith((".parquet", ".pq")):
            yield from _parquet(store, name, where)
        elif name.endswith(".tsv"):
            yield from _tsv(store, name, where)
        else:
            yield from _jsonl(store, name, where)


def _parquet(store: Store, name: str, where: str) -> Iterator[Chunk]:
    try:
        with store.open(name) as stream:
            file = pq.ParquetFile(stream)
            row = 1
            for batch in file.iter_batches(CHUNK_ROWS):
                yield Chunk(where, row, pa.Table.from_batches([batch]))
                row += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{where} is not a readable Parquet file ({error}); write it again") from error
    except ArtifactError as error:
        raise DataError(str(error)) from error


def _jsonl(store: Store, name: str, where: str) -> Iterator[Chunk]:
    rows: list[dict[str, Any]] = []
    first = 1
    with store.open(name) as stream:
        text = gzip.open(stream, "rt", encoding="utf-8") if name.endswith(".gz") else io.TextIOWrapper(stream, "utf-8")
        try:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    rows.append(_parse_line(line, where, number))
                if len(rows) == CHUNK_ROWS:
                    yield _chunk(rows, where, first)
                    rows, first = [], number + 1
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"{where} cannot be read as UTF-8 JSON lines after line {first + len(rows)} ({error})") from error
    if rows:
        yield _chunk(rows, where, first)


def _parse_line(line: str, where: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}, line {number}: expected one JSON object per line, found {line.strip()[:80]!r} "
                        f"({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}, line {number}: expected a JSON object, found {type(value).__name__}")
    return value


def _chunk(rows: list[dict[str, Any]], where: str, first: int) -> Chunk:
    try:
        return Chunk(where, first, pa.Table.from_pylist(_same_keys(rows)))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{where}, lines {first} to {first + len(rows) - 1}: a field has values of different types "
                        f"({error}); give it one type") from error


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


def _tsv(store: Store, name: str, where: str) -> Iterator[Chunk]:
    """BEIR labels: query-id, corpus-id, score, with or without a header line."""
    with store.open(name) as stream:
        lines = list(csv.reader(io.TextIOWrapper(stream, "utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))
    start = 1 if lines and not _is_number(lines[0][-1]) else 0
    rows = []
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line:
            continue
        if len(line) < 3 or not _is_number(line[2]):
            raise DataError(f"{where}, line {number}: expected query id, item id and a whole number, separated by tabs; "
                            f"found {line!r}")
        rows.append({"query_id": line[0], "item_id": line[1], "score": int(line[2])})
    if rows:
        yield Chunk(where, start + 1, pa.Table.from_pylist(rows))


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()

