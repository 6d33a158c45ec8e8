"""A piece of a log as flat tables: a column for each field of its shape, in one form, whatever the file format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError, one_paragraph
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.pairs.reading.columns import flat_columns, shape_for
from jobs.pairs.reading.leaves import Shape, leaves_of
from jobs.pairs.reading.lines import line_tables
from jobs.pairs.reading.notes import Notes
from jobs.pairs.reading.sources import PARQUET, Piece, row_groups
from jobs.stages.ingest.reading.files import read_chunks

ROWS = 200_000
"""Rows of a Parquet file that are read at a time."""


def flat_tables(
    piece: Piece, mapped: Mapping[str, str], storage: StorageSettings, notes: Notes
) -> Iterator[tuple[Shape, pa.Table]]:
    """(shape, flat table) of a piece, block by block.

    Raises:
        DataError: the file is not what its name says, or is of no shape that is known; names file and what was found.
    """
    store = Store(piece.root, storage)
    if piece.name.endswith(PARQUET):
        yield from _parquet(store, piece, mapped, notes)
    elif ".csv" in piece.name or ".tsv" in piece.name:
        for chunk in read_chunks(piece.url, storage):
            notes.rows += chunk.table.num_rows
            yield flat_columns(chunk.table, piece.url, mapped, notes)
    else:
        yield from line_tables(store, piece, mapped, notes)


def _parquet(store: Store, piece: Piece, mapped: Mapping[str, str], notes: Notes) -> Iterator[tuple[Shape, pa.Table]]:
    try:
        with store.open(piece.name) as stream:
            file = pq.ParquetFile(stream)
            groups = row_groups(file, piece)
            names = file.schema_arrow.names
            shape = shape_for(names, mapped, piece.url)
            tops = {path.split(".")[0] for leaf in leaves_of(shape, mapped).values() for path in (*leaf.paths, leaf.paths[0])}
            wanted = [
                name for name in names if name in tops or any(name in leaf.paths for leaf in leaves_of(shape, mapped).values())
            ]
            for batch in file.iter_batches(ROWS, row_groups=list(groups), columns=wanted) if groups else ():
                notes.rows += batch.num_rows
                yield flat_columns(pa.Table.from_batches([batch]), piece.url, mapped, notes)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{piece.url} is not a readable Parquet file ({one_paragraph(str(error))[:200]}); it may be cut off or of another "
            f"kind: write it again, or take it out"
        ) from error
