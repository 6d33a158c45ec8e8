"""Checking the user's labels and what split each query belongs to: runs in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.labels.labels import NO_NEGATIVE
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part
from jobs.stages.ingest.lookup.ids import Ids, StoredIds
from jobs.stages.ingest.reading.chunk import SCORE_NAMES, Chunk
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.reading.values import id_column, id_hint, number_column, one_array
from jobs.stages.ingest.writer import TableWriter

F64 = npt.NDArray[np.float64]
LARGEST_SCORE = 1_000_000


@dataclass(frozen=True)
class LabelRows:
    """Labels as rows, before they are sorted and written."""

    query_rows: I64
    item_rows: I64
    grades: F64
    """As the file says; below 0 means what 0 does. NaN: the pair is not judged, the item may only not be a negative."""
    weights: F64
    sources: pa.Array
    splits: list[str | None]
    relevant_from: float | None = None
    """The lowest grade that is relevant; None: every one above 0."""

    @property
    def scores(self) -> F64:
        """The grade of a relevant label; 0: judged irrelevant; NO_NEGATIVE. The one place that applies `relevant_from`."""
        is_relevant = self.grades > 0 if self.relevant_from is None else self.grades >= self.relevant_from
        return np.where(np.isnan(self.grades), NO_NEGATIVE, np.where(is_relevant, self.grades, 0.0))

    @property
    def relevant(self) -> I64:
        """Query row of each label that says relevant."""
        return self.query_rows[self.scores > 0]

    @property
    def rule(self) -> str:
        """What makes a label relevant, for messages."""
        return "a score > 0" if self.relevant_from is None else f"a score of at least relevant_from = {self.relevant_from:g}"

    def take(self, index: I64) -> LabelRows:
        """Some of the labels."""
        return replace(
            self,
            query_rows=self.query_rows[index],
            item_rows=self.item_rows[index],
            grades=self.grades[index],
            weights=self.weights[index],
            sources=self.sources.take(pa.array(index)),
            splits=[self.splits[place] for place in index.tolist()],
        )

    def joined(self, *more: LabelRows) -> LabelRows:
        """These labels and more, one after another."""
        several = [self, *more]
        return replace(
            self,
            query_rows=np.concatenate([some.query_rows for some in several]),
            item_rows=np.concatenate([some.item_rows for some in several]),
            grades=np.concatenate([some.grades for some in several]),
            weights=np.concatenate([some.weights for some in several]),
            sources=pa.concat_arrays([some.sources for some in several]),
            splits=[split for some in several for split in some.splits],
        )

    def unrepeated(self) -> tuple[LabelRows, int]:
        """(the labels by query and item, how many repeat a pair). Of a pair the highest grade stays, of equal ones the first.

        A pair that is not judged stays before "judged irrelevant": a person calls the item relevant in another split.
        """
        scores = self.scores
        kind = np.where(scores > 0, 0, np.where(scores == 0, 2, 1))
        order = np.lexsort((-np.nan_to_num(self.grades), kind, self.item_rows, self.query_rows))
        queries, items = self.query_rows[order], self.item_rows[order]
        first = np.ones(len(order), bool)
        first[1:] = (queries[1:] != queries[:-1]) | (items[1:] != items[:-1])
        return self.take(order[first]), int(np.count_nonzero(~first))


def no_negatives(query_rows: I64, item_rows: I64) -> LabelRows:
    """Pairs that are not judged: the item may only not be a negative of the query."""
    count = len(query_rows)
    return LabelRows(query_rows, item_rows, np.full(count, np.nan), np.ones(count), pa.nulls(count, pa.string()), [None] * count)


@dataclass(frozen=True)
class NamedLabels:
    """Labels as they were read: they name queries and items by their ids."""

    chunks: list[Chunk]
    """Where they are from; without their rows."""
    query_ids: list[pa.Array]
    """Of each chunk."""
    item_ids: list[pa.Array]
    grades: F64
    weights: F64
    sources: pa.Array
    splits: list[str | None]
    relevant_from: float | None

    def resolved(self, queries: tuple[I64, Ids | StoredIds], items: tuple[I64, Ids | StoredIds]) -> LabelRows:
        """The labels as rows.

        Args:
            queries, items: the row of each label's query and item, -1: there is none; and all ids, for messages.

        Raises:
            DataError: a label names an unknown query or item.
        """
        stops = np.cumsum([len(ids) for ids in self.query_ids])[:-1]
        pieces = [self.chunks, self.query_ids, np.split(queries[0], stops), self.item_ids, np.split(items[0], stops)]
        for chunk, query_ids, query_rows, item_ids, item_rows in zip(*pieces, strict=True):
            _refuse_unknown("query", query_ids, query_rows, queries[1], items[1], chunk)
            _refuse_unknown("item", item_ids, item_rows, items[1], queries[1], chunk)
        return LabelRows(queries[0], items[0], self.grades, self.weights, self.sources, self.splits, self.relevant_from)


def read_labels(
    chunks: Iterator[tuple[Chunk, str | None]],
    query_ids: pa.Array,
    item_ids: pa.Array,
    columns: dict[str, str],
    relevant_from: float | None = None,
) -> LabelRows:
    """Labels as rows of queries and items whose ids are in memory. As `read_named`, and `NamedLabels.resolved`."""
    named, queries, items = read_named(chunks, columns, relevant_from), Ids(query_ids), Ids(item_ids)
    rows = (known.rows(pa.chunked_array(ids)) for known, ids in ((queries, named.query_ids), (items, named.item_ids)))
    return named.resolved((next(rows), queries), (next(rows), items))


def read_named(
    chunks: Iterator[tuple[Chunk, str | None]], columns: dict[str, str], relevant_from: float | None = None
) -> NamedLabels:
    """Read and check labels.

    Args:
        chunks: label chunks, each with the split its file stands for (BEIR) or None.
        relevant_from: the lowest score that is relevant; None: every one above 0.

    Raises:
        DataError: a score or weight is not a usable number, or there is no label.
    """
    pieces: list[tuple[Any, ...]] = []
    splits: list[str | None] = []
    scored: dict[str, bool] = {}
    for chunk, split in chunks:
        if not chunk.table.num_rows:
            continue
        table = rename(chunk, columns, ["query_id", "item_id"], "labels")
        _check_scored(scored, table, chunk, relevant_from)
        pieces.append(
            (
                replace(chunk, table=chunk.table.schema.empty_table()),
                id_column(table, "query_id", chunk),
                id_column(table, "item_id", chunk),
                _grades(table, chunk, fractions=relevant_from is not None),
                _weights(table, chunk),
                _sources(table, chunk),
            )
        )
        splits += split_column(table, chunk) if split is None else [split] * table.num_rows
    if not pieces:
        raise DataError("expected at least one label, found none; check the address of the labels in [data]")
    where, queries, items, grades, weights, sources = (list(column) for column in zip(*pieces, strict=True))
    return NamedLabels(
        where, queries, items, np.concatenate(grades), np.concatenate(weights), pa.concat_arrays(sources), splits, relevant_from
    )


def _check_scored(scored: dict[str, bool], table: pa.Table, chunk: Chunk, relevant_from: float | None) -> None:
    """Raises DataError: it is unclear which column is the score, or only some rows of a file have one."""
    has = "score" in table.column_names
    if scored.setdefault(chunk.file, has) != has:
        raise DataError(
            f"{chunk.file}, from row {chunk.first_row}: expected {'no score' if has else 'a score'} as in the rows before, "
            f"found {'one' if has else 'none'}; give all labels of the file a score, or none (then all are relevant)"
        )
    alike = [name for name in table.column_names if name.lower() in SCORE_NAMES]
    if not has and alike:
        raise DataError(
            f"{chunk.file}: labels without a column 'score' are all relevant, but {alike[0]!r} looks like one; say "
            f'data.columns = {{ score = "{alike[0]}" }}, or rename the column if it is something else'
        )
    if not has and relevant_from is not None:
        raise DataError(
            f"{chunk.file}: data.relevant_from = {relevant_from:g} needs the column 'score' in the labels, found "
            f"{', '.join(table.column_names)}; name it in data.columns, or take relevant_from out"
        )


def split_column(table: pa.Table, chunk: Chunk) -> list[str | None]:
    """The `split` of each row; None where there is none. Raises DataError: it is no text."""
    return _text_column(table, "split", chunk).to_pylist()  # type: ignore[no-any-return]


def _sources(table: pa.Table, chunk: Chunk) -> pa.Array:
    return _text_column(table, "source", chunk)


def _text_column(table: pa.Table, column: str, chunk: Chunk) -> pa.Array:
    if column not in table.column_names:
        return pa.nulls(table.num_rows, pa.string())
    kind = table[column].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise DataError(f"{chunk.file}: column {column!r} should hold texts, found {kind}; write it as text")
    return one_array(table[column].cast(pa.string()))


def _refuse_unknown(what: str, ids: pa.Array, rows: I64, known: Ids | StoredIds, others: Ids | StoredIds, chunk: Chunk) -> None:
    """Raises DataError: an id of a chunk has no row."""
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        tables, other = ("queries", "items") if what == "query" else ("items", "queries")
        hint = id_hint(pc.unique(ids.take(pa.array(missing))), known, others, other)
        raise DataError(
            f"{chunk.where(missing[0])}: the label names {what} "
            f"{ids[int(missing[0])].as_py()!r}, which is not in the table of {tables}; {len(missing)} "
            f"label(s) of this chunk name an unknown {what}.{hint or ' Remove them, or add the missing rows'}"
        )


def _grades(table: pa.Table, chunk: Chunk, *, fractions: bool) -> F64:
    if "score" not in table.column_names:
        return np.ones(table.num_rows)
    values = number_column(table, "score", chunk)
    _refuse(np.isnan(values), values, "a score in every row (or no score column, then all are relevant)", chunk)
    _refuse(np.abs(values) > LARGEST_SCORE, values, f"a score of at most {LARGEST_SCORE:,}", chunk)
    if not fractions:
        _refuse(
            values != np.floor(values),
            values,
            "a score that is a whole number (1 and more relevant, 0 and less judged irrelevant), unless data.relevant_from "
            "says from which score on an item is relevant",
            chunk,
        )
    return values


def _weights(table: pa.Table, chunk: Chunk) -> F64:
    if "weight" not in table.column_names:
        return np.ones(table.num_rows)
    values = number_column(table, "weight", chunk)
    _refuse((values < 0) | (values > LARGEST_SCORE), values, f"a weight from 0 to {LARGEST_SCORE:,}", chunk)
    return np.where(np.isnan(values), 1.0, values)


def _refuse(wrong: npt.NDArray[np.bool_], values: F64, expected: str, chunk: Chunk) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        value = values[rows[0]]
        raise DataError(
            f"{chunk.where(rows[0])}: expected {expected}, found "
            f"{'none' if np.isnan(value) else f'{value:g}'}; {len(rows)} label(s) of this chunk differ. Correct or remove them"
        )


def write_labels(labels: LabelRows, store: Store, folder: str) -> tuple[list[Part], int]:
    """Write labels sorted by query and item; of repeated pairs the highest grade stays. (parts, repeated pairs)."""
    kept, repeated = labels.unrepeated()
    table = pa.table(
        {
            "query_row": kept.query_rows,
            "item_row": kept.item_rows,
            "score": kept.scores,
            "gain": np.fmax(kept.grades, 0.0),
            "weight": kept.weights,
            "source": kept.sources,
        }
    )
    writer = TableWriter(store, folder, 1_000_000)
    writer.add(table)
    return writer.close(), repeated
