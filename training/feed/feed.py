"""What a step needs, made ready in a thread while the step before runs: token batches, columns, masks.

The plan of batches is a pure function of (seed, epoch, step), so each rank knows without asking what the others encode:
every distinct item of the joined batch is encoded once, by one rank, and the ranks get equal shares of the tokens.

W ranks, B queries of one rank, U items that one rank encodes, C columns (the items of all ranks).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from cluster.tables.tables import I64
from training.encoders.base import Encoder
from training.encoders.tokens.features import Features, Tokens, Vectors
from training.encoders.tokens.packing import pack
from training.feed.batches import Batch, BatchPlan, hash_rows
from training.feed.candidate_masks import Candidates, Columns, find_candidates
from training.feed.tables import Tables
from training.settings import TrainingSettings

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
"""Queries times columns that the loss looks at in one go."""


@dataclass(frozen=True)
class Pack:
    """One micro-batch of texts of similar length."""

    places: I64
    """Positions among the rank's texts, [queries; own items]; empty for one that only keeps ranks in step."""
    inputs: dict[str, Tensor]
    seed: int
    """Of dropout: the same texts see the same in every pass."""


@dataclass(frozen=True)
class Prepared:
    """One micro-step of one rank, ready."""

    batch: Batch
    packs: list[Pack]
    columns: I64
    """[C] item row of every column, no item twice."""
    counts: list[int]
    """Columns that each rank encodes; a single number where nothing is gathered."""
    positive_column: I64
    """[B]"""
    denominator: float
    """What the ranks' sums of weighted losses are divided by: the mean over ranks of their sums of weights."""
    tokens: int
    padded: int
    """Tokens with padding."""
    joined_queries: I64
    """[W * B] query rows of all ranks, in rank order."""
    in_batch: bool
    """Other queries' items are candidates."""
    candidates: Candidates = field(repr=False)
    chunk_rows: int
    """Rows that the loss looks at in one go."""
    query_counts: list[int] = field(default_factory=list)
    """Queries of each rank."""

    @property
    def shared(self) -> bool:
        """Whether other ranks' items are among the columns."""
        return len(self.counts) > 1

    def chunks(self) -> Iterator[slice]:
        """All rows in order, some at a time: masks of a very large batch never lie in memory at once."""
        total = len(self.batch.query_rows)
        for start in range(0, total, self.chunk_rows):
            yield slice(start, min(start + self.chunk_rows, total))


