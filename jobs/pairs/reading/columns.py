"""Tables with the columns of a log as flat tables of our fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from jobs.pairs.reading.leaves import Shape, leaves_of, shape_of
from jobs.pairs.reading.notes import Notes
from jobs.pairs.reading.values import TYPES, canonical
from jobs.stages.ingest.reading.values import one_array


def shape_for(names: Sequence[str], mapped: Mapping[str, str], url: str) -> Shape:
    """The shape of a log with these columns. Raises DataError: it is none that is known; names the columns."""
    shape = shape_of(names, mapped)
    if shape is None:
        raise DataError(
            f"{url}: expected UBI queries (user_query) or events (action_name), answers (retrieved, cited), pairs (query, "
            f"item_id, score), retrieval_eval lines, or an event table, found the columns "
            f"{', '.join(names[:12]) or 'none'}; name yours "
            f'under [columns] of the --config file, for example query = "search_term", item = "product_id", action = "event"'
        )
    return shape


def flat_columns(table: pa.Table, url: str, mapped: Mapping[str, str], notes: Notes) -> tuple[Shape, pa.Table]:
    """A table of any columns as a flat one."""
    if "_source" in table.column_names and pa.types.is_struct(table["_source"].type):
        table = pa.Table.from_struct_array(table["_source"].combine_chunks())
    names = list(table.column_names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{url}: expected columns of different names, found {name!r} twice; rename one")
    return canonical_columns(shape_for(names, mapped, url), table, url, mapped, notes)


def canonical_columns(shape: Shape, table: pa.Table, url: str, mapped: Mapping[str, str], notes: Notes) -> tuple[Shape, pa.Table]:
    """(shape, a column for each of its fields); where a field may be in several places, the first one that has a value."""
    columns = {}
    for name, leaf in leaves_of(shape, mapped).items():
        arrays = [
            canonical(array, leaf.kind, f"{name} ({leaf.paths[0]})", url, notes.values)
            for path in leaf.paths
            if (array := _at(table, path)) is not None
        ]
        columns[name] = pc.coalesce(*arrays) if arrays else pa.nulls(table.num_rows, TYPES[leaf.kind])
    return shape, pa.table(columns)


def _at(table: pa.Table, path: str) -> pa.Array | None:
    if path in table.column_names:
        return one_array(table[path])
    first, *rest = path.split(".")
    if first not in table.column_names:
        return None
    values = one_array(table[first])
    for name in rest:
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        values = pc.struct_field(values, name)
    return values
