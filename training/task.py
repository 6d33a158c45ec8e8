"""One round's training as a value: everything a worker must know, and nothing it cannot be sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.labels.labels import Labels, gather_csr
from cluster.storage.model_folders import Manifest
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, lists_to_csr, offsets_of, read_parts
from training.engine.schedule import Schedule
from training.feed.batches import Examples
from training.feed.memory import loaded_bytes, loaded_items
from training.feed.taught import Taught, read_taught
from training.settings import Kind, TrainingSettings


class Ruling(Protocol):
    """What a stopping policy says."""

    @property
    def stops(self) -> bool:
        """Whether training ends."""

    @property
    def reason(self) -> str:
        """Why, for a person."""


class Stopping(Protocol):
    """A policy that ends a round early: a pure function of the validation recalls so far, that pickles to every rank."""

    def __call__(self, recalls: Sequence[float], /, *, patience: int) -> Ruling:
        """Judge the recalls after each epoch, oldest first."""


@dataclass(frozen=True, kw_only=True)
class LabelData:
    """The tables that say who is trained on what."""

    codes: list[Part]
    """What items have in common, as integers."""
    queries: list[Part]
    labels: list[Part]
    negatives: list[Part] = field(default_factory=list)
    """Mined negatives; empty: random ones only."""
    near_misses: list[Part] = field(default_factory=list)
    """Hits of dev queries: what validation is made of. The retriever does without."""


@dataclass(frozen=True, kw_only=True)
class TrainData(LabelData):
    """The tables that a round trains on."""

    item_features: list[Part]
    query_features: list[Part]
    guide_items: list[Part] = field(default_factory=list)
    """Vectors of a guide; empty: there is none."""
    guide_queries: list[Part] = field(default_factory=list)
    mix: TrainData | None = None
    """A second data set that is mixed in."""
    mix_share: float = 0.0
    """Share of the micro-steps that are of it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train, on what, and where to leave it: of the retriever and of the re-ranker."""

    store: Store
    folder: str
    """Where everything this task writes goes, relative to the store."""
    model: Manifest
    """The model to start from."""
    model_prefix: str
    data: LabelData
    settings: TrainingSettings
    schedule: Schedule
    seed: int = 0
    round: int = 0
    threads: int = 1
    joined: int | None = None
    """Queries of all ranks together in a micro-step, as the run's earlier rounds had; None: training.batch_size of each rank."""
    budget_tokens: int | None = None
    """Tokens encoded at once; None: found by a probe."""
    deepspeed: dict[str, Any] | None = None
    """A DeepSpeed configuration of the user's own."""
    stopping: Stopping | None = None
    """When no further epoch is worth it, given training.patience; None: every epoch is trained."""
    name: str = ""
    """Of the run; trackers group its models by it."""
    label: str = ""
    """What trackers call this model: round-02-random."""
    mailbox: Any = None

    def predicted_bytes(self, world: int) -> int:
        """Memory of what `world` ranks share, from counts alone."""
        raise NotImplementedError

    def tracked(self) -> dict[str, Any]:
        """What trackers note beside the figures."""
        return self.settings.model_dump(mode="json")


