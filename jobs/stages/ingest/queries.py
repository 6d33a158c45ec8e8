"""The queries of a data set: read and checked, their items looked up with those of the labels, and written with their splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, csr_to_lists, read_part, write_part
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.config.templates import Template
from jobs.stages.ingest.histories import Histories
from jobs.stages.ingest.items import Items
from jobs.stages.ingest.labels import LabelRows, NamedLabels, split_column
from jobs.stages.ingest.lookup.equal_texts import EqualTexts
from jobs.stages.ingest.lookup.ids import Ids, StoredIds
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.values import id_column, id_hint
from jobs.stages.ingest.tables import Written, refuse_no_rows, refuse_repeated, write_texts


@dataclass(frozen=True)
class Queries:
    """The queries as they were read."""

    written: Written
    ids: Ids
    splits: list[str | None]
    item_ids: list[tuple[Chunk, pa.Array]]
    """Of each chunk (without its rows): the item that each query says it is, null: none."""
    histories: Histories | None
    """What a query is, instead of its text; None: it is its text."""


@dataclass(frozen=True)
class Found:
    """What the ids of queries and labels stand for."""

    labels: LabelRows
    own_items: I64
    """[Q] the item that the query says it is; -1: it says none."""
    of_their_id: I64 | None
    """[Q] the item with the query's id; -1: there is none. None: queries are histories."""
    histories: tuple[I64, I64] | None
    """(offsets [Q+1], item rows)."""


def read_queries(
    config: Config, data: DatasetSettings, chunks: Iterator[Chunk], store: Store, folder: str, source: str
) -> Queries:
    """Check the queries and write them as parts, without what is known only when all tables are read.

    Args:
        source: where they are from, for messages.

    Raises:
        DataError: as `write_texts`; an id is repeated, a history is empty, or there is no query.
    """
    histories = Histories() if config.encoder.kind == "sequence" else None
    splits, item_ids = list[str | None](), list[tuple[Chunk, pa.Array]]()

    def of_queries(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
        splits.extend(split_column(table, chunk))
        item_ids.append((replace(chunk, table=table.schema.empty_table()), _item_ids(table, chunk)))
        if histories is not None:
            histories.take(table, chunk)
        return {}

    written = write_texts(
        chunks,
        store,
        folder,
        what="queries",
        columns=data.columns,
        template=Template(data.query_text, "data.query_text"),
        part_rows=config.cluster.part_rows,
        extra=of_queries,
        needs_text=histories is None,
    )
    refuse_no_rows(len(written.ids), "queries", source)
    refuse_repeated(written.ids, written.places, "queries")
    return Queries(written, Ids(written.ids), splits, item_ids, histories)


def _item_ids(table: pa.Table, chunk: Chunk) -> pa.Array:
    if "item_id" not in table.column_names:
        return pa.nulls(table.num_rows, pa.large_string())
    if pa.types.is_nested(table["item_id"].type):
        raise DataError(
            f"{chunk.file}: column 'item_id' should hold the one item that the query is, found "
            f"{table['item_id'].type}; relevant items belong into the labels"
        )
    return id_column(table, "item_id", chunk, optional=True).cast(pa.large_string())


def look_up(items: Items, queries: Queries, named: NamedLabels) -> Found:
    """The rows of all items that queries and labels name, in one pass over the items' ids.

    Raises:
        DataError: an item's id is repeated, or a query, a history or a label names what is not there.
    """
    own = pa.concat_arrays([ids for _, ids in queries.item_ids])
    of_labels = pa.concat_arrays([ids.cast(pa.large_string()) for ids in named.item_ids])
    alike = pa.array([], pa.large_string()) if queries.histories else queries.written.ids
    met = queries.histories.wanted if queries.histories else pa.array([], pa.large_string())
    own_rows, label_rows, same_id, met_rows = items.ids.look_up([own, of_labels, alike, met], items.places)
    _refuse_unknown_items(queries, own_rows, items.ids)
    histories = queries.histories.rows(met, met_rows, items.ids) if queries.histories else None
    query_rows = queries.ids.rows(pa.chunked_array(named.query_ids))
    labels = named.resolved((query_rows, queries.ids), (label_rows, items.ids))
    return Found(labels, own_rows, None if queries.histories else same_id, histories)


def _refuse_unknown_items(queries: Queries, rows: I64, known: StoredIds) -> None:
    stops = np.cumsum([len(ids) for _, ids in queries.item_ids])[:-1]
    for (chunk, ids), own in zip(queries.item_ids, np.split(rows, stops), strict=True):
        unknown = np.flatnonzero((own < 0) & ids.is_valid().to_numpy(zero_copy_only=False))
        if len(unknown):
            hint = id_hint(pc.unique(ids.take(pa.array(unknown))), known)
            raise DataError(
                f"{chunk.where(unknown[0])}: the query says it is item "
                f"{ids[int(unknown[0])].as_py()!r}, which is not in the corpus; {len(unknown)} row(s) of this chunk do "
                f"so.{hint or ' Correct `item_id`, or add the items'}"
            )


def write_splits(
    store: Store, folder: str, queries: Queries, splits: list[str], texts: EqualTexts, histories: tuple[I64, I64] | None
) -> list[Part]:
    """The queries with what is known of them only now: their split, the item that they are, and whether they are a text."""
    written = []
    for part in queries.written.parts:
        table, rows = read_part(store, part), slice(part.first_row, part.first_row + part.rows)
        known = {
            "item_row": pa.array(texts.own_items[rows], pa.int64()),
            "split": pa.array(splits[rows], pa.string()),
            "text_code": pa.array(texts.query_codes[rows], pa.int64()),
        }
        if histories is not None:
            offsets = histories[0][part.first_row : part.first_row + part.rows + 1]
            known["history_rows"] = csr_to_lists(offsets - offsets[0], histories[1][offsets[0] : offsets[-1]])
        name = part.path.rsplit("/", 1)[-1]
        table = table.drop_columns([column for column in known if column in table.column_names])
        for column, values in known.items():
            table = table.append_column(column, values)
        written.append(write_part(store, f"{folder}/{name}", table, first_row=part.first_row))
    return written
