"""The tables a run keeps in storage, and how their parts are read and written.

Queries and items are numbered by their position in the user's tables; that number is their *row*. Strings travel
only where a person reads them.

    corpus/part-*       row i64, id str, text str, text_code i64, group_code i64, + the user's metadata (+ vector)
    corpus-tokens/…     row i64, tokens list<i32>
    queries/part-*      row i64, id str, text str, split str, text_code i64 (-1: it is a history), item_row i64 (-1: none),
                        + metadata (+ vector)
    labels/part-*       query_row i64, item_row i64, score f64 (the grade of a relevant item; 0: judged irrelevant; -1: no
                        judgement, but no negative), gain f64 (the grade for NDCG, also below data.relevant_from), weight f64,
                        source str (sorted by query_row, item_row; queries with one text in one split have the same labels)
    embeddings/…        row i64, vector fixed_size_list<float>[D] (L2-normalised)
    hits/part-*         query_row i64, item_rows list<i64>, scores list<float>, label_rows list<i64>,
                        label_scores list<float> (every judged item of the query), excluded i32 (known positives that
                        would have been hits); where more pairs were scored: also_rows list<i64>, also_scores list<float>
    near/part-*         item_row i64, near_rows list<i64> (its near-duplicates, nearest first)
    scores/part-*       query_row i64, item_rows list<i64>, teacher_scores list<float>
    negatives/part-*    query_row i64, query_id str, positive_ids list<str>, positive_rows list<i64>,
                        positive_scores list<float>, negative_rows list<i64>, negatives list<struct<item_id str,
                        score float, position i64, source str, teacher_score float (null: not read), round i32>>
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, DamagedObject, one_paragraph
from cluster.storage.digests import seal, seal_of
from cluster.storage.store import Store

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
TOGETHER = 8
"""Parts that are checked at the same time where an interrupted attempt left some."""


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


def parts_from_json(values: Sequence[dict[str, Any]]) -> list[Part]:
    """The parts a commit lists."""
    return [Part(**value) for value in values]


def part_name(index: int) -> str:
    """File name of part `index`, sorting like the number."""
    return f"part-{index:05d}.parquet"


def write_part(store: Store, path: str, table: pa.Table, *, first_row: int = 0) -> Part:
    """Write `table` as one sealed Parquet object in one PUT: zstd, but for vectors, which it cannot shrink and reads slower."""
    sink = io.BytesIO()
    vectors = any(map(pa.types.is_fixed_size_list, table.schema.types)) and not any(map(pa.types.is_string, table.schema.types))
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, sink, **(plain if vectors else {"compression": "zstd"}))
    data, digest = seal(sink.getvalue())
    store.write_bytes(path, data)
    return Part(path, table.num_rows, len(data), first_row, digest)


def read_part(store: Store, part: Part | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet object, only `columns`, after its bytes were checked against its seal and, of a Part, its commit.

    Raises:
        DamagedObject: missing, or not what was written. ArtifactError: there is no such column.
    """
    data = read_sealed(store, part)[0]
    try:
        return pq.read_table(io.BytesIO(data), columns=list(columns) if columns is not None else None)
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
        path = part if isinstance(part, str) else part.path
        raise ArtifactError(
            f"{store.url(path)} cannot be read as columns {list(columns or ())} ({one_paragraph(str(error))}); it was "
            f"written by another version of hardmine: use another output or name"
        ) from error


def read_sealed(store: Store, part: Part | str) -> tuple[bytes, str]:
    """(the bytes of a part, its digest), fetched once more where they were damaged on the way.

    Raises:
        DamagedObject: missing, or not what was written.
    """
    path, wanted = (part, "") if isinstance(part, str) else (part.path, part.sha256)
    for _ in range(2):
        try:
            data = store.read_bytes(path)
        except ArtifactError as error:
            raise DamagedObject.at(store.url(path), f"{error}; `hardmine run` makes it anew") from error
        digest = seal_of(data)
        if digest is not None and wanted in ("", digest):
            return data, digest
    what = "is not the one that its commit lists" if digest else "was changed or damaged after hardmine wrote it"
    raise DamagedObject.at(
        store.url(path),
        f"{store.url(path)} {what} (its SHA-256 differs, read twice) and is not used; `hardmine run` makes it anew",
    )


def left_parts(store: Store, wanted: Sequence[Part]) -> dict[str, Part]:
    """Those of `wanted` that an interrupted attempt left whole, by path; each is read and checked.

    A part that is damaged, or has another number of rows, is not among them: it is to be made again. Bytes and digests are
    filled in; those of `wanted` are not looked at.
    """
    listed: dict[str, int] = {}
    for folder in {part.path.rpartition("/")[0] for part in wanted}:
        listed |= store.list(folder)

    def check(part: Part) -> Part | None:
        try:
            data, digest = read_sealed(store, part.path)
        except DamagedObject:
            return None
        same = pq.read_metadata(io.BytesIO(data)).num_rows == part.rows
        return replace(part, bytes=len(data), sha256=digest) if same else None

    with ThreadPoolExecutor(TOGETHER) as pool:
        checked = pool.map(check, [part for part in wanted if part.path in listed])
    return {part.path: part for part in checked if part is not None}


def read_schema(store: Store, part: Part) -> pa.Schema:
    """The columns of a part, and so of its table."""
    return pq.read_schema(io.BytesIO(read_sealed(store, part)[0]))


def read_parts(store: Store, parts: Sequence[Part], columns: Sequence[str] | None = None) -> pa.Table:
    """The parts one after another as one table. Raises as `read_part`; ValueError: no parts."""
    if not parts:
        raise ValueError("expected at least one part, found none")
    return pa.concat_tables([read_part(store, part, columns) for part in parts], promote_options="permissive")


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


def load_vectors(store: Store, parts: Sequence[Part]) -> F32:
    """All vectors of an embedding table, float32 [N, D], in row order."""
    blocks = [column_to_vectors(read_part(store, part, ["vector"])["vector"]) for part in parts]
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def parts_between(parts: Sequence[Part], start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
    """The parts that hold rows start … stop - 1, each with the slice of it that does (from, to within the part)."""
    for part in parts:
        low, high = max(start, part.first_row), min(stop, part.first_row + part.rows)
        if low < high:
            yield part, low - part.first_row, high - part.first_row
