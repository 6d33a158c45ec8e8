"""Reading the user's tables: Parquet, JSONL, CSV and TSV, from a disk or S3, in chunks that say where they are from."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, ClusterError, DataError, one_paragraph
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.stages.ingest.reading.beir_tsv import tsv_chunks
from jobs.stages.ingest.reading.chunk import BOM, CHUNK_BYTES, CHUNK_ROWS, Chunk
from jobs.stages.ingest.reading.csv_table import table_chunks
from jobs.stages.ingest.reading.jsonl import jsonl_chunks, refuse_deep
from jobs.stages.ingest.reading.utf8 import refuse_other_bytes, refuse_unreadable_texts

ENDINGS = (".parquet", ".pq", ".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
ALONE = (".txt", ".trec", ".qrels")
"""Endings of label files that are read where they are named, but not taken from a folder: it may hold any other text."""
FILES_AT_ONCE = 16
"""Files that are looked at side by side: on S3 each is a request, on a disk each is hashed."""
HEAD_ROWS = 10_000
"""Rows that `read_head` returns at most."""


def source_files(url: str, storage: StorageSettings) -> tuple[Store, list[str]]:
    """The files that `url` stands for: itself, or the data files below a folder (in order of their names).

    Raises:
        DataError: there is none.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    store = Store(parent or "/", storage)
    if name.endswith((*ENDINGS, *ALONE)) and store.size(name) is not None:
        return store, [name]
    below = Store(url, storage)  # also a folder that is called corpus.parquet, as Spark and Ray write them
    paths = list(below.list())
    names = [path for path in paths if path.endswith(ENDINGS) and not path.rpartition("/")[2].startswith(("_", "."))]
    if not names and name.endswith((*ENDINGS, *ALONE)) and not paths and not store.exists(name):
        raise DataError(f"there is no file {url}; check the address in [data]")
    if not names:
        empty = "an empty folder, or what is neither file nor folder" if store.exists(name) else "nothing"
        other = "a file of another kind" if store.size(name) is not None else ", ".join(paths[:4]) or empty
        raise DataError(
            f"expected a Parquet, JSONL, CSV or TSV file, or a folder of them, at {url}; found {other}; "
            f"check the address in [data], or convert the data"
        )
    return below, names


def fingerprint(url: str, storage: StorageSettings) -> dict[str, str]:
    """File -> what tells its content apart: a SHA-256 on disk, size and ETag on S3."""
    store, names = source_files(url, storage)
    try:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            return dict(zip(names, pool.map(store.fingerprint, names), strict=True))
    except ArtifactError as error:
        raise DataError(f"{error}; a symbolic link that leads nowhere? Mend or remove it") from error


def count_rows(url: str, storage: StorageSettings) -> int:
    """Rows of a source; reads only the footers of Parquet files. Raises DataError as `read_chunks`."""
    store, names = source_files(url, storage)
    if not all(is_parquet(name) for name in names):
        return sum(chunk.table.num_rows for chunk in read_chunks(url, storage))

    def count(name: str) -> int:
        with _reading(store, name, "Parquet file"), _open(store, name) as stream:
            return int(pq.ParquetFile(stream).metadata.num_rows)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return sum(pool.map(count, names))


def count_text_rows(store: Store, name: str) -> int:
    """Rows of a text file; the lines of JSONL are not parsed. Raises DataError as `read_chunks`."""
    if name.endswith((".jsonl", ".jsonl.gz", ".json")):
        return sum(bool(line.removeprefix(BOM).strip()) for _, line in _lines(store, name))
    return sum(chunk.table.num_rows for chunk in _chunks(store, name, None))


@dataclass(frozen=True)
class Groups:
    """Consecutive row groups of a Parquet file."""

    numbers: tuple[int, ...]
    first_row: int
    """Number of their first row in the file, from 1."""


