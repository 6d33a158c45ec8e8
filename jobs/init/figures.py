"""Figures of the user's tables, read as a run reads them: ids, splits and labels whole, texts from the first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.config.data import DataSettings
from jobs.config.templates import Template
from jobs.stages.ingest.counts.positives import refuse_nothing_relevant
from jobs.stages.ingest.data import Sources
from jobs.stages.ingest.fingerprints import sources
from jobs.stages.ingest.labels import F64, read_labels, split_column
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.columns import KNOWN, rename
from jobs.stages.ingest.reading.files import read_chunks, read_head
from jobs.stages.ingest.reading.values import id_column, number_column
from jobs.stages.ingest.reading.vectors import dimension_of, refuse_other_vectors
from jobs.stages.ingest.splits import assign_splits, splits_of_files, with_split
from jobs.stages.ingest.tables import refuse_repeated
from jobs.stages.ingest.texts import normalise, texts_of

OTHER_SCRIPT = 0.3
"""Share of a text's letters outside ASCII above which an English model reads little of it."""


@dataclass(frozen=True)
class Texts:
    """Of the first rows of a table."""

    rows: int
    median_words: int
    long_words: int
    """Words of the text that is longer than 9 of 10."""
    empty: int
    equal: int
    """Rows whose text, word for word, is that of an earlier row."""
    other_script: float
    """Share of the texts in another script than Latin."""


@dataclass(frozen=True)
class Figures:
    """What the data is."""

    items: int
    queries: int
    splits: dict[str, int]
    """Queries of each split, as a run with the default settings has them."""
    with_positive: dict[str, int]
    """Those with a relevant item."""
    cut_dev: bool
    """The data has no dev split: a share of the training queries becomes one."""
    labels: int
    judged_irrelevant: int
    relevant_per_query: float
    """Of the queries that have any."""
    grades: list[float]
    """The different scores, at most 12."""
    dimension: int | None
    """Length of the vectors that came with the data."""
    item_texts: Texts
    query_texts: Texts
    titles_repeated: float
    """Share of the items whose text begins with their title."""
    twins_across_splits: int
    """Queries, of the first rows, whose text is in another split as well."""
    metadata: list[str]
    """Columns of the items that mean nothing to hardmine by themselves."""

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


class _Tables:
    """The data's tables with our column names."""

    def __init__(self, data: DataSettings, storage: StorageSettings) -> None:
        self._columns, self._storage = dict(data.columns), storage
        self._sources: Sources = sources(data)

    def ids_and_splits(self, table: str) -> tuple[pa.Array, list[str | None]]:
        """Of all rows. Of a Parquet file nothing else is read. Raises DataError: an id is missing, or occurs twice."""
        names = ["id", "_id", "split", "query_id", "item_id", "corpus-id", "query-id", *self._columns.values()]
        ids, splits, places = list[pa.Array](), list[str | None](), list[tuple[str, int, int]]()
        for url, _ in self._sources[table]:
            files = splits_of_files(url, self._storage, table)
            for chunk in read_chunks(url, self._storage, names):
                rows, own = self._renamed(table, with_split(chunk, files, self._columns))
                ids.append(id_column(rows, "id", own))
                splits += split_column(rows, own) if table == "queries" else []
                places.append((chunk.file, chunk.first_row, rows.num_rows))
        every = pa.concat_arrays([pa.array([], pa.large_string()), *(some.cast(pa.large_string()) for some in ids)])
        refuse_repeated(every, places, _what(table))
        return every, splits

    def head(self, table: str) -> tuple[pa.Table, Chunk]:
        """The first rows of a table."""
        for url, _ in self._sources[table]:
            if (chunk := read_head(url, self._storage)) is not None:
                return self._renamed(table, chunk)
        raise DataError(f"expected at least one row in the table of {table}, found none in {self._sources[table][0][0]}")

    def labels(self) -> Iterator[tuple[Chunk, str | None]]:
        """The labels' chunks as `read_labels` takes them; of a BEIR folder the splits that are there."""
        for url, split in self._sources["labels"]:
            parent, _, name = url.rpartition("/")
            if split in (None, "train") or Store(parent, self._storage).exists(name):
                files = splits_of_files(url, self._storage, "labels")
                for chunk in read_chunks(url, self._storage):
                    yield with_split(chunk, files, self._columns), split

    def _renamed(self, table: str, chunk: Chunk) -> tuple[pa.Table, Chunk]:
        what = _what(table)
        return rename(chunk, self._columns, ["query_id", "item_id"] if what == "labels" else ["id"], what), chunk


