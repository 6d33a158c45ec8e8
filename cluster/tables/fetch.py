"""A part of a table, and how some of its columns and rows are fetched and checked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.digests import Chunk, SealedEnd, is_whole, read_end
from cluster.storage.store import Store

END_BYTES = 64 * 2**10
"""What is fetched first of the end of a part: its footer and its digests fit but for hundreds of row groups."""
RANGE_BYTES = 32 * 2**20
"""Most that one request fetches of a part, unless a single column chunk is larger."""

RANGES_AT_ONCE = 4
"""Of one part."""
GAP_SHARE = 8
"""What lies between two chunks is fetched, too, if the range before it is so many times as long."""


@dataclass(frozen=True)
class Part:
    """One file of a table: consecutive rows `first_row … first_row + rows - 1` where the table is numbered."""

    path: str
    """Address relative to the run's root."""
    rows: int
    bytes: int
    first_row: int = 0
    sha256: str = ""
    """The digest in its seal; empty only where the part was never read or written here."""

    def to_json(self) -> dict[str, Any]:
        """As stored in a commit."""
        return asdict(self)


def fetch_end(store: Store, part: Part) -> SealedEnd:
    """The end of a part, fetched once more where it was damaged on the way. Raises DamagedObject."""
    size = min(part.bytes, END_BYTES)
    for _ in range(3):
        end = read_end(_fetch(store, part, part.bytes - size, part.bytes))
        if isinstance(end, SealedEnd) and part.sha256 in ("", end.digest):
            return end
        if isinstance(end, int) and end <= part.bytes:
            size = end
    raise not_as_written(store, part.path, other=isinstance(end, SealedEnd))


def fetch_chunks(store: Store, part: Part, end: SealedEnd, groups: set[int], columns: Sequence[str] | None) -> pa.Buffer:
    """The part, where only the chunks of these row groups and columns are filled in; pages never touched take no memory."""
    names = None if columns is None else {*columns}
    wanted = [
        chunk
        for chunk in end.chunks
        if chunk.group in groups
        and (names is None or chunk.column in names or any(chunk.column.startswith(f"{name}.") for name in names))
    ]
    whole = np.zeros(part.bytes, np.uint8)
    runs: list[list[Chunk]] = []
    for chunk in wanted:
        if runs and _in_one_request(runs[-1][0].start, runs[-1][-1].stop, chunk):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])

    def fill(run: list[Chunk]) -> None:
        start, stop = run[0].start, run[-1].stop
        for _ in range(2):
            data = memoryview(_fetch(store, part, start, stop))
            if all(is_whole(data[chunk.start - start : chunk.stop - start], chunk) for chunk in run):
                break
        else:
            raise not_as_written(store, part.path, other=False)
        whole[start:stop] = np.frombuffer(data, np.uint8)

    with ThreadPoolExecutor(RANGES_AT_ONCE) as pool:
        list(pool.map(fill, runs))
    return pa.py_buffer(whole)


def _in_one_request(start: int, stop: int, chunk: Chunk) -> bool:
    """Whether a chunk is fetched with the range before it. Between vectors lie the row numbers of the next row group: to fetch
    these, too, is cheaper than another request."""
    return (chunk.start - stop) * GAP_SHARE <= stop - start and chunk.stop - start <= RANGE_BYTES


def _fetch(store: Store, part: Part, start: int, stop: int) -> bytes:
    try:
        return store.read_range(part.path, start, stop)
    except ArtifactError as error:
        raise DamagedObject.at(store.url(part.path), f"{error}; `hardmine run` makes it anew") from error


def not_as_written(store: Store, path: str, *, other: bool) -> DamagedObject:
    what = "is not the one that its commit lists" if other else "was changed or damaged after hardmine wrote it"
    return DamagedObject.at(
        store.url(path),
        f"{store.url(path)} {what} (its SHA-256 differs, read twice) and is not used; `hardmine run` makes it anew",
    )
