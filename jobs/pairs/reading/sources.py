"""The files of the logs, cut into pieces that one task reads: ranges of lines, or groups of rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from cluster.errors import DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store

PIECE_BYTES = 64 * 2**20
"""Of a text file; Parquet is packed, so its pieces are a quarter of that."""
LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
WHOLE = (".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
"""Read from the start to the end by one task."""
ENDINGS = (*LINES, *PARQUET, *WHOLE)
PAIRS = "pairs.json"
"""What an earlier output of `pairs` has."""


@dataclass(frozen=True)
class Piece:
    """What one task reads."""

    root: str
    name: str
    number: int = 0
    """Of the piece in its file."""
    of: int = 1
    size: int = 0
    """Bytes of the whole file."""
    earlier: bool = False
    """A table of an earlier output of `pairs`."""
    age_days: float = 0.0
    """Of that output, against the newest of this one."""

    @property
    def url(self) -> str:
        """The file's address."""
        return f"{self.root.rstrip('/')}/{self.name}"


@dataclass(frozen=True)
class Input:
    """One address that was given: a log, or an earlier output."""

    url: str
    pieces: tuple[Piece, ...]
    fingerprints: tuple[tuple[str, str], ...]
    earlier: dict[str, Any] | None = None
    """The `pairs.json` of an earlier output."""

    @property
    def bytes(self) -> int:
        """About the bytes of its rows, unpacked."""
        files = {piece.name: piece.size for piece in self.pieces}
        return sum(unpacked_bytes(name, size) for name, size in files.items())


def unpacked_bytes(name: str, size: int) -> int:
    """About the bytes of a file as plain text."""
    return size * (1 if name.endswith((*LINES, ".csv", ".tsv")) else 4)


def find_input(url: str, storage: StorageSettings) -> Input:
    """The pieces of a log: a file, a folder of files, or an earlier output.

    Raises:
        DataError: there is no file that could be a log.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    store = Store(parent or ("/" if url.startswith("/") else "."), storage)
    if name and (size := store.size(name)) is not None:
        if not name.endswith(ENDINGS):
            raise DataError(f"expected a log as JSONL, NDJSON, Parquet, CSV or TSV, found {url}; convert it, or mend its ending")
        return _input(url, store, {name: size}, None)
    store = Store(url, storage)
    files = store.list()
    if PAIRS in files and any(path.startswith("tables/") for path in files):
        earlier = store.read_json(PAIRS)
        tables = {path: size for path, size in files.items() if path.startswith(("tables/queries/", "tables/qrels/"))}
        return _input(url, store, tables, earlier)
    logs = {path: size for path, size in files.items() if path.endswith(ENDINGS) and not _hidden(path)}
    if not logs:
        there = ", ".join(list(files)[:4]) or ("an empty folder" if store.exists("") else "nothing")
        raise DataError(f"expected logs as JSONL, NDJSON, Parquet, CSV or TSV at {url}, found {there}; check the address")
    return _input(url, store, logs, None)


def _hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/")) or path.endswith("index.json")


def _input(url: str, store: Store, files: dict[str, int], earlier: dict[str, Any] | None) -> Input:
    pieces = tuple(piece for name, size in files.items() for piece in _pieces(store.root, name, size, earlier is not None))
    return Input(url, pieces, tuple((name, store.fingerprint(name)) for name in files), earlier)


def _pieces(root: str, name: str, size: int, earlier: bool) -> Iterator[Piece]:
    whole = name.endswith(WHOLE)
    step = PIECE_BYTES // 4 if name.endswith(PARQUET) else PIECE_BYTES
    count = 1 if whole else max(1, -(-size // step))
    for number in range(count):
        yield Piece(root, name, number, count, size, earlier)


def row_groups(file: pq.ParquetFile, piece: Piece) -> Sequence[int]:
    """The row groups of a Parquet file that are the piece's."""
    groups = file.metadata.num_row_groups
    return range(piece.number * groups // piece.of, (piece.number + 1) * groups // piece.of)


def line_blocks(stream: Any, piece: Piece, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, whole lines) of a piece: the lines that begin in its range of bytes."""
    start = piece.number * piece.size // piece.of
    stop = (piece.number + 1) * piece.size // piece.of
    at = start
    if start:
        stream.seek(start - 1)
        at = start - 1 + len(stream.readline())
    while at < stop:
        block = stream.read(min(block_bytes, stop - at))
        if not block:
            return
        if not block.endswith(b"\n"):
            block += stream.readline()
        yield at, block
        at += len(block)
