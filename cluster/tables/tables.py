"""The tables a run keeps in storage, and how their parts are read and written.

Queries and items are numbered by their position in the user's tables; that number is their *row*. Strings travel
only where a person reads them.

    codes/part-*        text_code i64, group_code i64 (-1: none), id str, of the same rows as the part of the corpus with this
                        number: what mining reads of all items is not between texts and vectors
    corpus/part-*       row i64, id str, text str, + the user's metadata (+ vector)
    corpus-tokens/…     row i64, tokens list<i32>
    queries/part-*      row i64, id str, text str, split str, text_code i64 (-1: it is a history), item_row i64 (-1: none),
                        + metadata (+ vector)
    labels/part-*       query_row i64, item_row i64, score f64 (the grade of a relevant item; 0: judged irrelevant; -1: no
                        judgement, but no negative), gain f64 (the grade for NDCG, also below data.relevant_from), weight f64,
                        source str (sorted by query_row, item_row; queries with one text in one split have the same labels)
    embeddings/…        row i64, vector fixed_size_list<float>[D] (L2-normalised; in the file: bytes, see `packed`)
    hits/part-*         query_row i64, item_rows list<i64>, scores list<float>, label_rows list<i64>,
                        label_scores list<float> (every judged item of the query), excluded i32 (known positives that
                        would have been hits); where more pairs were scored: also_rows list<i64>, also_scores list<float>
    near/part-*         item_row i64, near_rows list<i64> (its near-duplicates, nearest first)
    scores/part-*       query_row i64, item_rows list<i64>, teacher_scores list<float>
    negatives/part-*    query_row i64, query_id str, positive_ids list<str>, positive_rows list<i64>,
                        positive_scores list<float>, negative_rows list<i64>, negatives list<struct<item_id str,
                        score float, position i64, source str, teacher_score float (null: not read), round i32>>;
                        where there is a teacher: positive_teacher_scores list<float> (parallel to positive_rows; null: not
                        read), negative_teacher_scores list<float> (parallel to negative_rows), relabelled_rows list<i64>,
                        relabelled_scores list<float> (relevant items in training only), better_candidates i64, left_out bool
                        (the query is not trained on)
"""

from __future__ import annotations

import io
import itertools
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.digests import seal, seal_of
from cluster.storage.store import Store
from cluster.tables import fetch
from cluster.tables.fetch import fetch_chunks, fetch_end, not_as_written
from cluster.tables.packed import is_packed, pack, unpack, unpack_schema

Part = fetch.Part
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
TOGETHER = 8
"""Parts that are checked at the same time where an interrupted attempt left some."""
IN_FLIGHT = 16
"""Parts of one table that are fetched at the same time."""
AHEAD_BYTES = 32 * 2**20
"""Of the parts that are fetched before they are asked for."""
GROUP_BYTES = 4 * 2**20
"""Least size of a row group, which is the least that is read of a column."""
GROUP_ROWS = 1024
WHOLE_BYTES = 256 * 2**10
"""A part of at most so many bytes is fetched whole: another request would take longer."""


def parts_from_json(values: Sequence[dict[str, Any]]) -> list[Part]:
    """The parts a commit lists."""
    return [Part(**value) for value in values]


def part_name(index: int) -> str:
    """File name of part `index`, sorting like the number."""
    return f"part-{index:05d}.parquet"


