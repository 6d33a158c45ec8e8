"""Some rows of a table that is cut into numbered parts, wherever they lie, with a few parts in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ArtifactError
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, IN_FLIGHT, Part, column_to_vectors, read_part, read_schema

LONGEST_BYTES = 2**31 - 2**20


def has_texts(store: Store, part: Part, column: str) -> bool:
    """Whether a part has a column of that name that holds texts."""
    schema = read_schema(store, part)
    return column in schema.names and (
        pa.types.is_string(schema.field(column).type) or pa.types.is_large_string(schema.field(column).type)
    )


def read_rows(store: Store, parts: Sequence[Part], rows: I64, columns: Sequence[str]) -> pa.Table:
    """The given rows, in their order; a row may be asked for more than once.

    Args:
        parts: a table whose parts say which rows they hold (`Part.first_row`).
        rows: [R] row numbers.

    Returns:
        A table of R rows. Memory: the distinct rows, and the row groups of IN_FLIGHT parts.

    Raises:
        ArtifactError: a row is in none of the parts.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    if not len(wanted):
        return read_part(store, parts[0], columns, (0, 0))
    held = [
        (part, here)
        for part in sorted(parts, key=lambda part: part.first_row)
        if len(here := _within(wanted, part.first_row, part.first_row + part.rows))
    ]
    count = sum(len(here) for _, here in held)
    if count != len(wanted):
        raise ArtifactError(
            f"expected rows up to {int(wanted[-1])} in the table below {store.url(parts[0].path)}, found "
            f"{count} of {len(wanted)} that were asked for; delete the commit of stage ingest and run again"
        )
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        tables = list(pool.map(lambda each: _take(store, each[0], each[1], columns), held))
    return long_texts(pa.concat_tables(tables, promote_options="permissive")).combine_chunks().take(pa.array(place))


def _within(rows: I64, start: int, stop: int) -> I64:
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]


def _take(store: Store, part: Part, rows: I64, columns: Sequence[str]) -> pa.Table:
    """Some rows of a part, of which only those between the first and the last are fetched."""
    first = int(rows[0]) - part.first_row
    table = read_part(store, part, columns, (first, int(rows[-1]) - part.first_row + 1))
    return table.take(pa.array(rows - part.first_row - first))


def long_texts(table: pa.Table) -> pa.Table:
    """The table; where a column of texts has 2 GiB or more, which is the most that Arrow's usual type holds, as large texts."""
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and table[field.name].nbytes >= LONGEST_BYTES:
            table = table.set_column(number, field.name, table[field.name].cast(pa.large_string()))
    return table


def cut(texts: pa.ChunkedArray, length: int) -> list[str]:
    """Texts with at most `length` characters; one that was longer ends in "…". A null is ""."""
    filled = pc.fill_null(pc.cast(texts, pa.string()), "")
    longer = pc.greater(pc.utf8_length(filled), length)
    short = pc.utf8_slice_codeunits(filled, 0, length - 1)
    result: list[str] = pc.if_else(longer, pc.binary_join_element_wise(short, "…", ""), filled).to_pylist()
    return result


LOOKUP_BYTES = 256 * 2**20
"""Text of items that one task holds, about."""


def rows_at_once(corpus: Sequence[Part]) -> int:
    """Items whose texts fit LOOKUP_BYTES, from the size of the corpus (compressed to about a quarter)."""
    rows = sum(part.rows for part in corpus)
    size = max(1, 4 * sum(part.bytes for part in corpus) // max(1, rows))
    fits = max(1, LOOKUP_BYTES // size)
    return 2**62 if fits >= rows else fits


def group_blocks(blocks: Sequence[Part], rows: int, items_per_query: int, tasks: int) -> list[list[int]]:
    """Consecutive blocks whose items are looked up together: at most about `rows` of them, in `tasks` groups or more."""
    most = -(-len(blocks) // tasks)
    groups: list[list[int]] = []
    size = 0
    for number, block in enumerate(blocks):
        size += block.rows * items_per_query
        if not groups or len(groups[-1]) >= most or size > rows:
            groups.append([])
            size = block.rows * items_per_query
        groups[-1].append(number)
    return groups


def load_vectors(store: Store, parts: Sequence[Part]) -> F32:
    """All vectors of an embedding table, float32 [N, D], in row order."""
    blocks = [column_to_vectors(read_part(store, part, ["vector"])["vector"]) for part in parts]
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
