"""A source cut into slices, each read by one process: whole text files, or row groups of Parquet files, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.files import Groups, count_text_rows, is_parquet, parquet_groups, read_file, source_files

SLICE_BYTES = 64 * 2**20
"""About what one process reads at a time, unpacked."""
PACKED = 4
"""How many bytes one of a packed text file is, about."""
SAMPLE = 2**20
"""Bytes of a text file from which the length of its rows is taken."""
IN_FLIGHT = 16


@dataclass(frozen=True)
class Piece:
    """A file, or some row groups of one."""

    store: Store
    name: str
    groups: Groups | None
    """None: a text file."""
    rows: int | None
    """None: not counted yet."""
    bytes: int


@dataclass(frozen=True)
class Slice:
    """What one process reads."""

    pieces: tuple[Piece, ...]
    rows: int | None
    """None: not counted yet, of a text file."""


@dataclass(frozen=True)
class Sliced:
    """A source."""

    slices: list[Slice]
    bytes: int
    """Unpacked, about."""
    row_bytes: float
    """Of a row, about: of the text files by the start of the first one."""


def slice_source(url: str, storage: StorageSettings) -> Sliced:
    """The slices of a source; their order, and that of the rows in them, is that of the files and their rows.

    Raises:
        DataError: there is no such file, or a Parquet file cannot be read.
    """
    store, names = source_files(url, storage)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        pieces = [piece for of_file in pool.map(lambda name: _pieces(store, name), names) for piece in of_file]
    slices: list[list[Piece]] = []
    size = 0
    for piece in pieces:
        size += piece.bytes
        if not slices or size > SLICE_BYTES:
            slices.append([])
            size = piece.bytes
        slices[-1].append(piece)
    total, rows = sum(piece.bytes for piece in pieces), sum(piece.rows or 0 for piece in pieces)
    texts = [piece for piece in pieces if piece.groups is None and piece.bytes]
    row_bytes = _row_bytes(texts[0]) if texts else total / max(1, rows)
    return Sliced([_slice(each) for each in slices], total, row_bytes)


def _slice(pieces: Sequence[Piece]) -> Slice:
    counts = [piece.rows for piece in pieces]
    return Slice(tuple(pieces), None if None in counts else sum(count or 0 for count in counts))


def _pieces(store: Store, name: str) -> list[Piece]:
    if is_parquet(name):
        return [Piece(store, name, groups, rows, size) for groups, rows, size in parquet_groups(store, name, SLICE_BYTES)]
    return [Piece(store, name, None, None, (store.size(name) or 0) * (PACKED if name.endswith(".gz") else 1))]


def _row_bytes(piece: Piece) -> float:
    with piece.store.open(piece.name) as stream:
        start = stream.read(SAMPLE)
    return float(len(start) * (PACKED if piece.name.endswith(".gz") else 1) / max(1, start.count(b"\n")))


def counted(part: Slice) -> Slice:
    """The slice with the number of its rows. Raises DataError: a file cannot be read."""
    pieces = [
        piece if piece.rows is not None else replace(piece, rows=count_text_rows(piece.store, piece.name))
        for piece in part.pieces
    ]
    return _slice(pieces)


def read_slice(part: Slice) -> Iterator[Chunk]:
    """Its rows. Raises as `files.read_chunks`."""
    for piece in part.pieces:
        yield from read_file(piece.store, piece.name, piece.groups)