@dataclass(frozen=True, kw_only=True)
class TrainTask(Task):
    """One round of the retriever."""

    kind: Kind
    data: TrainData

    def tracked(self) -> dict[str, Any]:
        """As `Task`."""
        return super().tracked() | {"encoder": self.kind}

    def predicted_bytes(self, world: int) -> int:
        """As `Task`."""
        data, settings = self.data, self.settings
        items, queries = (sum(part.rows for part in parts) for parts in (data.codes, data.queries))
        examples, epochs = queries, self.schedule.epochs
        if settings.max_steps is not None:
            examples = min(queries, settings.max_steps * settings.accumulation * (self.joined or settings.batch_size * world))
        mined = bool(data.negatives)
        positives = -(-sum(part.rows for part in data.labels) // max(1, queries))
        loaded = loaded_items(
            items,
            examples,
            positives,
            settings.hard_negatives if mined else 0,
            settings.random_negatives(mined=mined),
            epochs * self.schedule.cycles,
        )
        row_bytes = sum(part.bytes for part in data.item_features) // max(1, items)
        mixed = self.mixed_in()
        return loaded_bytes(loaded, queries, row_bytes) + (mixed.predicted_bytes(world) if mixed else 0)

    def mixed_in(self) -> TrainTask | None:
        """The second data set as a training of its own, with other random numbers; None: there is none."""
        if self.data.mix is None:
            return None
        settings = self.settings.model_copy(update={"accumulation": 1, "label_sources": {}, "one_source_per_batch": False})
        return replace(self, data=self.data.mix, settings=settings, seed=self.seed + 1)


@dataclass(frozen=True)
class Told:
    """What a task's tables say: whom to train on which items, by the rows of the run's tables."""

    examples: Examples
    labels: Labels
    """Of all queries, without codes of items."""
    dev: I64
    """Rows of the dev queries."""
    near_misses: I64
    """Rows of items that make validation hard, nearest first."""
    gains: F32 | None = None
    """Of each label its grade, as NDCG counts it; None: they were not asked for."""


def read_examples(task: Task, *, graded: bool = False) -> Told:
    """The examples, labels and validation of a task; with the labels' grades, if they are asked for.

    Raises:
        DataError: no training query has a relevant item.
    """
    queries = read_parts(task.store, task.data.queries, ["split", "item_row"])
    columns = ["query_row", "item_row", "score", "weight", "source", *(["gain"] if graded else [])]
    judged = read_parts(task.store, task.data.labels, columns)
    taught = read_taught(task.store, task.data.negatives)
    if taught is not None:
        judged = taught.joined_with(judged)
    labels = Labels(
        num_queries=queries.num_rows,
        num_items=sum(part.rows for part in task.data.codes),
        offsets=offsets_of(np.bincount(judged["query_row"].to_numpy(), minlength=queries.num_rows)),
        item_rows=judged["item_row"].to_numpy().astype(np.int64),
        scores=np.sign(judged["score"].to_numpy()).astype(np.int8),
        group_codes=np.zeros(0, np.int32),
        text_codes=np.zeros(0, np.int32),
        self_rows=queries["item_row"].to_numpy().astype(np.int64),
    )
    near = np.zeros(0, np.int64)
    if task.data.near_misses:
        hits = read_parts(task.store, task.data.near_misses, ["item_rows"])
        offsets, rows = lists_to_csr(hits["item_rows"])
        near = _nearest_first(offsets, rows.astype(np.int64), depth=10)
    examples = _examples(task, judged, _trained(queries, taught), taught)
    gains = judged["gain"].to_numpy().astype(np.float32) if graded else None
    return Told(examples, labels, np.flatnonzero(_equal(queries["split"], "dev")), near, gains)


def _trained(queries: pa.Table, taught: Taught | None) -> npt.NDArray[np.bool_]:
    """[Q] queries of the train split, without those that a teacher leaves out. Raises DataError: it leaves out all."""
    train_Q = _equal(queries["split"], "train")
    if taught is None or not train_Q.any():
        return train_Q
    kept_Q = train_Q.copy()
    kept_Q[taught.left_out] = False
    if not kept_Q.any():
        raise DataError(
            f"mining.teacher.weak_positive leaves out all {int(train_Q.sum()):,} training queries: the teacher scores that many "
            f"candidates above their relevant items; raise it, or look at the teacher's scores in mining.md"
        )
    return kept_Q


def _equal(column: pa.ChunkedArray, text: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(pc.equal(column, text), False).to_numpy())


def _examples(task: Task, judged: pa.Table, train_Q: npt.NDArray[np.bool_], taught: Taught | None) -> Examples:
    """An example for every training query and source of its relevant labels, by query row, then source."""
    used = (judged["score"].to_numpy() > 0) & train_Q[judged["query_row"].to_numpy()]
    if not used.any():
        raise DataError(
            "no training query has a relevant item: expected labels with score > 0 for queries whose split "
            'is "train"; check the columns `split` and `score`'
        )
    codes, names = _source_codes(judged["source"].filter(pa.array(used)))
    queries, items, weights = (judged[name].to_numpy()[used] for name in ("query_row", "item_row", "weight"))
    order = np.lexsort((codes, queries))  # stable: the table's ascending item rows stay so
    queries, codes = queries[order].astype(np.int64), codes[order]
    starts = np.flatnonzero(np.diff(queries, prepend=-1).astype(bool) | np.diff(codes, prepend=-1).astype(bool))
    counts = np.diff(starts, append=len(order))
    factors = np.array([task.settings.source(name).weight for name in names])
    query_rows, source_codes = queries[starts], codes[starts]
    means = np.add.reduceat(weights[order].astype(np.float64), starts) / counts
    negative_offsets, negatives, told = _mined(task, query_rows, len(train_Q), scored=taught is not None)
    items = items[order].astype(np.int64)
    return Examples(
        query_rows,
        offsets_of(counts),
        items,
        negative_offsets,
        negatives,
        (means * factors[source_codes]).astype(np.float32),
        source_codes,
        names,
        None if taught is None else taught.scores_of(queries, items),
        told,
    )


def _source_codes(column: pa.ChunkedArray) -> tuple[I64, tuple[str, ...]]:
    """(code of each label's source i64, the sources in ascending order); null counts as ""."""
    texts = pc.fill_null(column.cast(pa.string()), "")
    names = sorted(pc.unique(texts).to_pylist())
    return pc.index_in(texts, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64), tuple(names)


def _mined(task: Task, query_rows: I64, num_queries: int, *, scored: bool) -> tuple[I64, I64, F32 | None]:
    """Mined negatives of each example's query as (offsets [E+1], item rows, a teacher's scores), nearest first; none where none
    were mined."""
    if not task.data.negatives:
        return np.zeros(len(query_rows) + 1, np.int64), np.zeros(0, np.int64), None
    columns = ["query_row", "negative_rows", *(["negative_teacher_scores"] if scored else [])]
    table = read_parts(task.store, task.data.negatives, columns)
    offsets, rows = lists_to_csr(table["negative_rows"])
    place_Q = np.full(num_queries, table.num_rows, np.int64)
    place_Q[table["query_row"].to_numpy()] = np.arange(table.num_rows)
    # one empty list more, for the queries that the table does not have
    owner, index = gather_csr(np.append(offsets, offsets[-1]), place_Q[query_rows])
    told = lists_to_csr(table[columns[-1]])[1].astype(np.float32)[index] if scored else None
    return offsets_of(np.bincount(owner, minlength=len(query_rows))), rows[index].astype(np.int64), told


def _nearest_first(offsets: I64, rows: I64, depth: int) -> I64:
    """Items of the first `depth` positions of all lists, position by position."""
    position = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
    keep = np.flatnonzero(position < depth)
    return rows[keep[np.argsort(position[keep], kind="stable")]]
