"""Rows cut into partitions by a hash: one object holds a segment for each partition, so that a task reads only its own.

    <kind>-<task>-<turn>.parts   for each partition the end of its segment (u64) and its CRC-32 (u64), then the segments,
                                 each of them Arrow streams, one after another, packed with zstd

An index of 16 bytes for each partition, instead of Parquet's footer, keeps a thousand objects of a thousand partitions readable:
what a task reads does not grow with the number of the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ArtifactError, ClusterError, one_paragraph
from cluster.storage.store import Store
from cluster.tables.tables import I64

OBJECT_BYTES = 64 * 2**20
"""Packed bytes that a writer holds before it writes them as an object."""
AT_ONCE = 16
"""Segments that are fetched at the same time."""
PACKED = pa.ipc.IpcWriteOptions(compression="zstd")


class PartitionWriter:
    """Collects rows by partition and writes them as few objects; rows of a partition keep their order."""

    def __init__(self, store: Store, path: str, count: int) -> None:
        """Args: path: of the objects, without a number and an ending; count: of the partitions."""
        self.store, self.path, self.count = store, path, count
        self.objects: dict[str, int] = {}
        """What was written: path -> bytes."""
        self._segments: dict[int, list[bytes]] = {}
        self._bytes = 0

    def add(self, table: pa.Table, partition: npt.NDArray[np.integer]) -> None:  # type: ignore[type-arg]
        """Take rows; `partition` says of each which it is in, below `count`."""
        if not table.num_rows:
            return
        table = table.take(pa.array(np.argsort(partition, kind="stable"))).combine_chunks()
        sizes = np.bincount(partition, minlength=self.count)
        starts = np.cumsum(sizes) - sizes
        for number in np.flatnonzero(sizes).tolist():
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema, options=PACKED) as stream:
                stream.write_table(table.slice(int(starts[number]), int(sizes[number])))
            data = sink.getvalue().to_pybytes()
            self._segments.setdefault(number, []).append(data)
            self._bytes += len(data)
        if self._bytes > OBJECT_BYTES:
            self._write()

    def close(self) -> dict[str, int]:
        """Write what is left; {path: bytes} of all objects, empty without rows."""
        if self._segments:
            self._write()
        return self.objects

    def _write(self) -> None:
        segments = [b"".join(self._segments.get(number, ())) for number in range(self.count)]
        index = np.zeros((self.count, 2), "<u8")
        index[:, 0] = index.nbytes + np.cumsum([len(data) for data in segments])
        index[:, 1] = [zlib.crc32(data) for data in segments]
        data = b"".join([index.tobytes(), *segments])
        path = f"{self.path}-{len(self.objects):04d}.parts"
        self.store.write_bytes(path, data)
        self.objects[path] = len(data)
        self._segments, self._bytes = {}, 0


def write_partitions(
    store: Store,
    path: str,
    table: pa.Table,
    partition: npt.NDArray[np.integer],
    count: int,  # type: ignore[type-arg]
) -> dict[str, int]:
    """`table` alone, as `PartitionWriter` does."""
    writer = PartitionWriter(store, path, count)
    writer.add(table, partition)
    return writer.close()


def read_segments(store: Store, paths: Iterable[str], number: int, count: int) -> Iterator[pa.Table]:
    """The rows of one partition, in the order of `paths`, some at a time.

    Raises:
        ClusterError: an object is gone or damaged; says what to delete so that it is made anew.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for path, data in zip(paths, pool.map(lambda path: _segment(store, path, number, count), paths), strict=True):
            stream = pa.BufferReader(data)
            while stream.tell() < len(data):
                try:
                    with pa.ipc.open_stream(stream) as reader:
                        yield reader.read_all()
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(store, path, str(error)) from error


def read_partition(store: Store, paths: Iterable[str], number: int, count: int) -> pa.Table | None:
    """All rows of one partition, in the order of `paths`; None: there are none. Raises as `read_segments`."""
    tables = list(read_segments(store, paths, number, count))
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def _segment(store: Store, path: str, number: int, count: int) -> bytes:
    first = max(0, number - 1)
    try:
        index = np.frombuffer(store.read_range(path, 16 * first, 16 * (number + 1)), "<u8").reshape(-1, 2)
        start, stop = (int(index[0, 0]) if number else 16 * count), int(index[-1, 0])
        data = store.read_range(path, start, stop) if stop > start else b""
    except (ArtifactError, OSError, ValueError, IndexError) as error:
        raise _unreadable(store, path, str(error)) from error
    if len(data) != stop - start or zlib.crc32(data) != int(index[-1, 1]):
        raise _unreadable(store, path, "its bytes are not those that were written")
    return data


def _unreadable(store: Store, path: str, why: str) -> ClusterError:
    return ClusterError(
        f"{store.url(path)} cannot be read back ({one_paragraph(why)[:200]}); delete the folder "
        f"{store.url(path.rpartition('/')[0])} and run the same command again: it makes it anew"
    )


def hashes(texts: pa.Array | pa.ChunkedArray, salt: str) -> npt.NDArray[np.uint64]:
    """[N] 64-bit keyed hash of each text (SipHash); of a null 0."""
    from pandas.util import hash_array  # type: ignore[import-untyped]

    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if not len(array):
        return np.zeros(0, np.uint64)
    encoded = array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = hash_array(
        np.asarray(encoded.dictionary.to_pylist() or [""], object), hash_key=salt[:16].ljust(16, "-"), categorize=False
    )
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    of_rows = values[np.maximum(codes, 0)]
    hashed: npt.NDArray[np.uint64] = np.where(codes < 0, np.uint64(0), np.maximum(of_rows, np.uint64(1))).astype(np.uint64)
    return hashed


def partition_of(keys: npt.NDArray[np.uint64], count: int) -> I64:
    """[N] the partition of each key."""
    return np.asarray((keys >> np.uint64(16)) % np.uint64(count), np.int64)