class Feed:
    """Prepares the micro-steps of one rank, one ahead of the training loop."""

    def __init__(
        self,
        plan: BatchPlan,
        tables: Tables,
        encoder: Encoder,
        settings: TrainingSettings,
        *,
        budget_tokens: int,
        device: str,
        equal_packs: bool,
    ) -> None:
        """
        Args:
            budget_tokens: most tokens of a pack, padding included.
            device: "cpu" or "cuda".
            equal_packs: every rank must make the same number of forward passes (ZeRO 3, GradCache).
        """
        self._plan, self._tables, self._encoder, self._settings = plan, tables, encoder, settings
        self._budget, self._equal = budget_tokens, equal_packs and plan.world > 1
        self._chunk_logits, self._pins = CHUNK_LOGITS[device], device == "cuda"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._next: tuple[tuple[int, int], Future[Prepared]] | None = None

    def take(self, epoch: int, step: int, *, then: tuple[int, int] | None) -> Prepared:
        """The micro-step, and begin with the one that comes after it (`then`; None: there is none)."""
        waiting = self._next if self._next is not None and self._next[0] == (epoch, step) else None
        ready = waiting[1].result() if waiting else self.prepare(epoch, step)
        self._next = (then, self._thread.submit(self.prepare, *then)) if then is not None else None
        return ready

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def prepare(self, epoch: int, step: int) -> Prepared:
        """Everything of one micro-step that needs no weights."""
        plan = self._plan
        joined = plan.joined(epoch, step)
        batch = joined.rows(plan.rows_of(plan.rank))
        columns = self._columns(joined, batch)
        shares = np.split(columns.rows, np.cumsum(columns.counts)[:-1])
        mine = shares[plan.rank if len(shares) > 1 else 0]
        packs, tokens, padded = self._packs(batch.query_rows, mine, (epoch, step))
        packs += self._idle(packs, joined, shares)
        return Prepared(
            batch=batch,
            packs=packs,
            columns=columns.rows,
            counts=columns.counts,
            positive_column=columns.of_all(batch.positive_rows),
            denominator=float(joined.weights.sum(dtype=np.float64)) / plan.world,
            tokens=tokens,
            padded=padded,
            joined_queries=joined.query_rows,
            query_counts=[len(range(*plan.rows_of(rank).indices(plan.together))) for rank in range(plan.world)],
            candidates=find_candidates(batch, columns, self._tables.labels),
            in_batch=self._settings.in_batch,
            chunk_rows=max(1, self._chunk_logits // max(1, len(columns.rows))),
        )

    def _columns(self, joined: Batch, batch: Batch) -> Columns:
        """Which rank encodes which items: all ranks' items once, or, where nothing is gathered, the rank's own alone."""
        settings, world = self._settings, self._plan.world
        if world == 1 or not (settings.gather and settings.in_batch):
            return Columns.of(batch.item_rows, np.zeros(len(batch.item_rows), np.uint16), 1)
        # longest first, there and back over the ranks: equal shares of tokens without a loop over items
        lengths = self._tables.items.lengths_of(joined.item_rows)
        longest = int(lengths.max(initial=0))
        order = np.argsort((longest - lengths).astype(np.uint16 if longest < 2**16 else np.int64), kind="stable")
        turn = np.arange(len(order)) % (2 * world)
        rank = np.empty(len(order), np.uint16)
        rank[order] = np.where(turn < world, turn, 2 * world - 1 - turn)
        return Columns.of(joined.item_rows, rank, world)

    def _packs(self, query_rows: I64, item_rows: I64, where: tuple[int, int]) -> tuple[list[Pack], int, int]:
        texts = join_features(self._tables.queries.take(query_rows), self._tables.items.take(item_rows))
        lengths = texts.lengths
        made: list[Pack] = []
        padded = 0
        for places in pack(lengths, self._budget, pads=self._encoder.pads):
            seed = seed_of(self._plan.seed, (*where, self._plan.rank, len(made)))
            inputs = self._encoder.collate(texts.take(places))
            if self._pins:  # so that copying them waits for nothing
                inputs = {name: value.pin_memory() for name, value in inputs.items()}
            made.append(Pack(places, inputs, seed))
            padded += int(lengths[places].max(initial=0)) * len(places) if self._encoder.pads else int(lengths[places].sum())
        return made, int(lengths.sum()), padded

    def _idle(self, packs: list[Pack], joined: Batch, shares: list[I64]) -> list[Pack]:
        """Passes of weight zero, for ranks with fewer packs than the busiest."""
        if not self._equal:
            return []
        plan, tables = self._plan, self._tables
        most = len(packs)
        for rank in range(plan.world):
            queries = joined.rows(plan.rows_of(rank))
            items = shares[rank] if len(shares) > 1 else queries.item_rows
            lengths = np.concatenate([tables.queries.lengths_of(queries.query_rows), tables.items.lengths_of(items)])
            most = max(most, len(pack(lengths, self._budget, pads=self._encoder.pads)))
        empty = np.zeros(0, np.int64)
        return [Pack(empty, packs[-1].inputs, 0)] * (most - len(packs))


def join_features(first: Features, second: Features) -> Features:
    """The texts of both, one after another."""
    if isinstance(first, Tokens):
        assert isinstance(second, Tokens)
        return Tokens(
            np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]), np.concatenate([first.values, second.values])
        )
    assert isinstance(second, Vectors)
    return Vectors(np.concatenate([first.values, second.values]))


def column_of(rows: I64, columns: I64) -> I64:
    """The column of each item row; every one must be among the columns."""
    return Columns.listed(columns).of_all(rows)


def seed_of(seed: int, where: tuple[int, ...]) -> int:
    """A number that depends on where we are, not on what ran before: a resumed run repeats its dropout."""
    mixed = np.array([0], np.int64)
    for number in where:
        mixed = (hash_rows(seed, mixed + np.int64(number)) >> np.uint64(2)).astype(np.int64)
    return int(mixed[0])
