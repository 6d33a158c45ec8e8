"""Lists of a step: what they hold, worked out slowly; the same for any number of ranks; other negatives in each epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cluster.labels.labels import Labels
from cluster.tables.tables import I64, offsets_of
from training.feed.batches import BatchPlan, Examples
from training.reranker.lists import MOST_RELEVANT, Lists, PairValues, draw_lists

ITEMS, QUERIES, HARD, RANDOM = 60, 12, 4, 3


@pytest.fixture(scope="module")
def labels() -> Labels:
    """Up to seven relevant items, up to six judged irrelevant; groups and copies; query 3 is item 40."""
    rng, rows = np.random.default_rng(5), []
    for query in range(QUERIES):
        items = rng.permutation(ITEMS)
        relevant, judged = rng.integers(1, 8), rng.integers(0, 7)
        rows += [(query, int(item), 1) for item in items[:relevant]]
        rows += [(query, int(item), 0) for item in items[relevant : relevant + judged]]
    table = pa.table(dict(zip(("query_row", "item_row", "score"), zip(*sorted(rows), strict=True), strict=True)))
    codes = {"group_code": np.where(np.arange(ITEMS) % 9 == 0, 1, -1), "text_code": np.arange(ITEMS) // 2}
    return Labels.from_tables(table, pa.table(codes), QUERIES, np.where(np.arange(QUERIES) == 3, 40, -1))


@pytest.fixture(scope="module")
def plan(labels: Labels) -> BatchPlan:
    rng = np.random.default_rng(6)
    offsets, positives = labels.positives(np.arange(QUERIES))
    mined = [rng.permutation(ITEMS)[: rng.integers(0, 12)] for _ in range(QUERIES)]
    examples = Examples(
        np.arange(QUERIES),
        offsets,
        positives,
        offsets_of(np.array([len(rows) for rows in mined])),
        np.concatenate(mined).astype(np.int64),
        np.ones(QUERIES, np.float32),
        np.zeros(QUERIES, np.int64),
        ("",),
    )
    return BatchPlan(examples, ITEMS, QUERIES, HARD, RANDOM, 7, 0, 1)


def gains_of(labels: Labels) -> PairValues:
    owner = np.repeat(np.arange(QUERIES), np.diff(labels.offsets))
    return PairValues.of(owner, labels.item_rows, np.arange(len(owner)) + 1.0, ITEMS)


def drawn(plan: BatchPlan, labels: Labels, epoch: int = 0) -> Lists:
    none = PairValues(np.zeros(0, np.int64), np.zeros(0, np.float32), ITEMS)
    return draw_lists(plan, labels, gains_of(labels), none, epoch, 0)


def kept(lists: Lists, query: int) -> list[int]:
    (row,) = np.flatnonzero(lists.query_rows == query)
    return [int(item) for item in lists.item_rows[row] if item >= 0]


@pytest.mark.parametrize("epoch", range(4))
def test_a_list_holds_relevant_items_then_judged_ones_then_mined_ones_then_random_ones(
    plan: BatchPlan, labels: Labels, epoch: int
) -> None:
    lists, batch = drawn(plan, labels, epoch), plan.joined(epoch, 0)
    assert lists.item_rows.shape == (QUERIES, MOST_RELEVANT + HARD + RANDOM)
    for row, query in enumerate(lists.query_rows.tolist()):
        one = np.array([query])
        relevant, judged = set(labels.positives(one)[1].tolist()), set(labels.judged_irrelevant(one)[1].tolist())
        known = set(np.flatnonzero(labels.known_mask(one, np.arange(ITEMS))[0]).tolist())
        items = lists.item_rows[row]
        assert items[0] == batch.positive_rows[row]
        first = [int(item) for item in items[:MOST_RELEVANT] if item >= 0]
        assert set(first) <= relevant
        assert len(first) == min(MOST_RELEVANT, len(relevant))
        hard = [int(item) for item in items[MOST_RELEVANT : MOST_RELEVANT + HARD] if item >= 0]
        usable = judged - set(first) - ({40} if query == 3 else set())
        assert set(hard[: len(usable)]) <= usable
        mined = [int(item) for item in batch.hard_BH[row] if item >= 0 and item not in known]
        assert set(hard) - judged <= set(mined)
        random = [int(item) for item in items[MOST_RELEVANT + HARD :] if item >= 0]
        assert set(random) <= set(batch.random_BR[row].tolist()) - known
        whole = first + hard + random
        assert len(set(whole)) == len(whole)
        assert not set(hard + random) & (known - judged)


def test_grades_stand_with_their_items(plan: BatchPlan, labels: Labels) -> None:
    lists = drawn(plan, labels)
    owner = np.repeat(np.arange(QUERIES), np.diff(labels.offsets)).tolist()
    known = {pair: place + 1.0 for place, pair in enumerate(zip(owner, labels.item_rows.tolist(), strict=True))}
    want = [
        [known.get((query, item), 0.0) for item in items]
        for query, items in zip(lists.query_rows.tolist(), lists.item_rows.tolist(), strict=True)
    ]
    assert lists.gains.tolist() == want
    assert np.isnan(lists.teacher).all()


def test_ranks_cut_the_lists_that_one_rank_has(plan: BatchPlan, labels: Labels) -> None:
    whole = drawn(plan, labels)
    parts = [
        drawn(replace(plan, world=3, batch_size=4, rank=rank), labels).rows(slice(4 * rank, 4 * rank + 4)) for rank in range(3)
    ]
    assert np.concatenate([part.item_rows for part in parts]).tolist() == whole.item_rows.tolist()
    rows = whole.pairs()
    assert rows[0].tolist() == np.repeat(whole.query_rows, whole.real.sum(axis=1)).tolist()
    assert rows[1].tolist() == whole.item_rows[whole.real].tolist()


def test_every_relevant_judged_and_mined_item_has_its_turn(plan: BatchPlan, labels: Labels) -> None:
    seen: dict[int, set[int]] = {query: set() for query in range(QUERIES)}
    for epoch in range(12):
        lists = drawn(plan, labels, epoch)
        for query in seen:
            seen[query] |= set(kept(lists, query))
    for query, items in seen.items():
        one = np.array([query])
        labelled: I64 = np.concatenate([labels.positives(one)[1], labels.judged_irrelevant(one)[1]])
        assert set(labelled.tolist()) - {40} <= items
