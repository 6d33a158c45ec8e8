"""Checking the user's labels and what split each query belongs to: runs in a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.labels import NO_NEGATIVE
from cluster.storage import Store
from cluster.tables import I64, Part
from jobs.stages.ingest.files import Chunk
from jobs.stages.ingest.tables import id_column, one_array, rename, stable_code
from jobs.stages.ingest.writer import TableWriter

SPLITS = ("train", "dev", "test")
LARGEST_SCORE = 1_000_000


@dataclass(frozen=True)
class LabelRows:
    """Labels as rows, before they are sorted and written."""

    query_rows: I64
    item_rows: I64
    scores: I64
    weights: npt.NDArray[np.float64]
    sources: pa.Array
    splits: list[str | None]

    @property
    def relevant(self) -> I64:
        """Query row of each label that says relevant."""
        return self.query_rows[self.scores > 0]

    def take(self, index: I64) -> LabelRows:
        """Some of the labels."""
        return LabelRows(
            self.query_rows[index],
            self.item_rows[index],
            self.scores[index],
            self.weights[index],
            self.sources.take(pa.array(index)),
            [self.splits[place] for place in index.tolist()],
        )

    @classmethod
    def joined(cls, several: Sequence[LabelRows]) -> LabelRows:
        """All labels of several, one after another."""
        return cls(
            np.concatenate([some.query_rows for some in several]),
            np.concatenate([some.item_rows for some in several]),
            np.concatenate([some.scores for some in several]),
            np.concatenate([some.weights for some in several]),
            pa.concat_arrays([some.sources for some in several]),
            [split for some in several for split in some.splits],
        )

    @classmethod
    def no_negatives(cls, query_rows: I64, item_rows: I64) -> LabelRows:
        """Pairs that are not judged: the item may only not be a negative of the query."""
        count = len(query_rows)
        scores = np.full(count, NO_NEGATIVE, np.int64)
        return cls(query_rows, item_rows, scores, np.ones(count), pa.nulls(count, pa.string()), [None] * count)

    def unrepeated(self) -> tuple[LabelRows, int]:
        """(the labels by query and item, how many repeat a pair). Of a pair the highest score stays, of equal ones the first.

        NO_NEGATIVE stays before "judged irrelevant": a person calls the item relevant in another split.
        """
        urgency = np.where(self.scores == NO_NEGATIVE, 0.5, self.scores)
        order = np.lexsort((-urgency, self.item_rows, self.query_rows))
        queries, items = self.query_rows[order], self.item_rows[order]
        first = np.ones(len(order), bool)
        first[1:] = (queries[1:] != queries[:-1]) | (items[1:] != items[:-1])
        return self.take(order[first]), int(np.count_nonzero(~first))


def read_labels(
    chunks: Iterator[tuple[Chunk, str | None]], query_ids: pa.Array, item_ids: pa.Array, columns: dict[str, str]
) -> LabelRows:
    """Resolve labels to rows.

    Args:
        chunks: label chunks, each with the split its file stands for (BEIR) or None.

    Raises:
        DataError: a label names an unknown query or item, or has no whole-number score.
    """
    found: list[tuple[Any, ...]] = []
    splits: list[str | None] = []
    for chunk, split in chunks:
        if not chunk.table.num_rows:
            continue
        table = rename(chunk, columns, ["query_id", "item_id"], "labels")
        found.append(
            (
                _resolve(table, "query_id", query_ids, chunk),
                _resolve(table, "item_id", item_ids, chunk),
                _scores(table, chunk),
                _numbers(table, "weight", chunk, 1.0, optional=True),
                _sources(table, chunk),
            )
        )
        splits += split_column(table, chunk) if split is None else [split] * table.num_rows
    if not found:
        raise DataError("expected at least one label, found none; check the address of the labels in [data]")
    queries, items, scores, weights, sources = zip(*found, strict=True)
    return LabelRows(
        np.concatenate(queries),
        np.concatenate(items),
        np.concatenate(scores),
        np.concatenate(weights),
        pa.concat_arrays(sources),
        splits,
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


def _resolve(table: pa.Table, column: str, known: pa.Array, chunk: Chunk) -> I64:
    what, tables = ("query", "queries") if column == "query_id" else ("item", "items")
    ids = id_column(table, column, chunk)
    rows = pc.index_in(ids, value_set=known)
    if rows.null_count:
        missing = np.flatnonzero(rows.is_null().to_numpy(zero_copy_only=False))
        raise DataError(
            f"{chunk.file}, row {chunk.first_row + int(missing[0])}: the label names {what} "
            f"{ids[int(missing[0])].as_py()!r}, which is not in the table of {tables}; {len(missing)} "
            f"label(s) of this chunk name an unknown {what}. Remove them, or add the missing rows"
        )
    return np.asarray(rows.to_numpy(zero_copy_only=False), dtype=np.int64)


def _scores(table: pa.Table, chunk: Chunk) -> I64:
    values = _numbers(table, "score", chunk, 1.0, optional=False)
    bad = np.flatnonzero((values != np.floor(values)) | (values > LARGEST_SCORE))
    if len(bad):
        raise DataError(
            f"{chunk.file}, row {chunk.first_row + int(bad[0])}: expected a score that is a whole number from "
            f"0 (0 judged irrelevant, 1 and more relevant) to {LARGEST_SCORE:,}, found {values[bad[0]]:g}; "
            f"{len(bad)} label(s) of this chunk differ. Round them"
        )
    return values.astype(np.int64)


def _numbers(table: pa.Table, column: str, chunk: Chunk, default: float, *, optional: bool) -> npt.NDArray[np.float64]:
    if column not in table.column_names:
        return np.full(table.num_rows, default)
    kind = table[column].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{chunk.file}: column {column!r} should hold numbers, found {kind}; write it as numbers")
    given = table[column].cast(pa.float64())
    values = pc.fill_null(given, default if optional else float("nan")).to_numpy()
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(bad):
        found = given[int(bad[0])].as_py()
        raise DataError(
            f"{chunk.file}, row {chunk.first_row + int(bad[0])}: expected a {column} of 0 or more, found "
            f"{'none' if found is None else f'{found:g}'}; {len(bad)} label(s) of this chunk differ. Correct "
            f"or remove them"
        )
    return np.asarray(values, np.float64)


def assign_splits(
    own: list[str | None] | None, labels: LabelRows, query_ids: pa.Array, dev_fraction: float, questions: I64 | None = None
) -> tuple[list[str], dict[str, int]]:
    """The split of every query: its own, else that of its labels, else train; a dev split is cut where there is none.

    Args:
        questions: [Q] the first query with the same text, which goes to dev with it; None: all texts differ.

    Returns:
        (split of each query row, notes: counts of what was decided here).

    Raises:
        DataError: a split is not train, dev or test; or a query has labels of two splits, or of another than its own.
    """
    splits = _splits_of_labels(own if own is not None else [None] * len(query_ids), labels, query_ids)
    wrong = [row for row, split in enumerate(splits) if split is not None and split not in (*SPLITS, "none")]
    if wrong:
        same = sum(splits[row] == splits[wrong[0]] for row in wrong)
        raise DataError(
            f"expected a split of train, dev or test, found {splits[wrong[0]]!r} in {same} row(s), the first is "
            f"query {query_ids[wrong[0]].as_py()!r}; rename it (a validation split is called dev)"
        )
    labelled = set(labels.query_rows.tolist())
    result = [split or ("train" if row in labelled else "none") for row, split in enumerate(splits)]
    notes = {}
    if "dev" not in result:
        cut = _dev_rows(result, labels, _names(query_ids, questions), dev_fraction)
        for row in cut:
            result[row] = "dev"
        notes["dev_queries_cut_from_train"] = len(cut)
    return result, notes


def _names(query_ids: pa.Array, questions: I64 | None) -> list[str]:
    """What each query is drawn by: its id; of queries with one text the first of their ids, whatever their order."""
    names: list[str] = query_ids.to_pylist()
    if questions is None:
        return names
    of_question: dict[int, str] = {}
    for question, name in zip(questions.tolist(), names, strict=True):
        of_question[question] = min(name, of_question.get(question, name))
    return [of_question[question] for question in questions.tolist()]


def _dev_rows(splits: list[str], labels: LabelRows, names: list[str], dev_fraction: float) -> list[int]:
    """Training queries that become dev, those with a positive and all of their text: drawn by name, so the same in every run.

    At least one of two, and never all.
    """
    relevant = set(labels.relevant.tolist())
    drawn = {
        names[row]: stable_code(f"dev:{names[row]}") % 10_000
        for row, split in enumerate(splits)
        if split == "train" and row in relevant
    }
    cut = {name for name, number in drawn.items() if number < dev_fraction * 10_000}
    if len(drawn) < 2:
        return []
    if not cut:
        cut = {min(drawn, key=drawn.__getitem__)}
    elif len(cut) == len(drawn):
        cut.remove(max(drawn, key=drawn.__getitem__))
    return [row for row, split in enumerate(splits) if split == "train" and names[row] in cut]


def leave_out_queries(
    splits: list[str], query_ids: pa.Array, train_fraction: float, questions: I64 | None = None
) -> dict[str, int]:
    """Give all but a share of the training queries the split "none", in place: drawn by id, at least one stays.

    The queries of a smaller share are among those of a larger one. Returns notes: how many were left out.

    Args:
        questions: as of `assign_splits`; queries with one text stay or go together.
    """
    if train_fraction >= 1.0:
        return {}
    names = _names(query_ids, questions)
    drawn = {row: stable_code(f"train:{names[row]}") % 1_000_000 for row, split in enumerate(splits) if split == "train"}
    first = names[min(drawn, key=drawn.__getitem__)]
    left = [row for row, number in drawn.items() if number >= train_fraction * 1_000_000 and names[row] != first]
    for row in left:
        splits[row] = "none"
    return {"train_queries_left_out": len(left)}


def _splits_of_labels(own: list[str | None], labels: LabelRows, query_ids: pa.Array) -> list[str | None]:
    """`own`, with what the labels say where it says nothing."""
    result = list(own)
    for row, split in zip(labels.query_rows.tolist(), labels.splits, strict=True):
        if split is None or result[row] in (split, "none"):
            continue
        if result[row] is not None:
            says = (
                f"is in the split {own[row]!r} and has labels of {split!r}"
                if own[row] is not None
                else (f"has labels in the splits {result[row]!r} and {split!r}")
            )
            raise DataError(
                f"query {query_ids[row].as_py()!r} {says}; a query belongs to one split, or what is measured "
                f"was trained on: remove it from the others"
            )
        result[row] = split
    return result


def write_labels(labels: LabelRows, store: Store, folder: str) -> tuple[list[Part], int]:
    """Write labels sorted by query and item; of repeated pairs the highest score stays. (parts, repeated pairs)."""
    kept, repeated = labels.unrepeated()
    table = pa.table(
        {
            "query_row": kept.query_rows,
            "item_row": kept.item_rows,
            "score": kept.scores,
            "weight": kept.weights,
            "source": kept.sources,
        }
    )
    writer = TableWriter(store, folder, 1_000_000)
    writer.add(table)
    return writer.close(), repeated
