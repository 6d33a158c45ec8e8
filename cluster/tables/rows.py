"""Some rows of a table that is cut into numbered parts, wherever they lie, with one part in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ArtifactError
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, read_part, read_schema


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
        A table of R rows. Memory: the distinct rows, and one part.

    Raises:
        ArtifactError: a row is in none of the parts.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    if not len(wanted):
        return read_part(store, parts[0], columns).slice(0, 0)
    found, count = [], 0
    for part in sorted(parts, key=lambda part: part.first_row):
        here = wanted[np.searchsorted(wanted, part.first_row) : np.searchsorted(wanted, part.first_row + part.rows)]
        if len(here):
            found.append(read_part(store, part, columns).take(pa.array(here - part.first_row)))
            count += len(here)
    if count != len(wanted):
        raise ArtifactError(
            f"expected rows up to {int(wanted[-1])} in the table below {store.url(parts[0].path)}, found "
            f"{count} of {len(wanted)} that were asked for; delete the commit of stage ingest and run again"
        )
    return pa.concat_tables(found, promote_options="permissive").combine_chunks().take(pa.array(place))


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
