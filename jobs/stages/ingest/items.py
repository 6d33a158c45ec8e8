"""The items of a data set become the run's corpus, its codes and their ids in buckets: slices of the source, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, HardmineError
from cluster.session.spread import spread, spread_all
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, part_name
from cluster.tables.writer import PartWriter
from jobs.config.templates import Template
from jobs.stages.ingest.lookup.ids import BUCKET_IDS, StoredIds, write_buckets
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.slices import Slice, Sliced, counted, read_slice, slice_source
from jobs.stages.ingest.reading.texts import TextNotes
from jobs.stages.ingest.reading.values import as_texts, one_array
from jobs.stages.ingest.tables import Before, Written, refuse_no_rows, write_texts
from jobs.stages.ingest.texts import stable_code
from jobs.stages.ingest.writer import join_schemas, widen

PART_BYTES = 64 * 2**20
"""Size of a part of a large corpus, unpacked; a small one is cut into FEWEST_PARTS parts, of SMALLEST_PART bytes or more."""
SMALLEST_PART = 2**20
FEWEST_PARTS = 64


@dataclass(frozen=True)
class Items:
    """What was written of the items."""

    corpus: list[Part]
    codes: list[Part]
    ids: StoredIds
    columns: list[str]
    dimension: int | None
    notes: TextNotes
    places: list[tuple[str, int, int]]
    """(file, number there of the first row, rows) of consecutive rows."""
    seen: frozenset[str]
    """Columns of the source."""
    one_group: bool
    """All items are of one group."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Reading:
    """How items are read; what every task gets."""

    store: Store
    folder: str
    columns: dict[str, str]
    template: Template
    part_rows: int
    buckets: int


@dataclass(frozen=True)
class SliceItems:
    """What a task wrote of its slice."""

    corpus: list[Part]
    codes: list[Part]
    bucketed: Part
    columns: list[str]
    dimension: int | None
    notes: TextNotes
    places: list[tuple[str, int, int]]
    schema: pa.Schema
    seen: frozenset[str]
    groups: tuple[int, int]
    """Lowest and highest code."""


