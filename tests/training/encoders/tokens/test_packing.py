"""Packs: every text once, never above the budget, and as little padding as a slow search finds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables.tables import I64
from training.encoders.tokens.packing import PASS_SHARE, pack

LENGTHS = st.lists(st.integers(0, 40), max_size=60).map(lambda values: np.array(values, np.int64))


def cost(lengths: I64, packs: list[I64], budget: int) -> float:
    """Padded tokens, and what the passes cost."""
    return sum(max(1, int(lengths[each].max())) * len(each) for each in packs) + len(packs) * budget * PASS_SHARE


def cheapest(lengths: I64, budget: int) -> float:
    """Over every way to cut the sorted texts anywhere."""
    ordered = np.maximum(np.sort(lengths)[::-1], 1)

    @cache
    def rest(start: int) -> float:
        if start == len(ordered):
            return 0.0
        most = max(1, budget // int(ordered[start]))
        return min(
            int(ordered[start]) * (stop - start) + budget * PASS_SHARE + rest(stop)
            for stop in range(start + 1, min(len(ordered), start + most) + 1)
        )

    return rest(0)


def filled(lengths: I64, budget: int) -> list[I64]:
    """Every pack as full as it gets, longest texts first."""
    order, packs = np.argsort(-lengths, kind="stable"), []
    while len(order):
        stop = max(1, budget // max(1, int(lengths[order[0]])))
        packs.append(order[:stop])
        order = order[stop:]
    return packs


@given(LENGTHS, st.integers(1, 300), st.booleans())
def test_every_text_is_in_one_pack_and_longer_ones_come_first(lengths: I64, budget: int, pads: bool) -> None:
    packs = pack(lengths, budget, pads=pads)
    assert sorted(np.concatenate([*packs, np.zeros(0, np.int64)]).tolist()) == list(range(len(lengths)))
    ordered = np.concatenate([lengths[each] for each in packs]) if packs else lengths
    assert (np.diff(ordered) <= 0).all()
    for each in packs:
        size = lengths[each].max() * len(each) if pads else lengths[each].sum()
        assert len(each) == 1 or size <= budget


@given(LENGTHS.filter(len), st.integers(20, 300))
def test_no_cut_costs_much_less(lengths: I64, budget: int) -> None:
    # groups of equal length are not torn apart, which the slow search may do
    got, least = cost(lengths, pack(lengths, budget), budget), cheapest(lengths, budget)
    assert least <= got + 1e-9
    assert got <= cost(lengths, filled(lengths, budget), budget) * 1.05 + 2 * budget * PASS_SHARE


def test_a_step_of_short_texts_of_mixed_length_is_hardly_padded() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.6, 0.6, 80), 3, 120).astype(np.int64)
    padded = [
        cost(lengths, packs, 1024) - len(packs) * 1024 * PASS_SHARE for packs in (pack(lengths, 1024), filled(lengths, 1024))
    ]
    assert padded[0] < 1.2 * lengths.sum()
    assert padded[1] > 1.5 * lengths.sum()
    assert cost(lengths, pack(lengths, 1024), 1024) < 1.02 * cheapest(lengths, 1024)


def test_many_texts_are_packed_as_full_as_before() -> None:
    lengths = np.random.default_rng(1).integers(3, 257, 4096).astype(np.int64)
    got = pack(lengths, 1024)
    assert cost(lengths, got, 1024) < 1.001 * cost(lengths, filled(lengths, 1024), 1024)
    assert len(got) < 1.15 * len(filled(lengths, 1024))


def test_equal_lengths_make_full_packs() -> None:
    assert [len(each) for each in pack(np.full(10, 7, np.int64), 21)] == [3, 3, 3, 1]


@pytest.mark.parametrize("pads", [True, False])
def test_equal_texts_keep_their_order(pads: bool) -> None:
    assert np.concatenate(pack(np.full(100, 5, np.int64), 32, pads=pads)).tolist() == list(range(100))
