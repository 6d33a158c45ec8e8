"""Steps made ready in advance: every item encoded once by one rank, equal shares of tokens, packs, masks."""

from typing import Any

import numpy as np
import pytest
import torch

from cluster.labels.labels import Labels
from cluster.tables.tables import offsets_of
from training.encoders.base import Encoder
from training.encoders.tokens.features import Tokens
from training.feed.batches import BatchPlan, Examples
from training.feed.feed import Feed, Prepared, column_of, seed_of
from training.feed.tables import Tables
from training.settings import TrainingSettings
from training.telemetry.gradient_geometry import CROSS_RANK, IN_BATCH

Q, N, WORLD, BATCH = 64, 80, 2, 6
CPU = torch.device("cpu")


class Padding(Encoder):
    """As far as a feed goes: only the packs' lengths matter."""

    def collate(self, features: Any) -> Any:
        return {"lengths": features.lengths}


class Broken(Padding):
    def collate(self, features: Any) -> Any:
        raise ValueError("no such text")


def tokens(count: int, seed: int) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, count)
    return Tokens(offsets_of(lengths), rng.integers(0, 99, lengths.sum()).astype(np.int32))


def world() -> tuple[Tables, Examples]:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, N, Q)
    labels = Labels(Q, N, np.arange(Q + 1), rows, np.ones(Q, np.int64), np.full(N, -1), np.arange(N))
    examples = Examples(
        np.arange(Q),
        np.arange(Q + 1),
        rows,
        np.arange(0, 4 * Q + 1, 4),
        rng.integers(0, N, 4 * Q),
        rng.uniform(0.5, 2, Q).astype(np.float32),
        np.zeros(Q, np.int64),
        ("",),
    )
    return Tables(tokens(Q, 2), tokens(N, 3), labels), examples


TABLES, EXAMPLES = world()


def feed(rank: int, *, equal: bool = False, ranks: int = WORLD, **changes: Any) -> Feed:
    plan = BatchPlan(EXAMPLES, N, BATCH * WORLD // ranks, 3, 2, 9, rank, ranks)
    return Feed(plan, TABLES, Padding(), TrainingSettings(**changes), budget_tokens=64, device="cpu", equal_packs=equal)


def both(**changes: Any) -> list[Prepared]:
    return [feed(rank, **changes).prepare(0, 1) for rank in range(WORLD)]


def test_ranks_share_the_items_of_the_joined_batch_so_that_each_is_encoded_once() -> None:
    first, second = both()
    alone = feed(0, ranks=1).prepare(0, 1)
    assert sorted(first.columns) == sorted(alone.columns)
    np.testing.assert_array_equal(first.columns, second.columns)
    assert len(np.unique(first.columns)) == len(first.columns) == sum(first.counts)
    assert [sum(len(pack.places) for pack in step.packs) - BATCH for step in (first, second)] == first.counts
    cost = [TABLES.items.lengths_of(part).sum() for part in np.split(first.columns, [first.counts[0]])]
    assert max(cost) - min(cost) <= 40  # one text


def test_without_gathering_a_rank_has_its_own_items_only() -> None:
    for step in both(gather=False):
        assert not step.shared
        np.testing.assert_array_equal(step.columns, step.batch.item_rows)


@pytest.mark.parametrize("changes", [{}, {"gather": False}])
def test_packs_hold_every_text_once_within_the_budget(changes: dict[str, Any]) -> None:
    for rank, step in enumerate(both(**changes)):
        places = np.concatenate([pack.places for pack in step.packs])
        assert sorted(places) == list(range(BATCH + step.counts[rank if step.shared else 0]))
        lengths = [pack.inputs["lengths"] for pack in step.packs]
        assert all(int(each.max()) * len(each) <= 64 or len(each) == 1 for each in lengths)
        assert step.tokens == sum(int(each.sum()) for each in lengths)
        assert step.padded == sum(int(each.max()) * len(each) for each in lengths)


def test_ranks_that_must_keep_step_have_equally_many_packs() -> None:
    uneven = [[len(feed(rank).prepare(0, step).packs) for rank in range(WORLD)] for step in range(4)]
    assert any(a != b for a, b in uneven)
    for number, counts in enumerate(uneven):
        steps = [feed(rank, equal=True).prepare(0, number) for rank in range(WORLD)]
        assert [len(step.packs) for step in steps] == [max(counts)] * WORLD
        assert all(len(pack.places) or pack is not step.packs[0] for step in steps for pack in step.packs)


def test_weights_are_divided_by_the_same_number_on_every_rank() -> None:
    steps = both()
    total = sum(float(step.batch.weights.sum()) for step in steps)
    assert [step.denominator for step in steps] == [pytest.approx(total / WORLD)] * WORLD


def test_what_only_another_rank_brought_is_of_another_kind_than_what_this_one_did() -> None:
    for step in both():
        (rows,) = step.chunks()
        kind_BC = step.candidates.masks(rows, CPU)[1].numpy()
        own = np.isin(step.columns, step.batch.item_rows)
        assert (kind_BC[:, ~own] == CROSS_RANK).all()
        assert not (kind_BC[:, own] == CROSS_RANK).any()
        assert (kind_BC == IN_BATCH).any()


def test_own_negatives_only_masks_what_the_query_did_not_bring() -> None:
    for step in both(in_batch=False):
        (rows,) = step.chunks()
        masked_BC = step.candidates.masks(rows, CPU, in_batch=step.in_batch)[0].numpy()
        for row in range(BATCH):
            mine = {*step.batch.hard_BH[row], *step.batch.random_BR[row]}
            assert {int(item) for item in step.columns[~masked_BC[row]]} <= mine


def test_a_step_made_ahead_is_the_one_that_is_asked_for() -> None:
    ahead = feed(0)
    ahead.take(0, 0, then=(0, 1))
    got, want = ahead.take(0, 1, then=None), feed(0).prepare(0, 1)
    np.testing.assert_array_equal(got.columns, want.columns)
    assert [pack.seed for pack in got.packs] == [pack.seed for pack in want.packs]
    other = ahead.take(1, 0, then=(1, 1))  # not the one that was made ready
    np.testing.assert_array_equal(other.columns, feed(0).prepare(1, 0).columns)
    ahead.close()


def test_an_error_in_the_thread_reaches_the_step_that_needs_it() -> None:
    ahead = feed(0)
    ahead.take(0, 0, then=None)
    ahead._encoder = Broken()
    ahead._next = ((0, 1), ahead._thread.submit(ahead.prepare, 0, 1))
    with pytest.raises(ValueError, match="no such text"):
        ahead.take(0, 1, then=None)
    ahead.close()


def test_columns_are_found_in_any_order() -> None:
    assert column_of(np.array([7, 2, 7]), np.array([5, 7, 2])).tolist() == [1, 2, 1]
    with pytest.raises(AssertionError, match="without its positives"):
        column_of(np.array([4]), np.array([5, 7, 2]))


def test_random_states_differ_by_place_and_repeat() -> None:
    places = [(epoch, step, rank, pack) for epoch in range(3) for step in range(5) for rank in range(2) for pack in range(3)]
    seeds = [seed_of(3, place) for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [seed_of(3, place) for place in places]
    assert all(0 <= seed < 2**63 for seed in seeds)