def read_items(
    urls: Sequence[str],
    storage: StorageSettings,
    store: Store,
    folder: str,
    *,
    columns: dict[str, str],
    template: Template,
    most_rows: int,
    retries: int,
) -> Items:
    """Check the items and write them below `folder`; ids are checked when they are looked up.

    Args:
        most_rows: rows of a part, at most.

    Raises:
        DataError: what is wrong with them, of all faults the first. ConfigError: the template names no column.
    """
    source = _joined([slice_source(url, storage) for url in urls])
    slices = source.slices
    if len(slices) > 1 and any(part.rows is None for part in slices):
        # where each one's rows and parts begin is known before it is read
        slices = spread_all(counted, [(part,) for part in slices], retries=retries)
    rows = [part.rows or 0 for part in slices]
    part_rows = rows_of_a_part(source.bytes, source.row_bytes, most_rows)
    total = sum(rows) or round(source.bytes / max(1.0, source.row_bytes))
    reading = Reading(store, folder, columns, template, part_rows, max(1, -(-total // BUCKET_IDS)))
    starts, parts = np.cumsum([0, *rows]).tolist(), np.cumsum([0, *(-(-count // part_rows) for count in rows)]).tolist()
    pieces = [
        (reading, number, part, Before(rows=starts[number], parts=parts[number]))
        for number, part in enumerate(slices)
        if part.rows != 0
    ]
    taken: list[SliceItems] = []
    known = Before()
    for piece, result in zip(pieces, spread(read_slice_items, pieces, retries=retries), strict=True):
        taken.append(_after(known, piece, result))
        known = _with(known, taken[-1])
    refuse_no_rows(sum(part.rows for each in taken for part in each.corpus), "items", ", ".join(urls))
    return _whole(reading, taken, known, retries)


def rows_of_a_part(size: int, row_bytes: float, most_rows: int) -> int:
    """Rows of a part of a corpus of this size: so that a large one has few objects, and a small one work for several actors."""
    part = min(PART_BYTES, max(SMALLEST_PART, size // FEWEST_PARTS))
    return min(most_rows, max(1, int(part / max(1.0, row_bytes))))


def read_slice_items(reading: Reading, number: int, part: Slice, before: Before) -> SliceItems:
    """Write the items of one slice. Raises as `write_texts`."""
    seen: set[str] = set()
    groups: list[I64] = []

    def of_items(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
        seen.update(chunk.table.column_names)
        groups.append(group_codes(table, chunk))
        return {}

    written = write_texts(
        read_slice(part),
        reading.store,
        f"{reading.folder}/corpus",
        what="items",
        columns=reading.columns,
        template=reading.template,
        part_rows=reading.part_rows,
        extra=of_items,
        before=before,
    )
    every = np.concatenate([np.zeros(0, np.int64), *groups])
    assert part.rows in (None, len(every)), f"{part.rows} rows were counted, {len(every)} were read"
    name = f"{reading.folder}/ids/{part_name(number)}"
    return SliceItems(
        written.parts,
        _write_codes(reading, written, every, before.rows),
        write_buckets(reading.store, name, written.ids, before.rows, reading.buckets),
        written.columns,
        written.dimension,
        written.notes,
        written.places,
        written.schema,
        frozenset(seen),
        (int(every.min(initial=2**62)), int(every.max(initial=-1))),
    )


def _write_codes(reading: Reading, written: Written, groups: I64, first_row: int) -> list[Part]:
    writer = PartWriter(reading.store)
    for part in written.parts:
        rows = slice(part.first_row - first_row, part.first_row - first_row + part.rows)
        ids = written.ids.slice(rows.start, part.rows).cast(pa.string())
        table = pa.table({"text_code": written.text_codes[rows], "group_code": groups[rows], "id": ids})
        writer.add(f"{reading.folder}/codes/{part.path.rsplit('/', 1)[-1]}", table, first_row=part.first_row)
    return writer.close()


def _joined(sources: Sequence[Sliced]) -> Sliced:
    size = sum(source.bytes for source in sources)
    return Sliced([part for source in sources for part in source.slices], size, max(source.row_bytes for source in sources))


def _after(known: Before, piece: tuple[Reading, int, Slice, Before], result: SliceItems | HardmineError) -> SliceItems:
    """What was read of a slice, if it fits what the slices before it hold. Else it is read again, knowing that: what is wrong
    only without the rows before, such as a column of the template that they have, is not wrong then, and the other way round."""
    if not known.columns:
        if isinstance(result, HardmineError):
            raise result
        return result
    if not isinstance(result, HardmineError) and result.dimension == known.dimension:
        try:
            _with(known, result)
            return result
        except DataError:
            pass  # said below, with the file
    reading, number, part, before = piece
    return read_slice_items(reading, number, part, replace(known, rows=before.rows, parts=before.parts))


def _with(known: Before, each: SliceItems) -> Before:
    """What is known after another slice. Raises DataError: a column changes its type."""
    schema = join_schemas(known.schema, each.schema, "")
    columns = tuple(dict.fromkeys([*known.columns, *each.columns]))
    return Before(columns=columns, dimension=each.dimension, schema=schema)


def _whole(reading: Reading, taken: Sequence[SliceItems], known: Before, retries: int) -> Items:
    notes = TextNotes()
    for each in taken:
        notes.add(each.notes)
    narrow = [part for each in taken for part in each.corpus if not each.schema.equals(known.schema)]
    widened = spread_all(widen, [(reading.store, part, known.schema) for part in narrow], retries=retries)
    wide = {part.path: part for part in widened}
    corpus = [wide.get(part.path, part) for each in taken for part in each.corpus]
    lowest, highest = min(each.groups[0] for each in taken), max(each.groups[1] for each in taken)
    return Items(
        corpus,
        [part for each in taken for part in each.codes],
        StoredIds(reading.store, corpus, [each.bucketed for each in taken], reading.buckets, retries),
        list(known.columns),
        known.dimension,
        notes,
        [place for each in taken for place in each.places],
        frozenset().union(*(each.seen for each in taken)),
        lowest == highest >= 0,
    )


def group_codes(table: pa.Table, chunk: Chunk) -> I64:
    """[N] the code of each item's group; -1: it has none. Raises DataError: a group is no text or number."""
    if "group" not in table.column_names:
        return np.full(table.num_rows, -1)
    if pa.types.is_nested(table["group"].type) or pa.types.is_binary(table["group"].type):
        raise DataError(
            f"{chunk.file}: column 'group' should hold one text or number per item, found "
            f"{table['group'].type}; rename it if it is something else"
        )
    values = as_texts(one_array(table["group"])).to_pylist()
    return np.array([stable_code(value) if value else -1 for value in values], np.int64)
