"""One round's training as a value: everything a worker must know, and nothing it cannot be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.errors import DataError
from cluster.folders import Manifest
from cluster.labels import Labels
from cluster.storage import Store
from cluster.tables import I64, Part, lists_to_csr, offsets_of, read_parts
from training.batches import Examples
from training.features import load_features
from training.settings import Kind, TrainingSettings
from training.step import Tables


@dataclass(frozen=True)
class TrainTask:
    """What to train, on what, and where to leave it."""

    store: Store
    folder: str
    """Where everything this task writes goes, relative to the store."""
    kind: Kind
    model: Manifest
    """The model to start from."""
    model_prefix: str
    corpus: list[Part]
    """Corpus table (group and text codes)."""
    queries: list[Part]
    item_features: list[Part]
    query_features: list[Part]
    labels: list[Part]
    negatives: list[Part]
    """Mined negatives; empty: random ones only."""
    near_misses: list[Part]
    """Hits of dev queries whose items make validation hard; may be empty."""
    settings: TrainingSettings
    epochs: int
    cycles: int = 1
    """Equal cycles of learning-rate warm-up and decay; with more than one, nothing stops before the last step."""
    steps: int | None = None
    """Most optimizer steps of all cycles together; None: epochs and settings decide."""
    seed: int = 0
    round: int = 0
    threads: int = 1
    budget_tokens: int | None = None
    """Tokens encoded at once; None: found by a probe."""
    guide_items: list[Part] = field(default_factory=list)
    """Vectors of a guide; empty: there is none."""
    guide_queries: list[Part] = field(default_factory=list)
    deepspeed: dict[str, Any] | None = None
    """A DeepSpeed configuration of the user's own."""
    name: str = ""
    """What trackers call the run."""
    mailbox: Any = None


def load_tables(task: TrainTask) -> tuple[Tables, Examples, I64, I64]:
    """(tables, training examples, dev query rows, near-miss item rows) of a task, in memory.

    Raises:
        DataError: no training query has a relevant item.
    """
    queries = read_parts(task.store, task.queries, ["row", "split", "item_row"])
    corpus = read_parts(task.store, task.corpus, ["row", "group_code", "text_code"])
    judged = read_parts(task.store, task.labels)
    labels = Labels.from_tables(judged, corpus, queries.num_rows, queries["item_row"].to_numpy().astype(np.int64))
    split = np.asarray(queries["split"].to_pylist())
    queries_in, items_in = (load_features(task.store, parts) for parts in (task.query_features, task.item_features))
    tables = Tables(queries_in, items_in, labels)
    examples = _examples(task, labels, np.flatnonzero(split == "train"), _query_weights(judged, queries.num_rows))
    near = np.zeros(0, np.int64)
    if task.near_misses:
        hits = read_parts(task.store, task.near_misses, ["item_rows"])
        offsets, rows = lists_to_csr(hits["item_rows"])
        near = _nearest_first(offsets, rows.astype(np.int64), depth=10)
    return tables, examples, np.flatnonzero(split == "dev"), near


def _examples(task: TrainTask, labels: Labels, train: I64, weights: Any) -> Examples:
    offsets, _ = labels.positives(train)
    train = train[np.diff(offsets) > 0]
    if not len(train):
        raise DataError("no training query has a relevant item: expected labels with score > 0 for queries whose split "
                        "is \"train\"; check the columns `split` and `score`")
    offsets, positives = labels.positives(train)
    negative_offsets, negatives = _mined(task, train, labels.num_queries)
    return Examples(train, offsets, positives, negative_offsets, negatives, weights[train])


def _mined(task: TrainTask, train: I64, num_queries: int) -> tuple[I64, I64]:
    if not task.negatives:
        return np.zeros(len(train) + 1, np.int64), np.zeros(0, np.int64)
    table = read_parts(task.store, task.negatives, ["query_row", "negative_rows"])
    offsets, rows = lists_to_csr(table["negative_rows"])
    counts = np.zeros(num_queries, np.int64)
    counts[table["query_row"].to_numpy()] = np.diff(offsets)
    starts = np.zeros(num_queries, np.int64)
    starts[table["query_row"].to_numpy()] = offsets[:-1]
    # put the lists into the order of `train`
    order = np.concatenate([np.arange(starts[q], starts[q] + counts[q]) for q in train]) if len(rows) else rows
    in_order = rows[order.astype(np.int64)].astype(np.int64)
    return offsets_of(counts[train]), in_order


def _query_weights(judged: Any, num_queries: int) -> Any:
    """Mean weight of each query's relevant labels, float32 [Q]; 1 where nothing is said."""
    relevant = judged["score"].to_numpy() > 0
    rows, values = judged["query_row"].to_numpy()[relevant], judged["weight"].to_numpy()[relevant]
    count = np.bincount(rows, minlength=num_queries)
    total = np.bincount(rows, weights=values, minlength=num_queries)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0).astype(np.float32)


def _nearest_first(offsets: I64, rows: I64, depth: int) -> I64:
    """Items of the first `depth` positions of all lists, position by position."""
    position = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
    keep = np.flatnonzero(position < depth)
    return rows[keep[np.argsort(position[keep], kind="stable")]]
