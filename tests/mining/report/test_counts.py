"""Figures that add up: worked by hand, against slow references, and the same however the blocks are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.candidates import JUDGED, Candidates
from mining.choice.choose import Chosen
from mining.choice.filters import Filtered
from mining.report.counts import Counts, Reuse, UsedItem, count_block, most_used, percentiles, reuse
from mining.settings import MiningSettings


def candidates(highest: list[float]) -> Candidates:
    """Three candidates for each query, the scores 0.9, 0.8 and 0.7."""
    count, best = len(highest), np.array(highest, np.float32)
    rows = np.arange(3 * count).reshape(count, 3)
    scores = np.tile(np.array([0.9, 0.8, 0.7], np.float32), (count, 1))
    return Candidates(
        np.arange(count),
        rows,
        scores,
        best,
        best,
        best,
        np.full(count, -1),
        np.zeros(count, np.int64),
        np.zeros((count, 3), np.uint8),
        np.tile(np.arange(3), (count, 1)),
    )


def chosen(rows: list[list[int]], scores: list[list[float]], source: list[list[int]]) -> Chosen:
    grid = np.array(rows)
    return Chosen(
        grid,
        np.array(scores, np.float32),
        np.zeros_like(grid),
        np.array(source, np.uint8),
        np.full(grid.shape, np.nan, np.float32),
    )


def filtered(codes: list[list[int]], excluded: list[int] | None = None) -> Filtered:
    """0 alive, 1 dropped by "positive", 2 by "self"."""
    code, names = np.array(codes, np.uint8), ("positive", "self")
    out = np.array(excluded or [0] * len(codes))
    dropped = {"positive": int((code == 1).sum() + out.sum()), "self": int((code == 2).sum())}
    return Filtered(names, code, np.zeros(code.shape, bool), out, 1, dropped)


def test_a_block_is_counted_as_by_hand() -> None:
    """Query 0 has two negatives (one judged), query 1 one that is above its positive, query 2 none, query 3 no positive."""
    found = candidates([0.95, 0.75, 0.9, float("nan")])
    taken = chosen(
        [[0, 1], [3, -1], [-1, -1], [9, 10]],
        [[0.9, 0.85], [0.9, -np.inf], [-np.inf, -np.inf], [0.9, 0.8]],
        [[JUDGED, 0], [2, JUDGED], [JUDGED, JUDGED], [0, 0]],
    )
    left = filtered([[0, 0, 2], [0, 1, 2], [1, 1, 1], [0, 0, 0]], excluded=[2, 0, 1, 0])
    counts = count_block(found, left, taken, MiningSettings(num_negatives=2))
    assert (counts.queries, counts.candidates, counts.survivors, counts.chosen) == (4, 15, 6, 5)
    assert counts.judged == 1, "padding is no judged item"
    assert (counts.queries_short, counts.queries_empty) == (2, 1)
    assert counts.above_positive == 1, "0.9 against 0.75"
    assert counts.from_source == {"model": 3, "bm25": 1, "judged": 1}
    assert counts.dropped == {"positive": 7, "self": 2}
    assert counts.dropped_short == {"positive": 5, "self": 1}, "of queries 1 and 2"
    assert counts.hardness.sum() == 3, "query 3 has nothing to compare with"


def test_counts_add_up_to_those_of_the_whole() -> None:
    generator = np.random.default_rng(3)
    found = candidates(list(generator.uniform(0.6, 1.0, 20)))
    codes = generator.integers(0, 3, (20, 3))
    settings = MiningSettings(num_negatives=2)
    taken = Chosen(np.where(codes == 0, found.rows, -1), found.scores, found.position, found.source, found.scores)
    whole = count_block(found, filtered(codes.tolist()), taken, settings)
    total = Counts()
    for some in (slice(0, 1), slice(1, 8), slice(8, 20)):
        block = Candidates(*(getattr(found, name)[some] for name in list(vars(found))[:10]))
        part = Chosen(*(getattr(taken, name)[some] for name in vars(taken)))
        total.add(count_block(block, filtered(codes[some].tolist()), part, settings))
    assert {**vars(total), "suspected": 0, "hardness": 0} == {**vars(whole), "suspected": 0, "hardness": 0}
    assert total.dropped_short
    assert np.array_equal(total.hardness, whole.hardness)


def test_filters_that_only_some_blocks_have_are_all_in_the_sum() -> None:
    total = Counts(dropped={"a": 1})
    total.add(Counts(dropped={"b": 2, "a": 3}))
    assert total.dropped == {"a": 4, "b": 2}


def test_percentiles_are_those_of_the_numbers_up_to_a_bin() -> None:
    numbers = np.random.default_rng(0).normal(-0.2, 0.1, 10_000).clip(-1, 1)
    histogram = np.histogram(numbers, np.linspace(-1, 1, 401))[0]
    got = percentiles(histogram)
    for percent in (5, 25, 50, 75, 95):
        assert got[f"p{percent}"] == pytest.approx(np.percentile(numbers, percent), abs=0.0051)
    assert percentiles(np.zeros(400, np.int64)) == {}


def test_uses_are_counted_as_by_hand() -> None:
    uses = np.array([1, 0, 1, 0, 3, 0], np.int32)
    assert most_used(uses).tolist() == [4, 0, 2], "most first, then by row; the unused are not named"
    got = reuse(uses, [])
    assert (got.items, got.used, got.top_share) == (6, 3, 0.6)
    assert got.histogram == {"0": 3, "1": 2, "3-4": 1}


def test_even_use_has_no_gini_and_one_item_for_all_nearly_one() -> None:
    assert reuse(np.full(1000, 7, np.int32), []).gini == 0.0
    alone = np.zeros(1000, np.int32)
    alone[17] = 2_000_000_000
    most = [UsedItem("i17", "Seventeen", 2_000_000_000)]
    assert reuse(alone, most) == Reuse(
        items=1000, used=1, top_share=1.0, gini=0.999, histogram={"0": 999, "1073741825-2147483648": 1}, most_used=most
    )
    assert reuse(np.zeros(5, np.int32), []) == Reuse(5, 0, 0.0, 0.0, {"0": 5}, [])
    assert most_used(np.zeros(5, np.int32)).tolist() == []


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300))
def test_reuse_equals_its_definitions(numbers: list[int]) -> None:
    uses = np.array(numbers, np.int32)
    got = reuse(uses, [])
    total, count = sum(numbers), len(numbers)
    if total:
        differences = sum(abs(a - b) for a in numbers for b in numbers)
        assert got.gini == pytest.approx(differences / (2 * count * total), abs=1e-4)
        most = sorted(numbers, reverse=True)[: -(-count // 100)]
        assert got.top_share == pytest.approx(sum(most) / total, abs=1e-4)
    for name, items in got.histogram.items():
        low, _, high = name.partition("-")
        assert items == sum(int(low) <= number <= int(high or low) for number in numbers)
    assert sum(got.histogram.values()) == count
    order = sorted(range(count), key=lambda row: (-numbers[row], row))
    assert most_used(uses).tolist() == [row for row in order if numbers[row]][:10]
