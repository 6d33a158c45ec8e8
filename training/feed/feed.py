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
import numpy.typing as npt
from torch import Tensor

from cluster.labels.labels import Labels
from cluster.tables.tables import I64
from training.encoders.base import Encoder
from training.encoders.tokens.features import Features, Tokens, Vectors
from training.encoders.tokens.packing import pack
from training.feed.batches import Batch, BatchPlan, hash_rows
from training.feed.candidate_masks import candidate_masks
from training.feed.tables import Tables
from training.settings import TrainingSettings
from training.telemetry.gradient_geometry import CROSS_RANK, IN_BATCH

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
"""Queries times columns that the loss looks at in one go."""

Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pack:
    """One micro-batch of texts of similar length."""

    places: I64
    """Positions among the rank's texts, [queries; own items]; empty for one that only keeps ranks in step."""
    inputs: dict[str, Tensor]
    seed: int
    """Of dropout: the same texts see the same in every pass."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of the batch with their candidates."""

    rows: slice
    masked_BC: Bool  # noqa: N815
    kind_BC: U8  # noqa: N815


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
    labels: Labels = field(repr=False)
    in_batch: bool
    """Other queries' items are candidates."""
    chunk_rows: int
    """Rows that the loss looks at in one go."""
    query_counts: list[int] = field(default_factory=list)
    """Queries of each rank."""
    first_chunks: list[Chunk] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether other ranks' items are among the columns."""
        return len(self.counts) > 1

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order, some at a time: masks of a very large batch never lie in memory at once."""
        yield from self.first_chunks
        for start in range(len(self.first_chunks) * self.chunk_rows, len(self.batch.query_rows), self.chunk_rows):
            yield make_chunk(self, start)


def make_chunk(prepared: Prepared, start: int) -> Chunk:
    """The rows from `start` on, with their masks."""
    rows = slice(start, min(start + prepared.chunk_rows, len(prepared.batch.query_rows)))
    # an item that another row of this rank brought is in the batch, though not among these rows
    masked, kind = candidate_masks(prepared.batch.rows(rows), prepared.columns, prepared.labels, prepared.batch.item_rows)
    if not prepared.in_batch:
        masked |= (kind == IN_BATCH) | (kind == CROSS_RANK)
    return Chunk(rows, masked, kind)


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
        self._chunk_logits = CHUNK_LOGITS[device]
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
        shares = self._shares(joined, batch)
        mine = shares[plan.rank if len(shares) > 1 else 0]
        columns = np.concatenate(shares)
        packs, tokens, padded = self._packs(batch.query_rows, mine, (epoch, step))
        packs += self._idle(packs, joined, shares)
        prepared = Prepared(
            batch=batch,
            packs=packs,
            columns=columns,
            counts=[len(share) for share in shares],
            positive_column=column_of(batch.positive_rows, columns),
            denominator=float(joined.weights.sum(dtype=np.float64)) / plan.world,
            tokens=tokens,
            padded=padded,
            joined_queries=joined.query_rows,
            query_counts=[len(range(*plan.rows_of(rank).indices(plan.together))) for rank in range(plan.world)],
            labels=self._tables.labels,
            in_batch=self._settings.in_batch,
            chunk_rows=max(1, self._chunk_logits // max(1, len(columns))),
        )
        prepared.first_chunks.append(make_chunk(prepared, 0))
        return prepared

    def _shares(self, joined: Batch, batch: Batch) -> list[I64]:
        """Which rank encodes which items: all ranks' items once, or, where nothing is gathered, the rank's own alone."""
        settings, world = self._settings, self._plan.world
        if world == 1 or not (settings.gather and settings.in_batch):
            return [batch.item_rows]
        # longest first, there and back over the ranks: equal shares of tokens without a loop over items
        order = np.argsort(-self._tables.items.lengths_of(joined.item_rows), kind="stable")
        turn = np.arange(len(order)) % (2 * world)
        rank = np.where(turn < world, turn, 2 * world - 1 - turn)
        return [np.sort(joined.item_rows[order[rank == number]]) for number in range(world)]

    def _packs(self, query_rows: I64, item_rows: I64, where: tuple[int, int]) -> tuple[list[Pack], int, int]:
        texts = join_features(self._tables.queries.take(query_rows), self._tables.items.take(item_rows))
        lengths = texts.lengths
        made: list[Pack] = []
        padded = 0
        for places in pack(lengths, self._budget, pads=self._encoder.pads):
            seed = seed_of(self._plan.seed, (*where, self._plan.rank, len(made)))
            made.append(Pack(places, self._encoder.collate(texts.take(places)), seed))
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
    order = np.argsort(columns)
    place = np.minimum(np.searchsorted(columns[order], rows), len(columns) - 1)
    found = order[place]
    assert (columns[found] == rows).all(), "a batch was put together without its positives"
    return found.astype(np.int64)


def seed_of(seed: int, where: tuple[int, ...]) -> int:
    """A number that depends on where we are, not on what ran before: a resumed run repeats its dropout."""
    mixed = np.array([0], np.int64)
    for number in where:
        mixed = (hash_rows(seed, mixed + np.int64(number)) >> np.uint64(2)).astype(np.int64)
    return int(mixed[0])