def _what(table: str) -> str:
    return "items" if table == "corpus" else table


def first_scores(data: DataSettings, storage: StorageSettings) -> F64:
    """The scores of the first labels; none where they have no such column. Raises DataError: one is no number."""
    rows, chunk = _Tables(data, storage).head("labels")
    return number_column(rows, "score", chunk) if "score" in rows.column_names else np.array([], np.float64)


def measure(data: DataSettings, storage: StorageSettings) -> Figures:
    """Read the tables.

    Raises:
        DataError: what a run would refuse, too: an id that is missing or repeated, a label of an unknown item, a score that is
            no number, and in the first rows a vector without a direction or of another length.
        ClusterError: the storage failed.
    """
    tables = _Tables(data, storage)
    item_ids, _ = tables.ids_and_splits("corpus")
    query_ids, own_splits = tables.ids_and_splits("queries")
    labels = read_labels(tables.labels(), query_ids, item_ids, dict(data.columns), data.relevant_from)
    refuse_nothing_relevant(labels)
    splits, notes = assign_splits(own_splits, labels, query_ids, data.dev_fraction)
    relevant = np.unique(labels.relevant)
    items, item_chunk = tables.head("corpus")
    queries, query_chunk = tables.head("queries")
    dimension = dimension_of(items, item_chunk)
    if "history" not in queries.column_names:  # what such a query is has no vector of its own
        refuse_other_vectors(dimension, dimension_of(queries, query_chunk))
    item_template = Template(data.item_text, "data.item_text")
    item_texts = texts_of(items, item_template, item_chunk)
    query_texts = texts_of(queries, Template(data.query_text, "data.query_text"), query_chunk)
    return Figures(
        items=len(item_ids),
        queries=len(query_ids),
        splits={split: splits.count(split) for split in ("train", "dev", "test") if split in splits},
        with_positive=dict(Counter(splits[row] for row in relevant.tolist())),
        cut_dev="dev_queries_cut_from_train" in notes,
        labels=len(labels.query_rows),
        judged_irrelevant=int((labels.scores == 0).sum()),
        relevant_per_query=len(labels.relevant) / max(1, len(relevant)),
        grades=np.unique(labels.grades)[:12].tolist(),
        dimension=dimension,
        item_texts=_texts(item_texts),
        query_texts=_texts(query_texts),
        titles_repeated=_titles_repeated(items, item_template.fields),
        twins_across_splits=_twins(query_texts, splits),
        metadata=[
            name
            for name in items.column_names
            if name not in (*KNOWN["items"], *item_template.fields) and not name.startswith("_")
        ],
    )


def _texts(texts: list[str]) -> Texts:
    words = sorted(len(text.split()) for text in texts)
    return Texts(
        rows=len(texts),
        median_words=words[len(words) // 2],
        long_words=words[len(words) * 9 // 10],
        empty=sum(not text for text in texts),
        equal=len(texts) - len({normalise(text) for text in texts}),
        other_script=sum(map(_is_other_script, texts)) / len(texts),
    )


def _is_other_script(text: str) -> bool:
    letters = [letter for letter in text[:300] if letter.isalpha()]
    return sum(letter > "\u024f" for letter in letters) > OTHER_SCRIPT * len(letters)  # beyond Latin with its accents


def _titles_repeated(items: pa.Table, fields: Sequence[str]) -> float:
    """Share of the items whose second field begins with the first."""
    if len(fields) != 2 or not set(fields) <= set(items.column_names):
        return 0.0
    columns = (items[field].to_pylist() for field in fields)
    pairs = [(normalise(str(title)), normalise(str(text))) for title, text in zip(*columns, strict=True) if title and text]
    repeated = [text == title or text.startswith(f"{title} ") for title, text in pairs]
    return sum(repeated) / int(items.num_rows)


def _twins(texts: list[str], splits: Sequence[str]) -> int:
    """Queries whose text another split has as well."""
    of_text: dict[str, set[str]] = {}
    words = [normalise(text) for text in texts]
    for text, split in zip(words, splits, strict=False):
        if split != "none":
            of_text.setdefault(text, set()).add(split)
    return sum(len(of_text.get(text, ())) > 1 for text in words)
