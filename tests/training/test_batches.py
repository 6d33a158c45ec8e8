"""Batches are a pure function of (seed, epoch, step), the same for every number of ranks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.labels import Labels
from training.batches import Batch, BatchPlan, Examples, candidate_masks, hash_rows
from training.geometry import HARD, IN_BATCH, RANDOM

NUM_ITEMS = 60


def offsets_of(lists: list[list[int]]) -> Any:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum([len(row) for row in lists], dtype=np.int64)])


def flat(lists: list[list[int]]) -> Any:
    return np.array([row for values in lists for row in values], np.int64)


def examples_of(positives: list[list[int]], negatives: list[list[int]]) -> Examples:
    count = len(positives)
    return Examples(
        query_rows=np.arange(count, dtype=np.int64) * 2 + 1,
        positive_offsets=offsets_of(positives), positive_rows=flat(positives),
        negative_offsets=offsets_of(negatives), negative_rows=flat(negatives),
        weights=np.linspace(0.5, 2.0, count, dtype=np.float32),
    )


def plan_of(examples: Examples, **changes: Any) -> BatchPlan:
    usual = {"num_items": NUM_ITEMS, "batch_size": 4, "hard": 3, "random": 2, "seed": 7, "rank": 0, "world": 1}
    return BatchPlan(examples, **{**usual, **changes})


def random_examples(seed: int, count: int = 30, longest: int = 8) -> Examples:
    rng = np.random.default_rng(seed)
    positives = [rng.permutation(NUM_ITEMS)[: rng.integers(1, 4)].tolist() for _ in range(count)]
    negatives = [rng.permutation(NUM_ITEMS)[: rng.integers(0, longest + 1)].tolist() for _ in range(count)]
    return examples_of(positives, negatives)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 5), st.integers(0, 1))
def test_the_ranks_slices_joined_are_one_ranks_batch(seed: int, world: int, epoch: int, step: int) -> None:
    examples = random_examples(seed)
    joined = plan_of(examples, batch_size=12).batch(epoch, step)
    slices = [plan_of(examples, batch_size=12 // world, rank=rank, world=world).batch(epoch, step)
              for rank in range(world)]
    for name in ("query_rows", "positive_rows", "random_BR", "weights"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in slices]), getattr(joined, name))
    hard = np.concatenate([part.hard_BH if part.hard_BH.shape[1] else np.full((len(part.query_rows), 3), -1)
                           for part in slices])
    np.testing.assert_array_equal(hard, joined.hard_BH)
    np.testing.assert_array_equal(np.unique(np.concatenate([part.item_rows for part in slices])), joined.item_rows)


def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    examples = random_examples(3)
    first, again = plan_of(examples).batch(2, 5), plan_of(examples).batch(2, 5)
    np.testing.assert_array_equal(first.hard_BH, again.hard_BH)
    np.testing.assert_array_equal(first.random_BR, again.random_BR)
    other = plan_of(examples, seed=8).batch(2, 5)
    assert first.query_rows.tolist() != other.query_rows.tolist()


def test_an_epoch_asks_every_query_at_most_once_and_leaves_less_than_a_step() -> None:
    examples = random_examples(1, count=30)
    plan = plan_of(examples, batch_size=4)
    assert plan.micro_steps == 7
    seen = np.concatenate([plan.batch(0, step).query_rows for step in range(plan.micro_steps)])
    assert len(seen) == len(np.unique(seen)) == 28
    later = np.concatenate([plan.batch(1, step).query_rows for step in range(plan.micro_steps)])
    assert seen.tolist() != later.tolist()


def hard_of(plan: BatchPlan, query_row: int, epoch: int) -> list[int]:
    for step in range(plan.micro_steps):
        batch = plan.batch(epoch, step)
        place = np.flatnonzero(batch.query_rows == query_row)
        if len(place):
            return batch.hard_BH[place[0]].tolist()
    return []


@pytest.mark.parametrize("count", [3, 6, 9, 12])
def test_epochs_go_through_the_whole_mined_list_without_repeats(count: int) -> None:
    # the other queries' lists differ in length: what shares a batch changes nothing
    negatives = [list(range(count)), *[list(range(20, 20 + n)) for n in (1, 4, 7, 10, 13, 16, 5)]]
    plan = plan_of(examples_of([[50 + i] for i in range(8)], negatives), batch_size=2, hard=3)
    seen = [item for epoch in range(count // 3) for item in hard_of(plan, 1, epoch)]
    assert sorted(seen) == list(range(count))
    assert hard_of(plan, 1, count // 3) == seen[:3], "then it begins again"


def test_every_window_has_distinct_negatives_also_where_it_wraps() -> None:
    plan = plan_of(examples_of([[50 + i] for i in range(4)], [list(range(5))] * 4), hard=3)
    windows = [hard_of(plan, 1, epoch) for epoch in range(10)]
    assert all(len(set(window)) == 3 for window in windows)
    assert {item for window in windows[:2] for item in window} == set(range(5))


def test_queries_take_their_lists_in_orders_of_their_own() -> None:
    plan = plan_of(examples_of([[50 + i % 10] for i in range(40)], [list(range(12))] * 40), batch_size=40, hard=3)
    assert len({tuple(row) for row in plan.batch(0, 0).hard_BH.tolist()}) > 30


def test_a_query_with_fewer_mined_negatives_is_padded() -> None:
    negatives = [[], [5], [6, 7], [8, 9, 10, 11]]
    plan = plan_of(examples_of([[50], [51], [52], [53]], negatives), hard=3)
    for epoch in range(5):
        batch = plan.batch(epoch, 0)
        by_query = {int(query) // 2: row for query, row in zip(batch.query_rows, batch.hard_BH.tolist(), strict=True)}
        assert by_query[0] == [-1, -1, -1]
        assert sorted(by_query[1]) == [-1, -1, 5]
        assert sorted(by_query[2]) == [-1, 6, 7]
        assert -1 not in by_query[3]
        assert -1 not in batch.item_rows


def test_before_anything_is_mined_there_are_no_hard_negatives() -> None:
    batch = plan_of(examples_of([[50], [51], [52], [53]], [[]] * 4), hard=3).batch(0, 0)
    assert batch.hard_BH.shape == (4, 0)
    assert batch.random_BR.shape == (4, 2)


def test_epochs_take_turns_through_the_positives() -> None:
    plan = plan_of(examples_of([[50, 51, 52], [53], [54, 55], [56]], [[]] * 4))
    seen: dict[int, list[int]] = {}
    for epoch in range(6):
        batch = plan.batch(epoch, 0)
        for query, item in zip(batch.query_rows.tolist(), batch.positive_rows.tolist(), strict=True):
            seen.setdefault(query // 2, []).append(item)
    assert sorted(seen[0]) == [50, 50, 51, 51, 52, 52]
    assert sorted(seen[0][:3]) == [50, 51, 52]
    assert sorted(seen[2]) == [54, 54, 54, 55, 55, 55]


def test_items_of_a_batch_are_each_encoded_once() -> None:
    batch = plan_of(random_examples(5), batch_size=20).batch(0, 0)
    wanted = {*batch.positive_rows.tolist(), *batch.random_BR.ravel().tolist(), *batch.hard_BH.ravel().tolist()} - {-1}
    assert batch.item_rows.tolist() == sorted(wanted)


def test_too_few_examples_for_one_step_is_a_config_error() -> None:
    examples = random_examples(0, count=7)
    with pytest.raises(ConfigError, match=r"4 queries on each of 2 rank\(s\).*only 7 training queries.*to 3 or less"):
        plan_of(examples, batch_size=4, world=2)
    assert plan_of(examples, batch_size=3, world=2).micro_steps == 1


def test_hashes_are_the_same_on_every_machine() -> None:
    # a change of these numbers changes every batch of every run
    assert hash_rows(0, np.array([0, 1, 2**40])).tolist() == [16294208416658607535, 10451216379200822465, 2296115805719413641]
    assert hash_rows(2**33 + 5, np.array([0])).tolist() == hash_rows(5, np.array([0])).tolist()
    assert hash_rows(1, np.array([0])).tolist() != hash_rows(0, np.array([0])).tolist()


def test_hashes_are_well_mixed() -> None:
    low_bits = hash_rows(3, np.arange(4000)) % np.uint64(4)
    assert np.bincount(low_bits.astype(int)).min() > 900


def slow_masks(batch: Batch, columns: list[int], labels: Labels) -> tuple[list[list[bool]], list[list[int]]]:
    """Column by column, from the meaning of the words."""
    masked, kinds = [], []
    for b, query in enumerate(batch.query_rows.tolist()):
        judged = {int(labels.item_rows[i]): int(labels.scores[i])
                  for i in range(labels.offsets[query], labels.offsets[query + 1])}
        good = [item for item, score in judged.items() if score > 0]
        groups = {int(labels.group_codes[item]) for item in good} - {-1}
        texts = {int(labels.text_codes[item]) for item in good}
        known = [item in good or int(labels.group_codes[item]) in groups or int(labels.text_codes[item]) in texts
                 for item in columns]
        masked.append([is_known and judged.get(item, 1) > 0 for item, is_known in zip(columns, known, strict=True)])
        kinds.append([HARD if item in batch.hard_BH[b] else RANDOM if item in batch.random_BR[b] else IN_BATCH
                      for item in columns])
    return masked, kinds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_masks_and_kinds_equal_a_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_queries, num_items = 16, 25
    counts = rng.integers(0, 5, num_queries)
    rows = [np.sort(rng.permutation(num_items)[:count]) for count in counts]
    labels = Labels(
        num_queries, num_items, offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_rows=np.concatenate(rows).astype(np.int64), scores=rng.integers(0, 3, counts.sum()),
        group_codes=np.where(rng.random(num_items) < 0.5, -1, rng.integers(0, 4, num_items)),
        text_codes=rng.integers(0, 12, num_items),
    )
    batch = Batch(
        query_rows=rng.permutation(num_queries)[:6], positive_rows=rng.integers(0, num_items, 6),
        hard_BH=rng.integers(-1, num_items, (6, 3)), random_BR=rng.integers(0, num_items, (6, 2)),
        item_rows=np.zeros(0, np.int64), weights=np.ones(6, np.float32),
    )
    columns = rng.permutation(num_items)[:15]
    masked, kinds = candidate_masks(batch, columns, labels)
    want_masked, want_kinds = slow_masks(batch, columns.tolist(), labels)
    assert masked.tolist() == want_masked
    assert kinds.tolist() == want_kinds
    empty = replace(batch, hard_BH=np.full((6, 0), -1), random_BR=np.zeros((6, 0), np.int64))
    assert (candidate_masks(empty, columns, labels)[1] == IN_BATCH).all()
