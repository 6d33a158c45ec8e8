"""SHA-256 of what is stored, and the seal of a Parquet part: digests inside it, so that whoever reads any of it can check it.

A seal lies in front of the file's footer: the SHA-256 of each column chunk, in the file's order, their number in 4 bytes, and
the SHA-256 of all this and the footer, which is the digest of the part. So a reader of one column of some rows reads the end of
the file and these chunks, and knows that they are what was written (a Merkle tree of two levels). Parquet readers find pages by
offsets from the start and the footer from the end, so they never see the seal.
A part is checked without its commit: also between two stages, or where a killed attempt left it and the next one takes it over.
SHA-256 and not the page checksums of Parquet: those are CRC-32, do not cover the footer, and cost as much.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.store import Store

DIGEST_BYTES = 32
COUNT_BYTES = 4
TAIL_BYTES = 8
"""The end of a Parquet file: the footer's length, little-endian in 4 bytes, and "PAR1"."""
MAGIC = b"PAR1"


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def described(data: bytes) -> dict[str, Any]:
    """An object as commits and manifests list it."""
    return {"bytes": len(data), "sha256": sha256(data)}


def read_checked(store: Store, path: str, digest: str) -> bytes:
    """An object with this SHA-256, fetched once more where it was damaged on the way. Raises DamagedObject."""
    for _ in range(2):
        try:
            data = store.read_bytes(path)
        except ArtifactError as error:
            raise DamagedObject.at(store.url(path), f"{error}; `hardmine run` makes it anew") from error
        if sha256(data) == digest:
            return data
    raise DamagedObject.at(
        store.url(path),
        f"{store.url(path)} does not have the SHA-256 that was committed, read twice; it was changed or damaged after "
        f"hardmine wrote it and is not loaded. Restore it, or let `hardmine run` make it anew",
    )


def record_digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value; the order of a mapping's keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


@dataclass(frozen=True)
class Chunk:
    """A column of a row group, as it lies in the file."""

    start: int
    stop: int
    digest: bytes
    group: int
    column: str
    """Path of the leaf: the column's name, followed by those of what is nested in it."""


@dataclass(frozen=True)
class SealedEnd:
    """The end of a sealed file, which was checked."""

    digest: str
    """Of the part, hexadecimal."""
    metadata: pq.FileMetaData
    chunks: list[Chunk]


def seal(file: io.BytesIO) -> tuple[bytes, str]:
    """(the Parquet file with its seal, the digest as hexadecimal). The seal is put into `file`, whose data is not copied."""
    with file.getbuffer() as view:
        at = _footer(view)
        footer = bytes(view[at:])
        borders = _borders(pq.read_metadata(pa.BufferReader(footer)))
        starts, stops = [start for start, *_ in borders], [stop for _, stop, *_ in borders]
        assert [*starts, at] == [len(MAGIC), *stops], "bytes without a digest"
        digests = b"".join(hashlib.sha256(view[start:stop]).digest() for start, stop, *_ in borders)
    digests += len(borders).to_bytes(COUNT_BYTES, "little")
    root = hashlib.sha256(digests + footer)
    file.seek(at)
    file.write(digests + root.digest() + footer)
    return file.getvalue(), root.hexdigest()


def read_end(end: bytes) -> SealedEnd | int | None:
    """What the last bytes of a sealed file say.

    Returns:
        None: they are not what was written. A number: so many of the last bytes are needed.
    """
    at, view = _footer(end), memoryview(end)
    if end[-4:] != MAGIC or len(end) < TAIL_BYTES:
        return None
    if at < DIGEST_BYTES + COUNT_BYTES:
        return len(end) - at + DIGEST_BYTES + COUNT_BYTES
    root = at - DIGEST_BYTES
    count = int.from_bytes(view[root - COUNT_BYTES : root], "little")
    start = root - COUNT_BYTES - count * DIGEST_BYTES
    if start < 0:
        return len(end) - start
    digest = hashlib.sha256(view[start:root])
    digest.update(view[at:])
    if digest.digest() != view[root:at]:
        return None
    metadata = pq.read_metadata(pa.BufferReader(end))
    digests = [bytes(view[each : each + DIGEST_BYTES]) for each in range(start, root - COUNT_BYTES, DIGEST_BYTES)]
    chunks = [
        Chunk(low, high, each, group, column)
        for (low, high, group, column), each in zip(_borders(metadata), digests, strict=True)
    ]
    return SealedEnd(digest.hexdigest(), metadata, chunks)


def seal_of(data: bytes) -> str | None:
    """The digest of a sealed file, hexadecimal; None: the file is not what it was when it was sealed."""
    end, view = read_end(data), memoryview(data)
    if not isinstance(end, SealedEnd) or data[:4] != MAGIC:
        return None
    return end.digest if all(is_whole(view[chunk.start : chunk.stop], chunk) for chunk in end.chunks) else None


def is_whole(data: bytes | memoryview, chunk: Chunk) -> bool:
    """Whether these are the bytes of a chunk."""
    return hashlib.sha256(data).digest() == chunk.digest


def _borders(metadata: pq.FileMetaData) -> list[tuple[int, int, int, str]]:
    """(start, stop, row group, path) of each column chunk, in the file's order."""
    borders = []
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(metadata.num_columns):
            column = row_group.column(number)
            start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            if column.total_compressed_size:  # 0: of no rows, with an offset that means nothing
                borders.append((start, start + column.total_compressed_size, group, column.path_in_schema))
    return borders


def _footer(data: bytes | memoryview) -> int:
    """Where the footer of a Parquet file starts; negative where that is before these bytes."""
    return len(data) - TAIL_BYTES - int.from_bytes(data[-TAIL_BYTES:-4], "little")