def parquet_groups(store: Store, name: str, most_bytes: int) -> list[tuple[Groups, int, int]]:
    """(row groups, rows, bytes when unpacked) of the pieces of a file, of at most so many bytes unless one group has more."""
    with _reading(store, name, "Parquet file"), _open(store, name) as stream:
        metadata = pq.ParquetFile(stream).metadata
    pieces: list[tuple[Groups, int, int]] = []
    row = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows, size = group.num_rows, group.total_byte_size
        if pieces and pieces[-1][2] + size <= most_bytes:
            groups, before, held = pieces[-1]
            pieces[-1] = Groups((*groups.numbers, number), groups.first_row), before + rows, held + size
        else:
            pieces.append((Groups((number,), row), rows, size))
        row += rows
    return pieces


def read_chunks(url: str, storage: StorageSettings, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
    """All rows of a source, file by file.

    Args:
        columns: those that are needed; what a Parquet file has besides is not read. None: all.

    Raises:
        DataError: a file is missing, or not what its name says; names file and line.
        ClusterError: the storage failed while a file was read.
    """
    store, names = source_files(url, storage)
    for name in names:
        yield from _chunks(store, name, columns)


def read_head(url: str, storage: StorageSettings) -> Chunk | None:
    """The first rows of the first file of a source that has any. Raises DataError as `read_chunks`."""
    store, names = source_files(url, storage)
    chunk = next((chunk for name in names for chunk in _chunks(store, name, None, rows=HEAD_ROWS)), None)
    return None if chunk is None else replace(chunk, table=chunk.table.slice(0, HEAD_ROWS))


def read_file(store: Store, name: str, groups: Groups | None = None) -> Iterator[Chunk]:
    """The rows of a file, or of some row groups of a Parquet file. Raises DataError as `read_chunks`."""
    return _chunks(store, name, None) if groups is None else _parquet(store, name, None, CHUNK_ROWS, groups)


def _chunks(store: Store, name: str, columns: Sequence[str] | None, rows: int | None = None) -> Iterator[Chunk]:
    where = store.url(name)
    if is_parquet(name):
        yield from _parquet(store, name, columns, rows or CHUNK_ROWS)
    elif name.endswith((".csv", ".csv.gz")):
        yield from table_chunks(_lines(store, name), where, tabs=False)
    elif name.endswith((".tsv", ".tsv.gz", *ALONE)):
        yield from tsv_chunks(islice(_lines(store, name), rows), where)
    else:
        yield from jsonl_chunks(islice(_lines(store, name), rows), where)


def is_parquet(name: str) -> bool:
    """Whether a file is read as Parquet."""
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
    except (pa.ArrowException, UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
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


def _parquet(store: Store, name: str, columns: Sequence[str] | None, rows: int, groups: Groups | None = None) -> Iterator[Chunk]:
    where = store.url(name)
    row = 1 if groups is None else groups.first_row
    with _reading(store, name, "Parquet file"), _open(store, name) as stream:
        file = pq.ParquetFile(stream)
        wanted = None if columns is None else [column for column in file.schema_arrow.names if column in columns]
        size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
        fits = max(1, CHUNK_BYTES * file.metadata.num_rows // max(1, size))
        numbers = None if groups is None else list(groups.numbers)
        batches = file.iter_batches(min(rows, fits), row_groups=numbers, columns=wanted)
        while True:
            try:
                batch = next(batches, None)
            except pa.ArrowInvalid:
                refuse_unreadable_texts(file, where)
                raise
            if batch is None:
                return
            refuse_other_bytes(batch, where, row)
            table = _plain(pa.Table.from_batches([batch]))
            refuse_deep(table, where)
            yield Chunk(where, row, table)
            row += batch.num_rows


def _plain(table: pa.Table) -> pa.Table:
    """Categories as their values, whose codes differ from file to file; views of texts as texts."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
        elif pa.types.is_string_view(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table


def _lines(store: Store, name: str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line), unpacked where the name ends with .gz."""
    packed = name.endswith(".gz")
    with _reading(store, name, "gzip file" if packed else "text file"), _open(store, name) as stream:
        raw = cast(io.RawIOBase, gzip.GzipFile(fileobj=stream) if packed else stream)
        with io.BufferedReader(raw, 1 << 20) as lines:
            yield from enumerate(lines, start=1)
