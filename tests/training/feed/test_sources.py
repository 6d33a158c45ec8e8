"""Mixtures of label sources: caps hold in every epoch, everything has its turn, and people are told what is taken."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.feed.sources import (
    Mixture,
    cumulative_popularity,
    describe,
    describe_sizes,
    draw_items,
    epoch_order,
    kept_caps,
    plan_mixture,
)

SIZES = st.lists(st.integers(0, 80), min_size=1, max_size=4)
CAPS = st.lists(st.sampled_from([0.05, 0.1, 0.2, 0.29, 1 / 3, 0.5, 0.7, 1.0]), min_size=4, max_size=4)
BATCH = st.integers(1, 12)


def mixture_of(sizes: list[int], caps: list[float], batch: int, one_source: bool = False) -> Mixture:
    return plan_mixture(np.array(sizes), np.array(caps[: len(sizes)]), batch, one_source_per_batch=one_source)


def codes_of(sizes: list[int]) -> np.ndarray:
    """Sources in turn, not one after another."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(codes)


def slow_steps(sizes: list[int], caps: list[float], batch: int) -> int:
    """The most steps for which each source, within its cap of them, gives enough together; by trying them all."""
    return max(
        (
            steps
            for steps in range(sum(sizes) // batch + 1)
            if sum(min(size, int(cap * steps * batch + 1e-9)) for size, cap in zip(sizes, caps, strict=False)) >= steps * batch
        ),
        default=0,
    )


@given(SIZES, CAPS, BATCH)
@example([40, 1], [1.0, 0.2, 1.0, 1.0], 5)
@example([100, 80], [1.0, 0.29, 1.0, 1.0], 1)
def test_an_epoch_has_the_most_steps_that_the_caps_allow(sizes: list[int], caps: list[float], batch: int) -> None:
    if any(size and cap == 1 for size, cap in zip(sizes, caps, strict=False)):
        assert mixture_of(sizes, caps, batch).steps == slow_steps(sizes, caps, batch)


@given(SIZES, CAPS, BATCH, st.booleans(), st.integers(0, 50))
def test_caps_hold_exactly_in_the_steps_of_every_epoch(
    sizes: list[int], caps: list[float], batch: int, one_source: bool, epoch: int
) -> None:
    mixture, codes = mixture_of(sizes, caps, batch, one_source), codes_of(sizes)
    if not mixture.steps:
        return
    order, turns = epoch_order(codes, mixture, seed=3, epoch=epoch)
    assert len(order) == len(turns) == mixture.steps * batch
    assert len(np.unique(order)) == len(order), "no example twice"
    shares = np.bincount(codes[order], minlength=len(sizes)) / len(order)
    # where every source has a cap, what is missing to a whole example or batch can come from no other
    free = any(size and cap == 1 for size, cap in zip(sizes, mixture.shares_S, strict=True))
    spare = 0.0 if free else 1 / (mixture.steps if one_source else len(order))
    assert (shares <= mixture.shares_S + spare + 1e-9).all()


@given(SIZES, CAPS, BATCH)
def test_every_batch_is_of_one_source_where_that_is_asked_for(sizes: list[int], caps: list[float], batch: int) -> None:
    mixture, codes = mixture_of(sizes, caps, batch, one_source=True), codes_of(sizes)
    if mixture.steps:
        order, _ = epoch_order(codes, mixture, seed=1, epoch=2)
        of_batch = codes[order].reshape(mixture.steps, batch)
        assert (of_batch == of_batch[:, :1]).all()


def test_batches_of_one_source_come_in_a_mixed_order_another_one_in_each_epoch() -> None:
    mixture, codes = mixture_of([80, 80], [1.0, 1.0], 4, one_source=True), codes_of([80, 80])
    orders = [codes[epoch_order(codes, mixture, seed=1, epoch=epoch)[0]][::4] for epoch in range(2)]
    assert sum(np.diff(orders[0]) != 0) > 10
    assert orders[0].tolist() != orders[1].tolist()


@pytest.mark.parametrize("one_source", [False, True])
def test_all_examples_of_a_capped_source_have_their_turn_and_their_turns_are_counted(one_source: bool) -> None:
    sizes, batch = [40, 97], 4
    mixture, codes = mixture_of(sizes, [1.0, 0.2], batch, one_source), codes_of(sizes)
    epochs = -(-sizes[1] // int(mixture.counts_S[1]))
    assert epochs == (13 if one_source else 11)  # 97 by windows of 2 batches, or of 9 (0.2 of 48)
    seen = np.zeros(sum(sizes), int)
    for epoch in range(3 * epochs):
        order, turns = epoch_order(codes, mixture, seed=5, epoch=epoch)
        capped = codes[order] == 1
        assert (turns[~capped] == epoch).all()
        # an example that a full epoch left out by lot has lost a turn
        assert (seen[order[capped]] <= turns[capped]).all()
        seen[order] += 1
    assert (seen[codes == 1] >= 2).all()
    assert seen[codes == 1].max() - seen[codes == 1].min() <= 2
    assert (seen[codes == 0] >= 3 * epochs - 4).all()


def test_what_fills_no_batch_of_its_source_comes_first_in_the_next_epoch() -> None:
    mixture, codes = mixture_of([11, 8], [1.0, 1.0], 4, one_source=True), codes_of([11, 8])
    first, second = (epoch_order(codes, mixture, seed=2, epoch=epoch)[0] for epoch in range(2))
    left = set(np.flatnonzero(codes == 0)) - set(first)
    assert len(left) == 3
    assert left <= set(second)


def test_an_epoch_is_the_same_whenever_it_is_asked_for() -> None:
    mixture, codes = mixture_of([40, 97], [1.0, 0.2], 4), codes_of([40, 97])
    orders = [epoch_order(codes, mixture, seed=seed, epoch=epoch)[0].tolist() for seed, epoch in ((1, 7), (1, 7), (2, 7), (1, 8))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_without_caps_an_epoch_is_a_permutation_of_all() -> None:
    # the draws of runs with a single source must never change
    mixture = mixture_of([13], [1.0], 4)
    want = np.random.default_rng([6, 3]).permutation(13)[:12]
    assert epoch_order(np.zeros(13, np.int64), mixture, seed=6, epoch=3)[0].tolist() == want.tolist()


def test_a_cap_is_about_a_mixture() -> None:
    # nothing beside it: nothing is dropped
    assert mixture_of([100], [0.2], 10).counts_S.tolist() == [100]
    assert mixture_of([0, 100], [1.0, 0.2], 10).counts_S.tolist() == [0, 100], "a source without examples is none"
    assert kept_caps(np.array([0, 100]), np.array([0.5, 0.2])).tolist() == [1.0, 1.0]


def test_caps_that_add_up_to_less_than_all_become_a_ratio() -> None:
    mixture = mixture_of([1000, 1000], [0.2, 0.3], 10)
    np.testing.assert_allclose(mixture.shares_S, [0.4, 0.6])
    assert mixture.steps == 166
    assert mixture.counts_S.tolist() == [664, 996]


def test_several_capped_sources_are_solved_together() -> None:
    # 60 free examples are half of 120, of which 30 and 30 are a quarter each
    mixture = mixture_of([60, 500, 700], [1.0, 0.25, 0.25], 4)
    assert (mixture.steps, mixture.counts_S.tolist()) == (30, [60, 30, 30])
    # a source below its cap is taken whole
    assert mixture_of([60, 5, 700], [1.0, 0.25, 0.25], 1).counts_S.tolist() == [60, 5, 21]


def test_shares_are_whole_examples() -> None:
    # 0.29 * 100 is 28.999999999999996 to a computer
    assert mixture_of([71, 80], [1.0, 0.29], 1).counts_S.tolist() == [71, 29]
    # no multiple of 7 up to 1,001 has 33.3 % and 66.7 %: the next whole example is taken, not nothing
    mixture = mixture_of([333, 9999], [0.333, 0.667], 7)
    assert (mixture.steps, mixture.counts_S.tolist()) == (143, [333, 668])


def test_batches_of_one_source_never_exceed_a_cap_however_little_there_is_beside() -> None:
    # 20 clicks fill no batch of 32, so that batches of synthetic labels would be all there is
    assert mixture_of([20, 5000], [1.0, 0.2], 32, one_source=True).steps == 0


def test_people_are_told_what_is_taken() -> None:
    names = ("click", "synthetic")
    assert describe(mixture_of([3200, 5000], [1.0, 0.2], 40), names) == (
        "sources: click 3,200 (80 %), synthetic 800 of 5,000 (20 %, capped)"
    )
    assert describe(mixture_of([3210, 50, 25], [1.0, 1.0, 1.0], 32, one_source=True), ("", "cart", "click")) == (
        "sources, one per batch: unnamed 3,200 of 3,210 (99 %), cart 32 of 50 (0.99 %), "
        "click 0 of 25 (0 %, fewer than a batch of 32)"
    )
    assert describe(mixture_of([5000], [0.2], 32), ("synthetic",)) == (
        "sources: synthetic 5,000 (100 %); its cap of 20 % is for mixtures"
    )
    assert describe(mixture_of([1000, 1000], [0.2, 0.3], 10), names) == (
        "sources: click 664 of 1,000 (40 %, capped), synthetic 996 of 1,000 (60 %, capped); the caps add up to 50 % only and "
        "are kept as a ratio"
    )
    assert describe(mixture_of([100], [1.0], 32), ("click",)) is None
    assert describe_sizes(mixture_of([3, 5000], [1.0, 0.2], 32), ("", "synthetic")) == (
        "unnamed 3, synthetic 5,000 with a cap of 20 %"
    )


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_random_items_are_drawn_by_their_popularity(counts: list[int], power: float) -> None:
    drawn = draw_items(np.random.default_rng(4), (400, 25), len(counts), cumulative_popularity(np.array(counts), power))
    weights = (1 + np.array(counts)) ** power
    want = 10_000 * weights / weights.sum()
    got = np.bincount(drawn.ravel(), minlength=len(counts))
    assert ((got - want) ** 2 / want).sum() < 45, "chi-square of at most 11 degrees of freedom; 45 is p = 5e-6"


def test_without_popularity_all_items_are_alike_and_drawn_as_ever() -> None:
    assert cumulative_popularity(np.array([5, 0, 1]), 0.0) is None
    drawn = draw_items(np.random.default_rng([1, 2, 3]), (2, 3), 60, None)
    assert drawn.tolist() == np.random.default_rng([1, 2, 3]).integers(0, 60, (2, 3)).tolist()


def test_the_ends_of_the_popularity_are_reached_and_not_passed() -> None:
    cumulative = cumulative_popularity(np.array([0, 10**9, 0]), 1.0)
    assert cumulative is not None
    assert cumulative[-1] == 1.0
    uniform = cumulative_popularity(np.zeros(7, np.int64), 0.5)
    assert set(draw_items(np.random.default_rng(0), (50, 5), 7, uniform).ravel().tolist()) == set(range(7))
