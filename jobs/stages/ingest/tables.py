"""Checking the user's items and queries and writing them as the run's own tables: runs in a worker, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, vectors_to_column
from jobs.config.templates import Template
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.reading.texts import TextNotes
from jobs.stages.ingest.reading.values import id_column
from jobs.stages.ingest.reading.vectors import vectors_of
from jobs.stages.ingest.texts import render, text_codes
from jobs.stages.ingest.writer import TableWriter


@dataclass(frozen=True)
class Before:
    """What is known from the rows before those that are read."""

    rows: int = 0
    parts: int = 0
    columns: tuple[str, ...] = ()
    """None: these rows are the first, or they are read without knowing what the others hold."""
    dimension: int | None = None
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))


@dataclass
class Written:
    """One table of the run, or consecutive rows of one."""

    parts: list[Part]
    ids: pa.Array
    """Ids in row order, large_string."""
    columns: list[str]
    text_codes: I64
    dimension: int | None
    """Length of the `vector` column; None: there is none."""
    notes: TextNotes
    """What is unusual about the texts."""
    places: list[tuple[str, int, int]]
    """(file, number there of the first row, rows) of consecutive rows."""
    schema: pa.Schema


def write_texts(
    chunks: Iterator[Chunk],
    store: Store,
    folder: str,
    *,
    what: str,
    columns: dict[str, str],
    template: Template,
    part_rows: int,
    extra: Callable[[pa.Table, Chunk], dict[str, pa.Array]],
    needs_text: bool = True,
    before: Before | None = None,
) -> Written:
    """Check a table of texts (items or queries) and write it as numbered parts.

    Args:
        what: "items" or "queries", for messages.
        extra: own columns computed from a chunk.
        before: of the rows of the table before these; None: these are the first.
        needs_text: False: a text may be empty, and the template's columns may be missing altogether.

    Raises:
        DataError: an id is missing, a text is empty, or a vector is wrong.
    """
    before = before or Before()
    writer = TableWriter(store, folder, part_rows, first=(before.parts, before.rows), schema=before.schema)
    checked = _Checked(what, columns, template, needs_text, before)
    for chunk in chunks:
        if chunk.table.num_rows:
            writer.add(checked.take(chunk, extra), chunk.file)
    return Written(
        writer.close(),
        pa.concat_arrays([pa.array([], pa.large_string()), *checked.ids]),
        list(checked.columns_seen),
        np.concatenate([np.zeros(0, np.int64), *checked.codes]),
        checked.dimension,
        checked.notes,
        checked.places,
        writer.schema,
    )


def refuse_no_rows(rows: int, what: str, source: str) -> None:
    """Raises DataError: there is no row at all."""
    if not rows:
        raise DataError(f"expected at least one row in the table of {what}, found none in {source}; check the address in [data]")


class _Checked:
    """What is known of a table while its chunks pass."""

    def __init__(self, what: str, columns: dict[str, str], template: Template, needs_text: bool, before: Before) -> None:
        self._what, self._columns, self._template, self._needs_text = what, columns, template, needs_text
        self._first, self._rows = not before.columns, before.rows
        self.ids: list[pa.Array] = []
        self.codes: list[I64] = []
        self.places: list[tuple[str, int, int]] = []
        self.columns_seen = dict.fromkeys(before.columns)
        self.dimension = before.dimension
        self.notes = TextNotes()

    def take(self, chunk: Chunk, extra: Callable[[pa.Table, Chunk], dict[str, pa.Array]]) -> pa.Table:
        """The chunk as rows of our table."""
        table = rename(chunk, self._columns, ["id"], self._what)
        if self._needs_text:
            self._template.check(dict.fromkeys([*table.column_names, *self.columns_seen]), chunk.file)
        ids = id_column(table, "id", chunk)
        texts = self.notes.take(render(table, self._template, chunk), ids)
        if self._needs_text:
            self._refuse_empty(texts, ids, chunk)
        codes = text_codes(texts)
        own = {"row": pa.array(np.arange(len(texts), dtype=np.int64) + self._rows), "id": ids, "text": texts} | extra(
            table, chunk
        )
        if "vector" in table.column_names and table["vector"].null_count < table.num_rows:
            vectors = vectors_of(table, ids, chunk, self.dimension)
            own["vector"] = vectors_to_column(vectors)
        self._refuse_half_vectors("vector" in own, chunk)
        self.dimension = vectors.shape[1] if "vector" in own else None
        kept = {name: table[name] for name in table.column_names if name not in own and name != "vector"}
        self.columns_seen.update(dict.fromkeys([*own, *kept]))
        self.ids.append(ids.cast(pa.large_string()))
        self._first = False
        self.codes.append(codes)
        self.places.append((chunk.file, chunk.first_row, len(texts)))
        self._rows += len(texts)
        return pa.table(own | kept)

    def _refuse_half_vectors(self, has: bool, chunk: Chunk) -> None:
        if not self._first and has != (self.dimension is not None):
            raise DataError(
                f"{chunk.file}, from row {chunk.first_row}: expected {'no ' if has else ''}vectors as in the rows "
                f"before, found {'some' if has else 'none'}; all {self._what} need a vector, or none"
            )

    def _refuse_empty(self, texts: pa.Array, ids: pa.Array, chunk: Chunk) -> None:
        empty = np.flatnonzero(pc.equal(texts, "").to_numpy(zero_copy_only=False))
        if len(empty):
            raise DataError(
                f"{chunk.where(empty[0], ids)}: the text is empty; {len(empty)} of {len(texts)} {self._what} in "
                f"this chunk have none. Leave them out, or name more columns in the text template of [data]"
            )


def refuse_repeated(ids: pa.Array, places: list[tuple[str, int, int]], what: str) -> None:
    """Raises DataError: an id occurs more than once."""
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        name = repeated[0]["values"]
        rows = np.flatnonzero(pc.equal(ids, name).to_numpy(zero_copy_only=False))[:2]
        raise repeated_error(len(repeated), name.as_py(), rows, places, what)


def repeated_error(count: int, name: str, rows: I64, places: list[tuple[str, int, int]], what: str) -> DataError:
    """Says where an id occurs for the first and second time, and how many do."""
    where = " and ".join(place_of(int(row), places) for row in rows)
    return DataError(
        f"{count} id(s) of {what} occur more than once: {name!r} at {where}; ids must be unique, so "
        f"remove or rename the repeated rows"
    )


def place_of(row: int, places: list[tuple[str, int, int]]) -> str:
    """File and number in it of a row of the table."""
    for file, first, count in places:
        if row < count:
            return f"{file} row {first + row}"
        row -= count
    return "an unknown row"
