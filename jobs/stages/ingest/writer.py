"""Writing rows that come chunk by chunk as the numbered parts of one table of the run."""

from __future__ import annotations

import pyarrow as pa

from cluster.errors import DataError, one_paragraph
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, read_part, write_part
from cluster.tables.writer import PartWriter


class TableWriter:
    """Writes rows as numbered parts of equal size; in the end all parts have the same columns."""

    def __init__(
        self, store: Store, folder: str, part_rows: int, *, first: tuple[int, int] = (0, 0), schema: pa.Schema | None = None
    ) -> None:
        """Args: first: numbers of the first part and of its first row. schema: of the rows before them."""
        self._store, self._folder, self._part_rows = store, folder, part_rows
        self._pending: list[pa.Table] = []
        self._number, self._rows = first
        self._schema = schema or pa.schema([])
        self._schemas: list[pa.Schema] = []
        self._writer = PartWriter(store)

    def add(self, table: pa.Table, source: str = "the data") -> None:
        """Append rows from `source`; writes every part that is full. Raises DataError: a column changes its type."""
        self._schema = join_schemas(self._schema, table.schema, source)
        self._pending.append(table)
        while sum(piece.num_rows for piece in self._pending) >= self._part_rows:
            joined = pa.concat_tables(self._pending, promote_options="permissive")
            self._write(joined.slice(0, self._part_rows))
            self._pending = [joined.slice(self._part_rows)]

    def close(self) -> list[Part]:
        """Write what is left; returns all parts."""
        left = pa.concat_tables(self._pending, promote_options="permissive") if self._pending else None
        if left is not None and left.num_rows:
            self._write(left)
        self._pending = []
        parts = self._writer.close()
        for index, schema in enumerate(self._schemas):
            if not schema.equals(self._schema):  # rows before the first with this column, or with values in it
                parts[index] = widen(self._store, parts[index], self._schema)
        return parts

    @property
    def schema(self) -> pa.Schema:
        """The columns of all parts, once they are closed."""
        return self._schema

    def _write(self, table: pa.Table) -> None:
        path = f"{self._folder}/{part_name(self._number + len(self._writer))}"
        self._writer.add(path, table.combine_chunks(), first_row=self._rows)
        self._schemas.append(table.schema)
        self._rows += table.num_rows


def widen(store: Store, part: Part, schema: pa.Schema) -> Part:
    """The part, written again with the columns of `schema`."""
    written = read_part(store, part.path)  # without its digest: a task that died may have widened it
    table = pa.concat_tables([schema.empty_table(), written], promote_options="permissive")
    return write_part(store, part.path, table.combine_chunks(), first_row=part.first_row)


def join_schemas(known: pa.Schema, new: pa.Schema, source: str) -> pa.Schema:
    """The columns of both. Raises DataError: a column changes its type."""
    try:
        return pa.unify_schemas([known, new], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        for name in known.names:
            if name in new.names and known.field(name).type != new.field(name).type:
                raise DataError(
                    f"{source}: expected {known.field(name).type} in the column {name!r} as in the rows "
                    f"before, found {new.field(name).type}; give the column one type in all files"
                ) from error
        raise DataError(f"{source}: its columns do not fit those before ({one_paragraph(str(error))})") from error
