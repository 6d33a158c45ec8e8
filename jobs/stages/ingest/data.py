"""The user's items, queries and labels become the run's own tables: stage 0's first part, in a worker."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Outcome
from cluster.errors import ConfigError, DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, read_part, write_part
from jobs.config.config import Config
from jobs.config.data import DatasetSettings, DataSettings
from jobs.config.templates import Template
from jobs.stages.ingest.equal_texts import (
    EqualTexts,
    equal_text_figures,
    find_equal_texts,
    reads_vectors,
    share_labels,
    tell_apart,
)
from jobs.stages.ingest.histories import history_rows, refuse_repeats
from jobs.stages.ingest.labels import LabelRows, read_labels, split_column, write_labels
from jobs.stages.ingest.positives import check_negatives, check_positives, label_figures, refuse_nothing_relevant
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.files import read_chunks
from jobs.stages.ingest.reading.values import as_texts, id_column, id_hint, one_array
from jobs.stages.ingest.splits import assign_splits, leave_out_queries, splits_of_files, with_split
from jobs.stages.ingest.tables import Written, stable_code, write_texts
from jobs.stages.ingest.unlike import unlike_items, unlike_queries

Sources = dict[str, list[tuple[str, str | None]]]
"""Table -> (address, the split its file stands for)."""


def ingest_tables(config: Config, data: DatasetSettings, sources: Sources, store: Store, folder: str) -> Outcome:
    """Check a data set and write it below `folder`: corpus, queries (each with its split) and labels.

    Args:
        data: the run's own, or a general set, whose labelled queries all belong to the split "general". sources: its addresses.

    Raises:
        DataError: what is wrong with the data; names file, row or id, and the count.
        ConfigError: a template or data.columns names a column that the data does not have.
    """
    histories = config.encoder.kind == "sequence"  # what a query is, instead of its text
    item_template, query_template = Template(data.item_text, "data.item_text"), Template(data.query_text, "data.query_text")
    reader = _Reader(data, config.storage, sources)
    groups, splits = list[I64](), list[str | None]()

    def of_items(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
        groups.append(_group_codes(table, chunk))
        return {"group_code": pa.array(groups[-1])}

    def of_queries(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
        splits.extend(split_column(table, chunk))
        own = {"item_row": _item_rows(table, chunk, corpus)}
        return own | {"history_rows": history_rows(table, chunk, corpus.ids)} if histories else own

    def write(table: str, name: str, what: str, template: Template, **more: Any) -> Written:
        return write_texts(
            reader.chunks(table),
            store,
            f"{folder}/{name}",
            what=what,
            columns=data.columns,
            template=template,
            part_rows=config.cluster.part_rows,
            source=reader.addresses(table),
            **more,
        )

    corpus = write("corpus", "corpus", "items", item_template, extra=of_items)
    queries = write("queries", "queries-unsplit", "queries", query_template, extra=of_queries, needs_text=not histories)
    if not histories:
        _refuse_other_vectors(corpus, queries)
    labels = read_labels(reader.labels(), queries.ids, corpus.ids, data.columns, data.relevant_from)
    reader.refuse_unknown_columns()
    if histories and not config.encoder.repeats:
        refuse_repeats(store, queries.parts, labels, queries.ids, corpus.ids)
    on_vectors = corpus.dimension is not None and reads_vectors(config.encoder)
    corpus = tell_apart(store, corpus) if on_vectors else corpus
    texts = find_equal_texts(store, queries, corpus, labels, item_template, histories=histories, on_vectors=on_vectors)
    assigned, shared, notes = _assign(data, splits, labels, queries, texts)
    if isinstance(data, DataSettings):
        notes |= check_negatives(assigned, shared, corpus.text_codes, np.concatenate(groups))
    query_parts = _write_splits(store, f"{folder}/queries", queries.parts, assigned, texts)
    label_parts = write_labels(shared, store, f"{folder}/labels")[0]
    equal = equal_text_figures(texts, assigned, labels)
    equal["unlike_queries"] = unlike_queries(store, query_parts, assigned, texts)
    equal["unlike_items"] = unlike_items(store, corpus.parts, labels, texts)
    return Outcome(
        tables={
            "corpus": corpus.parts,
            "codes": _write_codes(store, f"{folder}/codes", corpus, np.concatenate(groups)),
            "queries": query_parts,
            "labels": label_parts,
        },
        figures=_figures(data, corpus, queries, assigned, labels, shared) | {"equal_texts": equal} | notes,
    )


def _figures(
    data: DatasetSettings, corpus: Written, queries: Written, splits: list[str], labels: LabelRows, shared: LabelRows
) -> dict[str, Any]:
    """Counts of what came with the data; `shared`: the labels with what equal texts add."""
    relevant = Counter(splits[row] for row in set(shared.relevant.tolist()))
    pairs = np.unique(labels.query_rows * len(corpus.ids) + labels.item_rows)
    return {
        "items": len(corpus.ids),
        "queries": len(queries.ids),
        "repeated_labels": len(labels.query_rows) - len(pairs),
        "splits": {split: splits.count(split) for split in (*data.splits, "none")},
        "with_positive": {split: relevant[split] for split in data.splits},
        "examples": examples_of(shared, splits),
        "dimension": corpus.dimension,
        "texts": {"items": corpus.notes, "queries": queries.notes},
        **label_figures(labels, shared, queries.ids, corpus.ids),
    }


class _Reader:
    """The data's chunks, and which columns they have."""

    def __init__(self, data: DatasetSettings, storage: StorageSettings, sources: Sources) -> None:
        self._data, self._storage, self._sources = data, storage, sources
        self._seen: set[str] = set()

    def addresses(self, table: str) -> str:
        """The addresses of a table, for messages."""
        return ", ".join(url for url, _ in self._sources[table])

    def chunks(self, table: str) -> Iterator[Chunk]:
        for url, _ in self._sources[table]:
            splits = splits_of_files(url, self._storage, table)
            for chunk in read_chunks(url, self._storage):
                self._seen.update(chunk.table.column_names)
                yield with_split(chunk, splits, self._data.columns)

    def labels(self) -> Iterator[tuple[Chunk, str | None]]:
        for url, split in self._sources["labels"]:
            try:
                splits = splits_of_files(url, self._storage, "labels")
                for chunk in read_chunks(url, self._storage):
                    self._seen.update(chunk.table.column_names)
                    yield with_split(chunk, splits, self._data.columns), split
            except DataError:
                if split is None or split in self._data.needed_splits:
                    raise
                if Store(url.rpartition("/")[0], self._storage).exists(url.rpartition("/")[2]):
                    raise

    def refuse_unknown_columns(self) -> None:
        for ours, theirs in self._data.columns.items():
            if theirs not in self._seen:
                close = difflib.get_close_matches(theirs, self._seen, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"they have {', '.join(sorted(self._seen))}"
                raise ConfigError(
                    f"data.columns.{ours}: expected a column of the data, found {theirs!r}, which no table has; {hint}"
                )


def examples_of(labels: LabelRows, splits: list[str]) -> dict[str, int]:
    """Training examples of each label source: its training queries with a relevant item."""
    trained_Q = np.array([split == "train" for split in splits])
    used = (labels.scores > 0) & trained_Q[labels.query_rows]
    sources = pc.fill_null(labels.sources.cast(pa.string()).filter(pa.array(used)), "").dictionary_encode()
    pairs = np.unique(np.stack([labels.query_rows[used], sources.indices.to_numpy().astype(np.int64)]), axis=1)
    counts = np.bincount(pairs[1], minlength=len(sources.dictionary))
    return dict(sorted(zip(sources.dictionary.to_pylist(), counts.tolist(), strict=True)))


def _refuse_other_vectors(corpus: Written, queries: Written) -> None:
    if corpus.dimension != queries.dimension:
        raise DataError(
            f"the corpus has {_describe(corpus.dimension)}, the queries have {_describe(queries.dimension)}: "
            f"both need a `vector` column of one length, or neither; make the vectors with one model"
        )


def _describe(dimension: int | None) -> str:
    return "no vectors" if dimension is None else f"vectors of {dimension} numbers"


def _group_codes(table: pa.Table, chunk: Chunk) -> I64:
    if "group" not in table.column_names:
        return np.full(table.num_rows, -1)
    if pa.types.is_nested(table["group"].type) or pa.types.is_binary(table["group"].type):
        raise DataError(
            f"{chunk.file}: column 'group' should hold one text or number per item, found "
            f"{table['group'].type}; rename it if it is something else"
        )
    values = as_texts(one_array(table["group"])).to_pylist()
    return np.array([stable_code(value) if value else -1 for value in values], np.int64)


def _item_rows(table: pa.Table, chunk: Chunk, corpus: Written) -> pa.Array:
    if "item_id" not in table.column_names:
        return pa.array(np.full(table.num_rows, -1, np.int64))
    if pa.types.is_nested(table["item_id"].type):
        raise DataError(
            f"{chunk.file}: column 'item_id' should hold the one item that the query is, found "
            f"{table['item_id'].type}; relevant items belong into the labels"
        )
    ids = id_column(table, "item_id", chunk, optional=True)
    rows = pc.index_in(ids, value_set=corpus.ids)
    unknown = pc.and_(pc.is_null(rows), pc.is_valid(ids))
    if pc.any(unknown).as_py():
        where = int(np.flatnonzero(unknown.to_numpy(zero_copy_only=False))[0])
        hint = id_hint(pc.unique(ids.filter(unknown)), corpus.ids)
        raise DataError(
            f"{chunk.where(where)}: the query says it is item "
            f"{ids[where].as_py()!r}, which is not in the corpus; {pc.sum(unknown).as_py()} row(s) of this chunk do "
            f"so.{hint or ' Correct `item_id`, or add the items'}"
        )
    return pc.fill_null(rows, -1).cast(pa.int64())


def _assign(
    data: DatasetSettings, splits: list[str | None], labels: LabelRows, queries: Written, texts: EqualTexts
) -> tuple[list[str], LabelRows, dict[str, int]]:
    """The split of every query, the labels as equal texts share them, and notes: counts of what was decided here."""
    if not isinstance(data, DataSettings):
        assigned = _all_labelled(labels, len(splits))
        return assigned, share_labels(labels, assigned, texts), {}
    assigned, notes = assign_splits(splits, labels, queries.ids, data.dev_fraction, texts.questions)
    shared = share_labels(labels, assigned, texts)
    notes |= check_positives(assigned, shared, queries, data)
    return assigned, shared, notes | leave_out_queries(assigned, queries.ids, data.train_fraction, texts.questions)


def _all_labelled(labels: LabelRows, count: int) -> list[str]:
    """Every query with a label is measured, whatever its split."""
    refuse_nothing_relevant(labels)
    labelled = set(labels.query_rows.tolist())
    return ["general" if row in labelled else "none" for row in range(count)]


def _write_codes(store: Store, folder: str, corpus: Written, groups: I64) -> list[Part]:
    written = []
    for part in corpus.parts:
        rows = slice(part.first_row, part.first_row + part.rows)
        table = pa.table({"text_code": corpus.text_codes[rows], "group_code": groups[rows]})
        written.append(write_part(store, f"{folder}/{part.path.rsplit('/', 1)[-1]}", table, first_row=part.first_row))
    return written


def _write_splits(store: Store, folder: str, parts: list[Part], splits: list[str], texts: EqualTexts) -> list[Part]:
    """The queries with what is known of them only now: their split, the item that they are, and whether they are a text."""
    written = []
    for part in parts:
        table, rows = read_part(store, part), slice(part.first_row, part.first_row + part.rows)
        known = {
            "split": pa.array(splits[rows], pa.string()),
            "item_row": pa.array(texts.own_items[rows], pa.int64()),
            "text_code": pa.array(texts.query_codes[rows], pa.int64()),
        }
        name = part.path.rsplit("/", 1)[-1]
        table = table.drop_columns([column for column in known if column in table.column_names])
        for column, values in known.items():
            table = table.append_column(column, values)
        written.append(write_part(store, f"{folder}/{name}", table, first_row=part.first_row))
        store.delete(part.path)
    return written
