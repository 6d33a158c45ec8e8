"""Batches are a pure function of (seed, epoch, step), the same for every number of ranks."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ConfigError
from training.feed.batches import Batch, BatchPlan, Examples, describe_mixture, hash_rows
from training.feed.sources import cumulative_popularity, epoch_order
from training.settings import SourceSettings, TrainingSettings

NUM_ITEMS = 60


def offsets_of(lists: list[list[int]]) -> Any:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum([len(row) for row in lists], dtype=np.int64)])


def flat(lists: list[list[int]]) -> Any:
    return np.array([row for values in lists for row in values], np.int64)


def examples_of(positives: list[list[int]], negatives: list[list[int]], names: tuple[str, ...] = ("",)) -> Examples:
    """Query 2i + 1 is example i; sources take turns."""
    count = len(positives)
    return Examples(
        query_rows=np.arange(count, dtype=np.int64) * 2 + 1,
        positive_offsets=offsets_of(positives),
        positive_rows=flat(positives),
        negative_offsets=offsets_of(negatives),
        negative_rows=flat(negatives),
        weights=np.linspace(0.5, 2.0, count, dtype=np.float32),
        source_codes=np.arange(count) % len(names),
        source_names=names,
    )


def plan_of(examples: Examples, **changes: Any) -> BatchPlan:
    usual = {"num_items": NUM_ITEMS, "batch_size": 4, "hard": 3, "random": 2, "seed": 7, "rank": 0, "world": 1}
    return BatchPlan(examples, **{**usual, **changes})


def random_examples(seed: int, count: int = 30, longest: int = 8, names: tuple[str, ...] = ("",)) -> Examples:
    rng = np.random.default_rng(seed)
    positives = [rng.permutation(NUM_ITEMS)[: rng.integers(1, 4)].tolist() for _ in range(count)]
    negatives = [rng.permutation(NUM_ITEMS)[: rng.integers(0, longest + 1)].tolist() for _ in range(count)]
    return examples_of(positives, negatives, names)


def assert_equal_batches(got: Batch, want: Batch) -> None:
    for one in fields(Batch):
        np.testing.assert_array_equal(getattr(got, one.name), getattr(want, one.name), err_msg=one.name)


OPTIONS = st.fixed_dictionaries(
    {
        "caps": st.sampled_from([(), (1.0, 0.3), (0.5, 0.5)]),
        "one_source_per_batch": st.booleans(),
        "cumulative_popularity": st.sampled_from([None, cumulative_popularity(np.arange(NUM_ITEMS), 0.75)]),
        "hard": st.integers(0, 4),
        "random": st.integers(0, 3),
    }
)


@settings(max_examples=50)
@given(st.integers(0, 99), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 5), st.integers(0, 1), OPTIONS)
def test_the_joined_batch_is_the_same_for_every_number_of_ranks(
    seed: int, world: int, epoch: int, step: int, options: dict[str, Any]
) -> None:
    examples = random_examples(seed, count=72, names=("click", "synthetic"))
    one = plan_of(examples, batch_size=12, **options)
    whole = one.joined(epoch, step)
    for rank in range(world):
        plan = plan_of(examples, batch_size=12 // world, rank=rank, world=world, **options)
        assert plan.micro_steps == one.micro_steps
        assert_equal_batches(plan.joined(epoch, step), whole)


@settings(max_examples=20)
@given(st.integers(0, 9), OPTIONS)
def test_a_resumed_plan_draws_what_it_would_have_drawn(seed: int, options: dict[str, Any]) -> None:
    examples = random_examples(seed, count=72, names=("click", "synthetic"))
    running = plan_of(examples, **options)
    for epoch in range(3):
        batches = [running.joined(epoch, step) for step in range(running.micro_steps)]
    assert_equal_batches(plan_of(examples, **options).joined(2, 1), batches[1])
    assert_equal_batches(running.joined(0, 1), plan_of(examples, **options).joined(0, 1))


def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    examples = random_examples(3)
    first, again = plan_of(examples).joined(2, 5), plan_of(examples).joined(2, 5)
    np.testing.assert_array_equal(first.hard_BH, again.hard_BH)
    np.testing.assert_array_equal(first.random_BR, again.random_BR)
    other = plan_of(examples, seed=8).joined(2, 5)
    assert first.query_rows.tolist() != other.query_rows.tolist()


def test_an_epoch_asks_every_query_at_most_once_and_leaves_less_than_a_step() -> None:
    examples = random_examples(1, count=30)
    plan = plan_of(examples, batch_size=4)
    assert plan.micro_steps == 7
    seen = np.concatenate([plan.joined(0, step).query_rows for step in range(plan.micro_steps)])
    assert len(seen) == len(np.unique(seen)) == 28
    later = np.concatenate([plan.joined(1, step).query_rows for step in range(plan.micro_steps)])
    assert seen.tolist() != later.tolist()


def hard_of(plan: BatchPlan, query_row: int, epoch: int) -> list[int]:
    for step in range(plan.micro_steps):
        batch = plan.joined(epoch, step)
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
    assert len({tuple(row) for row in plan.joined(0, 0).hard_BH.tolist()}) > 30


def test_a_query_with_fewer_mined_negatives_is_padded() -> None:
    negatives = [[], [5], [6, 7], [8, 9, 10, 11]]
    plan = plan_of(examples_of([[50], [51], [52], [53]], negatives), hard=3)
    for epoch in range(5):
        batch = plan.joined(epoch, 0)
        by_query = {int(query) // 2: row for query, row in zip(batch.query_rows, batch.hard_BH.tolist(), strict=True)}
        assert by_query[0] == [-1, -1, -1]
        assert sorted(by_query[1]) == [-1, -1, 5]
        assert sorted(by_query[2]) == [-1, 6, 7]
        assert -1 not in by_query[3]
        assert -1 not in batch.item_rows


def test_before_anything_is_mined_there_are_no_hard_negatives() -> None:
    batch = plan_of(examples_of([[50], [51], [52], [53]], [[]] * 4), hard=3).joined(0, 0)
    assert batch.hard_BH.shape == (4, 0)
    assert batch.random_BR.shape == (4, 2)


def test_epochs_take_turns_through_the_positives() -> None:
    plan = plan_of(examples_of([[50, 51, 52], [53], [54, 55], [56]], [[]] * 4))
    seen: dict[int, list[int]] = {}
    for epoch in range(6):
        batch = plan.joined(epoch, 0)
        for query, item in zip(batch.query_rows.tolist(), batch.positive_rows.tolist(), strict=True):
            seen.setdefault(query // 2, []).append(item)
    assert sorted(seen[0]) == [50, 50, 51, 51, 52, 52]
    assert sorted(seen[0][:3]) == [50, 51, 52]
    assert sorted(seen[2]) == [54, 54, 54, 55, 55, 55]


def test_items_of_a_batch_are_each_encoded_once() -> None:
    batch = plan_of(random_examples(5), batch_size=20).joined(0, 0)
    wanted = {*batch.positive_rows.tolist(), *batch.random_BR.ravel().tolist(), *batch.hard_BH.ravel().tolist()} - {-1}
    assert batch.item_rows.tolist() == sorted(wanted)


def test_the_order_of_an_epoch_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        made.append(options["epoch"])
        return epoch_order(*args, **options)

    monkeypatch.setattr("training.feed.batches.epoch_order", counted)
    plan = plan_of(random_examples(1))
    for epoch, step in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (0, 0)):
        plan.joined(epoch, step)
    assert made == [0, 1, 0]


def test_a_rare_example_goes_through_all_its_positives_and_negatives() -> None:
    # a quarter of the capped examples are drawn in an epoch, and each has four positives and two windows of negatives:
    # counted in epochs, the same ones would come up every time
    positives = [[0, 1, 2, 3] if i % 2 else [9] for i in range(32)]
    negatives = [list(range(20, 26)) if i % 2 else [] for i in range(32)]
    plan = plan_of(examples_of(positives, negatives, ("click", "synthetic")), caps=(1.0, 0.2), batch_size=4)
    assert plan.mixture.counts_S.tolist() == [16, 4]
    seen: dict[int, list[tuple[int, frozenset[int]]]] = {}
    for epoch in range(16):
        for step in range(plan.micro_steps):
            batch = plan.joined(epoch, step)
            for query, item, hard in zip(batch.query_rows, batch.positive_rows, batch.hard_BH, strict=True):
                seen.setdefault(int(query), []).append((int(item), frozenset(hard.tolist())))
    for query, drawn in seen.items():
        if query % 4 == 3:
            assert {item for item, _ in drawn} == {0, 1, 2, 3}
            assert frozenset.union(*(hard for _, hard in drawn)) == set(range(20, 26))


def test_settings_make_the_plan() -> None:
    examples = random_examples(2, count=60, names=("", "click", "synthetic"))
    training = TrainingSettings(
        batch_size=4,
        hard_negatives=4,
        random_fraction=0.5,
        random_popularity=0.5,
        label_sources={"click": SourceSettings(cap=0.3), "clik": SourceSettings(weight=2.0)},
    )
    plan = BatchPlan.of(examples, training, num_items=NUM_ITEMS, mined=True, seed=1, rank=1, world=2)
    assert (plan.batch_size, plan.hard, plan.random, plan.rank, plan.world) == (4, 4, 2, 1, 2)
    assert plan.caps == (1.0, 0.3, 0.2)
    counts = np.bincount(examples.positive_rows, minlength=NUM_ITEMS)
    np.testing.assert_array_equal(plan.cumulative_popularity, cumulative_popularity(counts, 0.5))
    assert describe_mixture(plan) == (
        "sources: unnamed 20 (50 %), click 12 of 20 (30 %, capped), synthetic 8 of 20 (20 %, capped); no training label is of "
        '"clik", which training.label_sources names'
    )
    warm_up = BatchPlan.of(
        examples,
        training.model_copy(update={"random_popularity": 0.0, "one_source_per_batch": True}),
        num_items=NUM_ITEMS,
        mined=False,
        seed=1,
        rank=0,
        world=1,
    )
    assert (warm_up.hard, warm_up.random) == (0, 6)
    assert warm_up.cumulative_popularity is None
    codes = dict(zip(examples.query_rows.tolist(), examples.source_codes.tolist(), strict=True))
    for step in range(warm_up.micro_steps):
        assert len({codes[query] for query in warm_up.joined(0, step).query_rows.tolist()}) == 1


def test_one_source_without_a_cap_needs_no_words() -> None:
    assert describe_mixture(plan_of(random_examples(0))) is None


def test_too_few_examples_for_one_step_is_a_config_error() -> None:
    examples = random_examples(0, count=7)
    with pytest.raises(ConfigError, match=r"4 queries on each of 2 rank\(s\), but.*only 7 training queries.*to 3 or less$"):
        plan_of(examples, batch_size=4, world=2)
    assert plan_of(examples, batch_size=3, world=2).micro_steps == 1
    with pytest.raises(ConfigError, match=r"add labels, or use fewer ranks$"):
        plan_of(examples, batch_size=4, world=4)


def test_caps_that_leave_too_little_for_one_step_are_a_config_error() -> None:
    examples = random_examples(0, count=20, names=("click", "synthetic"))
    with pytest.raises(
        ConfigError,
        match=r"caps of their sources \(click 10, synthetic 10 with a cap of 20 %\).*"
        r"set training.batch_size to 12 or less, or raise a cap in training.label_sources$",
    ):
        plan_of(examples, batch_size=16, caps=(1.0, 0.2))
    assert plan_of(examples, batch_size=12, caps=(1.0, 0.2)).micro_steps == 1
    with pytest.raises(
        ConfigError,
        match=r"all of one source \(click 10, synthetic 10\).*to 5 or less, or set "
        r"training.one_source_per_batch = false$",
    ):
        plan_of(examples, batch_size=8, world=2, one_source_per_batch=True)


def test_hashes_are_the_same_on_every_machine() -> None:
    # a change of these numbers changes every batch of every run
    assert hash_rows(0, np.array([0, 1, 2**40])).tolist() == [16294208416658607535, 10451216379200822465, 2296115805719413641]
    assert hash_rows(2**33 + 5, np.array([0])).tolist() == hash_rows(5, np.array([0])).tolist()
    assert hash_rows(1, np.array([0])).tolist() != hash_rows(0, np.array([0])).tolist()


def test_hashes_are_well_mixed() -> None:
    low_bits = hash_rows(3, np.arange(4000)) % np.uint64(4)
    assert np.bincount(low_bits.astype(int)).min() > 900
