"""A second data set between a plan's own steps: no step has both, every own step comes once, and the share is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.labels.labels import Labels
from tests.training.feed.test_batches import NUM_ITEMS, assert_equal_batches, plan_of, random_examples
from training.encoders.tokens.features import Vectors
from training.feed.batches import BatchPlan
from training.feed.mixed import MixedPlan, behind, join_tables
from training.feed.sources import mixed_steps
from training.feed.tables import Tables

QUERIES = 80


def plans(**changes: Any) -> tuple[BatchPlan, BatchPlan]:
    """The run's own, 7 steps an epoch; a second set's, 3 steps."""
    return plan_of(random_examples(1), **changes), plan_of(
        random_examples(2, 13), **{"hard": 0, "random": 5, "seed": 8} | changes
    )


def test_a_fifth_of_the_steps_by_hand() -> None:
    mixed = MixedPlan.join(*plans(), share=0.2)
    assert (mixed.own_steps, mixed.micro_steps) == (7, 9)
    turns = [mixed.turn(0, step) for step in range(9)]
    assert [of_second for of_second, _, _ in turns] == [False, False, False, False, True, False, False, False, True]
    assert [step for of_second, _, step in turns if not of_second] == list(range(7))
    assert [(epoch, step) for of_second, epoch, step in turns if of_second] == [(0, 0), (0, 1)]
    # an epoch of the second set has three steps: the third comes in the run's next epoch
    assert [mixed.turn(1, step)[1:] for step in (4, 8)] == [(0, 2), (1, 0)]


@settings(max_examples=100)
@given(steps=st.integers(1, 200), share=st.floats(0.01, 0.95), epochs=st.integers(1, 4))
def test_every_own_step_comes_once_an_epoch_and_the_second_set_goes_on_where_it_was(
    steps: int, share: float, epochs: int
) -> None:
    own, second = plan_of(random_examples(1, 4 * steps)), plan_of(random_examples(2, 13))
    mixed = MixedPlan.join(own, second, share)
    of_own, of_second = mixed.divide((epoch, step) for epoch in range(epochs) for step in range(mixed.micro_steps))
    assert of_own == [(epoch, step) for epoch in range(epochs) for step in range(steps)]
    assert of_second == [divmod(number, 3) for number in range(epochs * mixed_steps(steps, share))]
    assert abs(len(of_second) - share * (len(of_own) + len(of_second))) <= max(0.5, 1 - share) * epochs


@pytest.mark.parametrize("changes", [{}, {"pool": np.arange(0, NUM_ITEMS, 3)}])
def test_a_step_is_the_one_of_its_own_plan_with_rows_behind_the_run_s(changes: Any) -> None:
    own, second = plans(**changes)
    mixed = MixedPlan.join(own, behind(second, QUERIES, NUM_ITEMS), 0.4)
    seen = set()
    for epoch in range(3):
        for step in range(mixed.micro_steps):
            of_second, its_epoch, its_step = mixed.turn(epoch, step)
            seen.add(of_second)
            batch = mixed.joined(epoch, step)
            if not of_second:
                assert_equal_batches(batch, own.joined(its_epoch, its_step))
                assert batch.item_rows.max() < NUM_ITEMS
                continue
            want = second.joined(its_epoch, its_step)
            assert_equal_batches(
                batch,
                replace(
                    want,
                    query_rows=want.query_rows + QUERIES,
                    positive_rows=want.positive_rows + NUM_ITEMS,
                    random_BR=want.random_BR + NUM_ITEMS,
                    item_rows=want.item_rows + NUM_ITEMS,
                ),
            )
    assert seen == {False, True}


def test_ranks_cut_the_steps_that_one_rank_has() -> None:
    one = MixedPlan.join(*plans(), share=0.3)
    for rank in range(2):
        part = replace(MixedPlan.join(*plans(batch_size=2, world=2), share=0.3), rank=rank)
        assert part.micro_steps == one.micro_steps
        for step in range(one.micro_steps):
            rows = part.rows_of(rank)
            assert_equal_batches(part.joined(1, step).rows(rows), one.joined(1, step).rows(rows))


def tables_of(seed: int, queries: int, items: int) -> Tables:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, queries)
    return Tables(
        Vectors(rng.normal(size=(queries, 3)).astype(np.float32)),
        Vectors(rng.normal(size=(items, 3)).astype(np.float32)),
        Labels(
            num_queries=queries,
            num_items=items,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            item_rows=np.concatenate([np.sort(rng.permutation(items)[:count]) for count in counts]),
            scores=rng.integers(-1, 2, counts.sum()).astype(np.int8),
            group_codes=rng.integers(-1, items // 2, items),
            text_codes=rng.integers(0, items // 2, items),
            self_rows=rng.integers(-1, items, queries),
        ),
    )


def test_each_set_s_queries_know_of_its_items_what_they_knew_before() -> None:
    first, second = tables_of(1, 12, 30), tables_of(2, 9, 20)
    both = join_tables(first, second)
    assert (both.labels.num_queries, both.labels.num_items) == (21, 50)
    for tables, queries, items in ((first, 0, 0), (second, 12, 30)):
        rows, columns = np.arange(tables.labels.num_queries), np.arange(tables.labels.num_items)
        np.testing.assert_array_equal(
            both.labels.known_mask(rows + queries, columns + items), tables.labels.known_mask(rows, columns)
        )
        np.testing.assert_array_equal(both.queries.take(rows + queries).values, tables.queries.take(rows).values)
        np.testing.assert_array_equal(both.items.take(columns + items).values, tables.items.take(columns).values)
    assert not both.labels.known_mask(np.arange(12), np.arange(30, 50)).any(), "and nothing of the other set's"
    assert not both.labels.known_mask(np.arange(12, 21), np.arange(30)).any()
