"""Which columns of the data the evaluated queries are sliced by, and which query has which value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.errors import ConfigError
from cluster.labels.labels import gather_csr
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, read_schema
from eval.metrics import Bool
from eval.slices import Membership, cut_into_ranges
from mining.choice.attributes import holds_lists
from mining.report.confusion import Values

MOST_VALUES = 50
"""A column with more values is sliced only if it is named, by those that most queries have."""
MOST_NUMBERS = 12
"""A column of more different numbers is cut into ranges."""
OF_ITEMS = frozenset({"row", "id", "text", "title", "text_code", "group_code", "vector"})
OF_QUERIES = frozenset({"row", "id", "text", "split", "text_code", "item_row", "item_id", "history", "history_rows", "vector"})
"""Columns that are no metadata."""
SEEN = "seen_in_training"
"""The slices of queries with a relevant item that is one of a training query, too, and with one that is not: a gain on the former
alone is memory of items."""


@dataclass(frozen=True, eq=False)
class Column:
    """A column that queries can be sliced by."""

    table: str
    """queries, items (a query has the values of its relevant items) or labels (the values of its relevant labels)."""
    name: str
    plain: bool
    """It holds texts or yes/no, or lists of them: sliced without being asked for."""
    number: bool


@dataclass(frozen=True, eq=False)
class Relevant:
    """The relevant labels of the evaluated queries."""

    query: I64
    """[L] 0 … Q − 1, ascending."""
    item: I64
    """[L] item row."""
    source: pa.ChunkedArray
    """[L] text, or null."""
    trained: Bool
    """[L] whether the item, or one with its text, is relevant to a training query, too."""
    score: F32
    """[L] cosine; NaN: it was not computed."""


def columns_of(queries: pa.Schema, items: pa.Schema) -> dict[str, Column]:
    """Every name that evaluation.slices may give; an item's column that queries have too is "item.NAME"."""
    found = {field.name: _column("queries", field) for field in queries if field.name not in OF_QUERIES}
    for field in items:
        if field.name not in OF_ITEMS:
            found[f"item.{field.name}" if field.name in found else field.name] = _column("items", field)
    for name in ("source", SEEN):
        found[f"label.{name}" if name in found else name] = Column("labels", name, plain=True, number=False)
    return {name: column for name, column in found.items() if column is not None}


def _column(table: str, field: pa.Field) -> Column | None:
    kind = field.type.value_type if holds_lists(field.type) else field.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_null(kind):
        return None
    texts: list[Callable[[pa.DataType], bool]] = [pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean]
    number = field.type == kind and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
    return Column(table, field.name, plain=any(test(kind) for test in texts), number=number)


def check_slices(names: Sequence[str] | None, queries: pa.Schema, items: pa.Schema) -> None:
    """Raises ConfigError: evaluation.slices names no column of queries, items or labels that holds values."""
    known = columns_of(queries, items)
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"evaluation.slices: expected columns of the queries or items that hold texts, numbers or lists "
                f"of them, found {name!r}; there are {', '.join(known)}"
            )


def memberships(
    store: Store,
    queries: Sequence[Part],
    items: Sequence[Part],
    query_rows: I64,
    relevant: Relevant,
    wanted: Sequence[str] | None,
) -> dict[str, Membership]:
    """Which evaluated query has which values.

    Args:
        query_rows: [Q] ascending.
        wanted: names of `columns_of`; None: those of texts or yes/no with 2 to 50 values.

    Returns:
        Memory: the wanted columns of the queries and of their relevant items.
    """
    known = columns_of(read_schema(store, queries[0]), read_schema(store, items[0]))
    names = [name for name, column in known.items() if column.plain] if wanted is None else list(dict.fromkeys(wanted))
    rows, place = np.unique(relevant.item, return_inverse=True)
    everyone = np.arange(len(query_rows))
    tables = {"labels": pa.table({"source": relevant.source, SEEN: relevant.trained})}
    for table, parts, chosen in (("queries", queries, query_rows), ("items", items, rows)):
        columns = [known[name].name for name in names if known[name].table == table]
        if columns:
            tables[table] = read_rows(store, parts, chosen, columns)
    owners = {
        "queries": (everyone, everyone),
        "items": (relevant.query, place),
        "labels": (relevant.query, np.arange(len(relevant.query))),
    }
    found = {
        name: _membership(known[name], tables[known[name].table][known[name].name], *owners[known[name].table]) for name in names
    }
    if wanted is not None:
        return found
    return {name: membership for name, membership in found.items() if 2 <= len(membership.names) <= MOST_VALUES}


def _membership(column: Column, values: pa.ChunkedArray, query: I64, row: I64) -> Membership:
    """Args: query, row: pairs of a query's place and a row of `values` that it has."""
    coded = Values.from_column(values)
    if column.number and len(coded.names) > MOST_NUMBERS:
        names, code = cut_into_ranges(values.cast(pa.float64()).fill_null(np.nan).to_numpy()[row])
        return Membership(names, query[code >= 0], code[code >= 0])
    pair, index = gather_csr(coded.offsets, row)
    return Membership(coded.names, query[pair], coded.codes[index].astype(np.int64))
