"""Counts of the data before a run has read it: from the label and query files alone, in this process.

They leave out what only whole texts tell: that equal queries share their labels and stay in one split. So they are "about".
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store, is_s3
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.stages.ingest.data import Sources, examples_of, training_labels
from jobs.stages.ingest.fingerprints import sources
from jobs.stages.ingest.labels import read_labels, split_column
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.reading.files import count_rows, read_chunks, source_files
from jobs.stages.ingest.reading.values import as_texts, id_column, one_array
from jobs.stages.ingest.splits import assign_splits, leave_out_queries
from jobs.stages.ingest.tables import refuse_repeated

MOST_LOCAL, MOST_REMOTE = 128 * 2**20, 32 * 2**20
"""Bytes of label and query files that are read for a forecast, and of other texts to count rows, on a disk and on S3."""
MOST_ROWS = 5_000_000
"""Rows of Parquet files that are read for a forecast."""
SAMPLE = 2**20
PARQUET = (".parquet", ".pq")


def readable(config: Config) -> str | None:
    """Why the label and query files are not read for a forecast; None: they are small enough."""
    wanted = sources(config.data)
    urls = [url for table in ("queries", "labels") for url in existing(wanted, table, config.data, config.storage)]
    size = sum(file_bytes(url, config.storage) for url in urls)
    remote = any(is_s3(url) for url in urls)
    most = MOST_REMOTE if remote else MOST_LOCAL
    packed = [url for url in urls if all(name.endswith(PARQUET) for name in source_files(url, config.storage)[1])]
    rows = sum(count_rows(url, config.storage) for url in packed)  # from footers: compressed, a few bytes may be a row
    if size <= most and rows <= MOST_ROWS:
        return None
    much = f"{size / 2**20:,.0f} MiB{' on S3' if remote else ''}" if size > most else f"{rows:,} rows"
    limit = f"{most / 2**20:.0f}" if size > most else f"{MOST_ROWS:,}"
    return (
        f"the label and query files have {much}, more than a dry run reads ({limit}); the run prints the forecast as soon as "
        f"it has read them"
    )


def file_bytes(url: str, storage: StorageSettings) -> int:
    """Size of the files that an address stands for."""
    store, names = source_files(url, storage)
    return sum(store.size(name) or 0 for name in names)


def existing(wanted: Sources, table: str, data: DatasetSettings, storage: StorageSettings) -> list[str]:
    """The addresses of a table; of a BEIR folder those of the splits that it has."""

    def there(url: str) -> bool:
        parent, _, name = url.rstrip("/").rpartition("/")
        return data.folder is None or Store(parent, storage).exists(name)

    return [url for url, _ in wanted[table] if there(url)]


def about_rows(url: str, storage: StorageSettings) -> tuple[int, bool]:
    """(rows of a source, whether they are exact). Large text files are not read: their first MiB says how long a row is."""
    store, names = source_files(url, storage)
    texts = [name for name in names if not name.endswith(PARQUET)]
    if sum(store.size(name) or 0 for name in texts) <= (MOST_REMOTE if is_s3(url) else MOST_LOCAL):
        return count_rows(url, storage), True
    whole = sum(count_rows(store.url(name), storage) for name in names if name not in texts)
    return whole + sum(_estimated(store, name) for name in texts), False


def _estimated(store: Store, name: str) -> int:
    size = store.size(name) or 0
    with store.open(name) as raw:
        read = gzip.GzipFile(fileobj=raw).read(SAMPLE) if name.endswith(".gz") else raw.read(SAMPLE)
        return round(size / max(1, int(raw.tell())) * int(read.count(b"\n")))


def quick_counts(config: Config, items: int) -> dict[str, Any]:
    """What `Counts.of` reads, as near as labels and queries tell.

    Args:
        items: rows of the corpus.

    Raises:
        DataError: what is wrong with the labels or with the queries' ids and splits.
    """
    data, wanted = config.data, sources(config.data)
    ids, own = _queries(config, wanted)
    there = existing(wanted, "labels", data, config.storage)
    chunks = [(chunk, split) for url, split in wanted["labels"] if url in there for chunk in read_chunks(url, config.storage)]
    labels = read_labels(iter(chunks), ids, _items(chunks, data.columns), data.columns, data.relevant_from)
    splits, notes = assign_splits(own, labels, ids, data.dev_fraction)
    relevant = set(labels.relevant.tolist())
    for row, split in enumerate(splits):
        if split == "train" and row not in relevant:
            splits[row] = "none"
    notes |= leave_out_queries(splits, ids, data.train_fraction)
    with_positive = Counter(splits[row] for row in relevant)
    return {
        "items": items,
        "splits": {split: splits.count(split) for split in (*data.splits, "none")},
        "with_positive": {split: with_positive[split] for split in data.splits},
        "examples": examples_of(labels, splits),
        "training_labels": training_labels(labels, splits),
        "dimension": None,
    } | notes


def _queries(config: Config, wanted: Sources) -> tuple[pa.Array, list[str | None]]:
    ids, splits, places = [pa.array([], pa.large_string())], list[str | None](), list[tuple[str, int, int]]()
    for url, _ in wanted["queries"]:
        for chunk in read_chunks(url, config.storage):
            table = rename(chunk, config.data.columns, ["id"], "queries")
            ids.append(id_column(table, "id", chunk).cast(pa.large_string()))
            splits += split_column(table, chunk)
            places.append((chunk.file, chunk.first_row, table.num_rows))
    every = pa.concat_arrays(ids)
    refuse_repeated(every, places, "queries")
    return every, splits


def _items(chunks: list[tuple[Chunk, str | None]], columns: Mapping[str, str]) -> pa.Array:
    """The ids that labels name, in place of the corpus's own."""
    named = [
        as_texts(one_array(rename(chunk, dict(columns), ["query_id", "item_id"], "labels")["item_id"]))
        for chunk, _ in chunks
        if chunk.table.num_rows
    ]
    return pc.unique(pa.concat_arrays([pa.array([], pa.string()), *(values.cast(pa.string()) for values in named)])).drop_null()
