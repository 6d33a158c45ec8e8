"""The user's column names, and ours."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cluster.errors import ConfigError, DataError
from jobs.stages.ingest.reading.chunk import Chunk

OWN = ("row", "text_code", "group_code", "item_row", "history_rows")
KNOWN = {
    "items": ("id", "title", "text", "group", "vector"),
    "queries": ("id", "text", "split", "item_id", "history", "vector"),
    "labels": ("query_id", "item_id", "score", "weight", "source", "split"),
}
"""Table -> columns that mean something."""
USUAL = (("_id", "id"), ("query-id", "query_id"), ("corpus-id", "item_id"))
"""Names of other tools that are understood without data.columns."""
ID_OF = {"items": "item_id", "queries": "query_id"}
"""What the labels call the id of a table; the table's own id may have that name as well."""


def rename(chunk: Chunk, columns: dict[str, str], needed: Sequence[str], what: str) -> pa.Table:
    """The chunk with our column names.

    Raises:
        DataError: a needed column is missing (names those that are there), or a name occurs twice.
        ConfigError: `columns` gives a column two meanings.
    """
    table = chunk.table
    there = list(table.column_names)
    twice = [name for name in there if there.count(name) > 1]
    if twice:
        raise DataError(
            f"{chunk.file}: expected columns of different names, found {twice[0]!r} {there.count(twice[0])} times; rename them"
        )
    names = list(there)
    for ours, theirs in _meanings(columns, there, needed, what).items():
        if ours in names and ours != theirs:
            names[names.index(ours)] = _free(f"{ours}_", names)
        names[there.index(theirs)] = ours
    for old, new in USUAL:
        if old in names and new not in names:
            names[names.index(old)] = new
    if "id" not in names and (own_id := ID_OF.get(what)) in names:
        names[names.index(own_id)] = "id"
    names = [_free(f"{name}_", names) if name in OWN else name for name in names]
    alike = {name.strip().lower(): name for name in names}
    for name in KNOWN[what]:
        if name not in names and name in alike:
            raise DataError(
                f"{chunk.file}: the column {alike[name]!r} is {name!r} in another spelling, and would be ignored; say "
                f'data.columns = {{ {name} = "{alike[name]}" }}, or rename it if it is something else'
            )
    missing = [name for name in needed if name not in names]
    if missing:
        advice = (
            f"data.columns says it is called {columns[missing[0]]!r}: correct that"
            if missing[0] in columns
            else (f'if it has another name, say data.columns = {{ {missing[0]} = "its name" }}')
        )
        raise DataError(f"{chunk.file}: {what} need the column {missing[0]!r}; found {', '.join(there)}; {advice}")
    return table.rename_columns(names)


def _meanings(columns: dict[str, str], there: Sequence[str], needed: Sequence[str], what: str) -> dict[str, str]:
    """Our name -> the table's. `columns` may be about another one: `id` is "asin" in the corpus, `item_id` in the labels."""
    alike = [*reversed(USUAL), *((name, name) for name in KNOWN[what])]
    meanings = {ours: theirs for theirs, ours in alike if theirs in there and ours in KNOWN[what] and ours not in columns}
    for ours, theirs in sorted(columns.items(), key=lambda pair: pair[0] not in needed):
        other = next((name for name, value in meanings.items() if value == theirs), None)
        if theirs not in there or (other is not None and _is_of_another_table(ours, other, what)):
            continue
        if other is not None:
            as_metadata = ours not in KNOWN[what] and other not in needed  # says that the column is no `group`, say
            if other in columns or not (as_metadata or {ours, other} == {"title", "text"}):
                raise ConfigError(
                    f"data.columns: expected one meaning for each column, found {theirs!r} as both {other!r} and {ours!r} of the "
                    f"{what}; take {'one of them' if other in columns else repr(ours)} out, or give it a column of its own"
                )
            del meanings[other]
        meanings[ours] = theirs
    return meanings


def _is_of_another_table(ours: str, other: str, what: str) -> bool:
    """Whether a column that is `other` in this table may be `ours` in another one."""
    if ours in KNOWN[what]:
        return (what, ours, other) == ("queries", "item_id", "id")
    return what == "labels" or any(ours in names for names in KNOWN.values())


def _free(name: str, names: Sequence[str]) -> str:
    return name if name not in names else _free(f"{name}_", names)
