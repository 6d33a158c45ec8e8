"""The user's items, queries and labels become the run's own tables: stage 0's first part, in a worker."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Outcome
from cluster.errors import ConfigError, DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.config.data import DatasetSettings, DataSettings, MixSettings
from jobs.config.templates import Template
from jobs.stages.ingest.counts.positives import check_negatives, check_positives, label_figures, refuse_nothing_relevant
from jobs.stages.ingest.histories import refuse_repeats
from jobs.stages.ingest.items import Items, read_items
from jobs.stages.ingest.labels import LabelRows, NamedLabels, read_named, write_labels
from jobs.stages.ingest.lookup.equal_texts import EqualTexts, equal_text_figures, find_equal_texts, reads_vectors, share_labels
from jobs.stages.ingest.lookup.item_codes import tell_apart
from jobs.stages.ingest.lookup.unlike import unlike_items, unlike_queries
from jobs.stages.ingest.queries import Queries, look_up, read_queries, write_splits
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.files import read_chunks
from jobs.stages.ingest.reading.vectors import refuse_other_vectors
from jobs.stages.ingest.splits import assign_splits, known_splits, leave_out_queries, splits_of_files, with_split

Sources = dict[str, list[tuple[str, str | None]]]
"""Table -> (address, the split its file stands for)."""


def ingest_tables(config: Config, data: DatasetSettings, sources: Sources, store: Store, folder: str) -> Outcome:
    """Check a data set and write it below `folder`: corpus and codes, queries (each with its split) and labels.

    Items are read by tasks, side by side; queries and labels here, whose ids and codes are held in memory.

    Args:
        data: the run's own, or a general set, whose labelled queries all belong to the split "general". sources: its addresses.

    Raises:
        DataError: what is wrong with the data; names file, row or id, and the count.
        ConfigError: a template or data.columns names a column that the data does not have.
    """
    retries = config.cluster.retries
    item_template = Template(data.item_text, "data.item_text")
    items, queries, named = _read(config, data, sources, item_template, store, folder)
    found = look_up(items, queries, named)
    if found.histories is not None and not config.encoder.repeats:
        refuse_repeats(found.histories, found.labels, queries.ids, items.ids)
    on_vectors = items.dimension is not None and reads_vectors(config.encoder)
    items, same = tell_apart(store, items, retries) if on_vectors else (items, None)
    texts = find_equal_texts(
        store,
        queries.written,
        items,
        found.labels,
        item_template,
        own=found.own_items,
        of_their_id=found.of_their_id,
        on_vectors=on_vectors,
        shared=same,
        retries=retries,
    )
    assigned, shared, notes = _assign(data, queries, found.labels, texts)
    if isinstance(data, DataSettings):
        alike = [name for name, all_one in (("group", items.one_group), ("text", texts.one_text)) if all_one]
        notes |= check_negatives(assigned, shared, len(items), alike)
    query_parts = write_splits(store, f"{folder}/queries", queries, assigned, texts, found.histories)
    label_parts = write_labels(shared, store, f"{folder}/labels")[0]
    equal = equal_text_figures(texts, assigned, found.labels)
    equal["unlike_queries"] = unlike_queries(store, query_parts, assigned, texts)
    equal["unlike_items"] = unlike_items(store, items.corpus, found.labels, texts)
    return Outcome(
        tables={"corpus": items.corpus, "codes": items.codes, "queries": query_parts, "labels": label_parts},
        figures=_figures(data, items, queries, assigned, found.labels, shared) | {"equal_texts": equal} | notes,
        scratch=(f"{folder}/ids", f"{folder}/queries-unsplit"),
    )


def _read(
    config: Config, data: DatasetSettings, sources: Sources, item_template: Template, store: Store, folder: str
) -> tuple[Items, Queries, NamedLabels]:
    """All tables, each by itself: the queries and labels while tasks read the items."""
    reader = _Reader(data, config.storage, sources)

    def read_beside() -> tuple[Queries, NamedLabels]:
        unsplit, source = f"{folder}/queries-unsplit", reader.addresses("queries")
        queries = read_queries(config, data, reader.chunks("queries"), store, unsplit, source)
        return queries, read_named(reader.labels(), data.columns, data.relevant_from)

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(read_beside)
        items = read_items(  # in this thread: a task lends its CPU to others only while its main thread waits for them
            [url for url, _ in sources["corpus"]],
            config.storage,
            store,
            folder,
            columns=data.columns,
            template=item_template,
            most_rows=config.cluster.part_rows,
            retries=config.cluster.retries,
        )
        queries, named = beside.result()
    reader.seen |= items.seen
    if queries.histories is None:
        refuse_other_vectors(items.dimension, queries.written.dimension)
    reader.refuse_unknown_columns()
    return items, queries, named


def _figures(
    data: DatasetSettings, items: Items, queries: Queries, splits: list[str], labels: LabelRows, shared: LabelRows
) -> dict[str, Any]:
    """Counts of what came with the data; `shared`: the labels with what equal texts add."""
    relevant = Counter(splits[row] for row in set(shared.relevant.tolist()))
    pairs = np.unique(labels.query_rows * len(items) + labels.item_rows)
    return {
        "items": len(items),
        "queries": len(queries.ids),
        "repeated_labels": len(labels.query_rows) - len(pairs),
        "splits": {split: splits.count(split) for split in (*data.splits, "none")},
        "with_positive": {split: relevant[split] for split in data.splits},
        "examples": examples_of(shared, splits),
        "training_labels": training_labels(labels, splits),
        "dimension": items.dimension,
        "texts": {"items": items.notes.figures, "queries": queries.written.notes.figures},
        **label_figures(labels, shared, queries.ids, items.ids),
    }


class _Reader:
    """The data's chunks, and which columns they have."""

    def __init__(self, data: DatasetSettings, storage: StorageSettings, sources: Sources) -> None:
        self._data, self._storage, self._sources = data, storage, sources
        self.seen: set[str] = set()

    def addresses(self, table: str) -> str:
        """The addresses of a table, for messages."""
        return ", ".join(url for url, _ in self._sources[table])

    def chunks(self, table: str) -> Iterator[Chunk]:
        for url, _ in self._sources[table]:
            splits = splits_of_files(url, self._storage, table)
            for chunk in read_chunks(url, self._storage):
                self.seen.update(chunk.table.column_names)
                yield with_split(chunk, splits, self._data.columns)

    def labels(self) -> Iterator[tuple[Chunk, str | None]]:
        for url, split in self._sources["labels"]:
            try:
                splits = splits_of_files(url, self._storage, "labels")
                for chunk in read_chunks(url, self._storage):
                    self.seen.update(chunk.table.column_names)
                    yield with_split(chunk, splits, self._data.columns), split
            except DataError:
                if split is None or split in self._data.needed_splits:
                    raise
                if Store(url.rpartition("/")[0], self._storage).exists(url.rpartition("/")[2]):
                    raise

    def refuse_unknown_columns(self) -> None:
        for ours, theirs in self._data.columns.items():
            if theirs not in self.seen:
                close = difflib.get_close_matches(theirs, self.seen, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"they have {', '.join(sorted(self.seen))}"
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


def training_labels(labels: LabelRows, splits: list[str]) -> dict[str, Any]:
    """Labels of training queries, a repeated pair once: {"relevant": {source: how many}, "irrelevant": how many}."""
    kept = labels.unrepeated()[0]
    trained = np.array([split == "train" for split in splits])[kept.query_rows]
    sources = pc.fill_null(kept.sources.cast(pa.string()).filter(pa.array(trained & (kept.scores > 0))), "")
    counted = pc.value_counts(sources).to_pylist()
    relevant = dict(sorted((entry["values"], entry["counts"]) for entry in counted))
    return {"relevant": relevant, "irrelevant": int((trained & (kept.scores == 0)).sum())}


def _assign(
    data: DatasetSettings, queries: Queries, labels: LabelRows, texts: EqualTexts
) -> tuple[list[str], LabelRows, dict[str, int]]:
    """The split of every query, the labels as equal texts share them, and notes: counts of what was decided here."""
    ids = queries.written.ids
    if not isinstance(data, DataSettings):
        assigned = _all_labelled(data, queries, labels)
        return assigned, share_labels(labels, assigned, texts), {}
    assigned, notes = assign_splits(queries.splits, labels, ids, data.dev_fraction, texts.questions)
    shared = share_labels(labels, assigned, texts)
    notes |= check_positives(assigned, shared, queries.written, data)
    return assigned, shared, notes | leave_out_queries(assigned, ids, data.train_fraction, texts.questions)


def _all_labelled(data: DatasetSettings, queries: Queries, labels: LabelRows) -> list[str]:
    """Every query with a label is measured, whatever its split; of what is mixed in, only the train split is trained on."""
    refuse_nothing_relevant(labels)
    (split,), ids = data.splits, queries.written.ids
    own = known_splits(queries.splits, labels, ids) if isinstance(data, MixSettings) else [None] * len(ids)
    labelled = set(labels.query_rows.tolist())
    assigned = [split if row in labelled and own[row] in (None, split) else "none" for row in range(len(ids))]
    if split not in assigned:
        raise DataError(
            f"expected labelled queries of the split {split}, found none among {len(labelled):,} labelled ones; say split = "
            f'"{split}" for some, or leave the column out to train on all'
        )
    return assigned
