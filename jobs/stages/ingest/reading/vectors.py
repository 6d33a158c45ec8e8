"""Checking the vectors that come with the user's items and queries."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import F32, lists_to_csr
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.reading.files import read_head
from jobs.stages.ingest.reading.values import id_column


def vectors_of(table: pa.Table, ids: pa.Array, chunk: Chunk, dimension: int | None) -> F32:
    """The column `vector` of a chunk.

    Args:
        ids: of its rows, for messages. dimension: length of the vectors in the rows before; None: this is the first.

    Returns:
        float32 [N, D], each with a direction.

    Raises:
        DataError: the column holds no lists of numbers, or a vector has another length, is all zero, or not finite.
    """
    column = table["vector"]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(column, ids, chunk)
    if not (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ) or not _is_number(column.type.value_type):
        raise DataError(
            f"{chunk.file}: column 'vector' should hold lists of numbers, found {column.type}; write it so, or "
            f"rename it if it is something else"
        )
    offsets, flat = lists_to_csr(column.cast(pa.list_(pa.float32())))
    lengths = np.diff(offsets)
    wanted = dimension or int(lengths[0])
    wrong = np.flatnonzero((lengths != wanted) | (lengths == 0))
    if len(wrong):
        like = f"{wanted} numbers as in the first row" if wanted else "at least one number"
        raise DataError(
            f"{chunk.where(wrong[0], ids)}: expected a vector of {like}, found {int(lengths[wrong[0]])}; "
            f"{len(wrong)} row(s) of this chunk differ. Make all vectors with one model"
        )
    vectors = np.ascontiguousarray(flat.reshape(-1, wanted), np.float32)
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    bad = np.flatnonzero(~finite | ~vectors.any(axis=1))
    if len(bad):
        fault = "is all zero" if finite[bad[0]] else "holds NaN or infinity"
        raise DataError(
            f"{chunk.where(bad[0], ids)}: expected a vector with a direction, found one that {fault}; {len(bad)} "
            f"row(s) of this chunk have such. Make these vectors anew"
        )
    return vectors


def dimension_of(table: pa.Table, chunk: Chunk) -> int | None:
    """Length of the vectors of some rows with our column names; None: they have none. Raises DataError as `vectors_of`."""
    if "vector" not in table.column_names or table["vector"].null_count == table.num_rows:
        return None
    return int(vectors_of(table, id_column(table, "id", chunk), chunk, None).shape[1])


def first_dimension(url: str, storage: StorageSettings, columns: dict[str, str], what: str) -> int | None:
    """Length of the vectors in the first rows of a source of "items" or "queries"; None: they have none.

    Raises:
        DataError: as `vectors_of`, or an id is missing.
    """
    head = read_head(url, storage)
    return None if head is None else dimension_of(rename(head, columns, ["id"], what), head)


def refuse_other_vectors(of_items: int | None, of_queries: int | None) -> None:
    """Raises DataError: items and queries have vectors of different lengths, or only one of them has any."""
    if of_items != of_queries:
        raise DataError(
            f"the corpus has {_described(of_items)}, the queries have {_described(of_queries)}: "
            f"both need a `vector` column of one length, or neither; make the vectors with one model"
        )


def _described(dimension: int | None) -> str:
    return "no vectors" if dimension is None else f"vectors of {dimension} numbers"


def _parsed(column: pa.ChunkedArray, ids: pa.Array, chunk: Chunk) -> pa.ChunkedArray:
    """Vectors that are texts, as in a CSV file: JSON lists of numbers."""
    vectors = []
    for row, text in enumerate(column.to_pylist()):
        try:
            vector = json.loads(text or "")
            if not isinstance(vector, list):
                raise ValueError("no list")
            vectors.append(pa.array(vector, pa.float32()))
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise DataError(
                f"{chunk.where(row, ids)}: expected a vector as a JSON list of numbers, like [0.1, -0.2], found {text!r:.60}; "
                f"write it so, or write the table as Parquet"
            ) from error
    offsets = np.cumsum([0, *map(len, vectors)])
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.concat_arrays(vectors))])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))