def write_part(store: Store, path: str, table: pa.Table, *, first_row: int = 0, for_others: bool = False) -> Part:
    """Write `table` as one sealed Parquet object in one PUT: zstd, but for vectors, which it cannot shrink and reads slower.

    Args:
        for_others: other programs read it, so vectors are lists; else they are packed.
    """
    sink = io.BytesIO()
    group_rows = max(GROUP_ROWS, GROUP_BYTES * table.num_rows // max(1, table.nbytes))
    table = table if for_others else pack(table)
    pq.write_table(table, sink, row_group_size=group_rows, **_encoding(table.schema))
    return _put(store, path, sink, table.num_rows, first_row)


def write_groups(store: Store, path: str, table: pa.Table, stops: Sequence[int]) -> Part:
    """As `write_part`, with row groups that end where `stops` say; a reader takes one by its number."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **_encoding(table.schema)) as writer:
        for start, stop in itertools.pairwise([0, *stops]):
            writer.write_table(table.slice(start, stop - start), row_group_size=max(1, stop - start))
    return _put(store, path, sink, table.num_rows, 0)


def _put(store: Store, path: str, sink: io.BytesIO, rows: int, first_row: int) -> Part:
    data, digest = seal(sink)
    store.write_bytes(path, data)
    return Part(path, rows, len(data), first_row, digest)


def read_group(store: Store, part: Part, number: int) -> pa.Table:
    """Row group `number` of a part. Raises as `read_part`."""
    end = fetch_end(store, part)
    data = fetch_chunks(store, part, end, {number}, None)
    return unpack(pq.ParquetFile(pa.BufferReader(data), metadata=end.metadata).read_row_groups([number]))


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """zstd, but for vectors; dictionaries where a value may come again, statistics where someone may look for a value."""
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    vectors = [field.name for field in schema if is_packed(field) or pa.types.is_fixed_size_list(field.type)]
    if not vectors:
        return {"compression": "zstd", "use_dictionary": texts}
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    leaves = pq.read_metadata(empty).schema
    paths = [leaves.column(number).path for number in range(len(leaves))]
    others = [path for path in paths if path.rpartition(".list.")[0] not in vectors and path not in vectors]
    compression = {path: "zstd" if path in others else "none" for path in paths}
    return {"compression": compression, "use_dictionary": texts, "write_statistics": others}


def read_part(
    store: Store, part: Part | str, columns: Sequence[str] | None = None, rows: tuple[int, int] | None = None
) -> pa.Table:
    """Read one Parquet object, whose bytes are checked against its seal and, of a Part, its commit.

    Of a large part only the row groups and columns that are asked for are fetched.

    Args:
        rows: (first, one past the last) of the rows to read, within the part; None: all.

    Raises:
        DamagedObject: missing, or not what was written. ArtifactError: there is no such column.
    """
    start, stop = rows or (0, sys.maxsize)
    if isinstance(part, str) or part.bytes <= WHOLE_BYTES or (columns is None and rows is None):
        data = pa.BufferReader(read_sealed(store, part)[0])
        file = pq.ParquetFile(data)
        _check_columns(store, part, file.schema_arrow, columns)
        return _selected(file.read(columns=columns), columns).slice(start, stop - start)
    end = fetch_end(store, part)
    _check_columns(store, part, end.metadata.schema.to_arrow_schema(), columns)
    borders = [0]
    for group in range(end.metadata.num_row_groups):
        borders.append(borders[-1] + end.metadata.row_group(group).num_rows)
    groups = [group for group in range(len(borders) - 1) if borders[group] < stop and borders[group + 1] > start]
    if not groups:
        return _selected(end.metadata.schema.to_arrow_schema().empty_table(), columns)
    file = pq.ParquetFile(pa.BufferReader(fetch_chunks(store, part, end, set(groups), columns)), metadata=end.metadata)
    table = _selected(file.read_row_groups(groups, columns=columns), columns)
    return table.slice(max(0, start - borders[groups[0]]), min(stop, borders[-1]) - max(start, borders[groups[0]]))


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return unpack(table if columns is None else table.select(list(columns)))


def _check_columns(store: Store, part: Part | str, schema: pa.Schema, columns: Sequence[str] | None) -> None:
    missing = [name for name in columns or () if name not in schema.names]
    if missing:
        raise ArtifactError(
            f"{store.url(part if isinstance(part, str) else part.path)} cannot be read as columns {list(columns or ())} "
            f"(it has no {missing[0]!r}); it was written by another version of hardmine: use another output or name"
        )


def read_sealed(store: Store, part: Part | str) -> tuple[bytes, str]:
    """(the bytes of a part, its digest), fetched once more where they were damaged on the way.

    Raises:
        DamagedObject: missing, or not what was written.
    """
    path, wanted, size = (part, "", None) if isinstance(part, str) else (part.path, part.sha256, part.bytes)
    for _ in range(2):
        try:
            data = store.read_bytes(path, size)
        except ArtifactError as error:
            raise DamagedObject.at(store.url(path), f"{error}; `hardmine run` makes it anew") from error
        digest = seal_of(data)
        if digest is not None and wanted in ("", digest):
            return data, digest
    raise not_as_written(store, path, other=digest is not None)


def left_parts(store: Store, wanted: Sequence[Part]) -> dict[str, Part]:
    """Those of `wanted` that an interrupted attempt left whole, by path; each is read and checked.

    A part that is damaged, or has another number of rows, is not among them: it is to be made again. Bytes and digests are
    filled in; those of `wanted` are not looked at.
    """
    listed: dict[str, int] = {}
    for folder in {part.path.rpartition("/")[0] for part in wanted}:
        listed |= store.list(folder)

    with ThreadPoolExecutor(TOGETHER) as pool:
        checked = pool.map(lambda part: left_part(store, part), [part for part in wanted if part.path in listed])
    return {part.path: part for part in checked if part is not None}


def left_part(store: Store, wanted: Part) -> Part | None:
    """As `left_parts`, of one part that is there; None: it is to be made again."""
    try:
        data, digest = read_sealed(store, wanted.path)
    except DamagedObject:
        return None
    same = pq.read_metadata(io.BytesIO(data)).num_rows == wanted.rows
    return replace(wanted, bytes=len(data), sha256=digest) if same else None


def read_schema(store: Store, part: Part) -> pa.Schema:
    """The columns of a part, and so of its table."""
    return unpack_schema(fetch_end(store, part).metadata.schema.to_arrow_schema())


def read_parts(store: Store, parts: Sequence[Part], columns: Sequence[str] | None = None) -> pa.Table:
    """The parts one after another as one table, several of them fetched at a time.

    Raises as `read_part`; ValueError: no parts.
    """
    if not parts:
        raise ValueError("expected at least one part, found none")
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        tables = list(pool.map(lambda part: read_part(store, part, columns), parts))
    return pa.concat_tables(tables, promote_options="permissive")


def stream_parts(
    store: Store, parts: Sequence[Part], columns: Sequence[str] | None = None, *, least: int = 4
) -> Iterator[tuple[Part, pa.Table]]:
    """The parts in their order, while the next ones are fetched: AHEAD_BYTES of them, `least` or more. Raises as `read_part`."""
    ahead = max(least, min(IN_FLIGHT, AHEAD_BYTES // max([1, *(part.bytes for part in parts)])))
    with ThreadPoolExecutor(ahead) as pool:
        coming: deque[tuple[Part, Future[pa.Table]]] = deque()
        for part in parts:
            coming.append((part, pool.submit(read_part, store, part, columns)))
            if len(coming) > ahead:
                first, table = coming.popleft()
                yield first, table.result()
        while coming:
            first, table = coming.popleft()
            yield first, table.result()


def vectors_to_column(vectors_ND: npt.NDArray[np.floating[Any]]) -> pa.FixedSizeListArray:
    """A 2-D array as a fixed-size list column (float32 stays float32, float16 stays float16)."""
    flat = pa.array(np.ascontiguousarray(vectors_ND).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])


def column_to_vectors(column: pa.ChunkedArray) -> F32:
    """A list column of equal lengths as a float32 [N, D] array. Raises ArtifactError: lengths differ."""
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = pa.concat_arrays(combined.chunks)
    flat = combined.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(combined.type) and not combined.null_count:
        width = int(combined.type.list_size)
    else:
        lengths = np.unique(combined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ArtifactError(f"expected vectors of one length, found lengths from {lengths[0]} to {lengths[-1]}")
        width = int(lengths[0]) if len(lengths) else 0
    return np.ascontiguousarray(flat.reshape(len(combined), width), dtype=np.float32)


def lists_to_csr(column: pa.ChunkedArray) -> tuple[I64, npt.NDArray[Any]]:
    """A list column as (offsets i64 [N+1], flat values); a null list counts as an empty one."""
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = pa.concat_arrays(combined.chunks)
    lengths = np.asarray(combined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    offsets = offsets_of(lengths)
    return offsets, combined.flatten().to_numpy(zero_copy_only=False)


def offsets_of(lengths: npt.NDArray[Any]) -> I64:
    """[N+1] where each of N lists of these lengths starts and the last one ends, laid end to end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def csr_to_lists(offsets: I64, values: npt.NDArray[Any] | pa.Array) -> pa.ListArray:
    """(offsets, flat values) as a list column."""
    flat = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def parts_between(parts: Sequence[Part], start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
    """The parts that hold rows start … stop - 1, each with the slice of it that does (from, to within the part)."""
    for part in parts:
        low, high = max(start, part.first_row), min(stop, part.first_row + part.rows)
        if low < high:
            yield part, low - part.first_row, high - part.first_row
