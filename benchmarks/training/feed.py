"""Case feed: one rank's step made ready (batch, columns, masks, packs), against 10 ms, for ranks and batches of several sizes."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.shared.command import Row, compared
from cluster.labels.labels import Labels
from training.encoders.base import Encoder
from training.encoders.tokens.features import Features, Tokens
from training.encoders.transformer import pad_tokens
from training.feed.batches import BatchPlan, Examples
from training.feed.feed import Feed
from training.feed.tables import Tables
from training.settings import TrainingSettings

LIMIT_S = 0.010
ITEMS, QUERIES, POSITIVES, MINED = 262_144, 60_000, 2, 16
SIZES = ((128, 1), (256, 8), (128, 64))
"""(queries of a rank, ranks)."""
STEPS = 6


class OnlyPads(Encoder):
    """As far as a feed goes."""

    def collate(self, features: Features) -> dict[str, object]:  # type: ignore[override]
        """input_ids and attention_mask."""
        assert isinstance(features, Tokens)
        return dict(pad_tokens(features, 0))


def case_feed(runs: int) -> list[Row]:
    """A row for each size; 4 mined negatives and 1 random one per query, a quarter of the items in groups."""
    rng = np.random.default_rng(0)
    offsets = np.arange(QUERIES + 1) * POSITIVES
    items = np.sort(rng.integers(0, ITEMS, (QUERIES, POSITIVES)), axis=1).ravel()
    groups = np.where(rng.random(ITEMS) < 0.75, -1, rng.integers(0, ITEMS // 8, ITEMS)).astype(np.int32)
    labels = Labels(QUERIES, ITEMS, offsets, items, np.ones(len(items), np.int8), groups, np.arange(ITEMS, dtype=np.int32))
    mined = np.arange(QUERIES + 1) * MINED, rng.integers(0, ITEMS, QUERIES * MINED)
    examples = Examples(
        np.arange(QUERIES), offsets, items, *mined, np.ones(QUERIES, np.float32), np.zeros(QUERIES, np.int64), ("",)
    )
    tables = Tables(_tokens(rng, QUERIES), _tokens(rng, ITEMS), labels)
    return [_row(batch, ranks, examples, tables, runs) for batch, ranks in SIZES]


def _row(batch: int, ranks: int, examples: Examples, tables: Tables, runs: int) -> Row:
    settings = TrainingSettings(batch_size=batch, hard_negatives=4, random_fraction=0.25)
    plan = BatchPlan.of(examples, settings, num_items=ITEMS, mined=True, seed=1, rank=0, world=ranks)
    feed = Feed(plan, tables, OnlyPads(), settings, budget_tokens=32_768, device="cpu", equal_packs=False)
    prepared = feed.prepare(0, 0)  # the order of an epoch is drawn once
    seconds = []
    for _ in range(runs):
        for step in range(min(STEPS, plan.micro_steps)):
            started = time.perf_counter()
            feed.prepare(0, step)
            seconds.append(time.perf_counter() - started)
    feed.close()
    row = compared(f"feed batch={batch} ranks={ranks}", statistics.median(seconds), "10 ms", LIMIT_S)
    return row | {"columns": len(prepared.columns), "worst_s": max(seconds)}


def _tokens(rng: np.random.Generator, count: int) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(5, 40, count))])
    return Tokens(offsets, rng.integers(0, 1000, offsets[-1]).astype(np.int32))
