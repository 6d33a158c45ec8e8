"""Slices against hand-worked cases and a slow reference."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from eval.significance import holm, paired_bootstrap, paired_permutation_p
from eval.slices import NONE, Membership, cut_into_ranges, slice_figures

F64 = npt.NDArray[np.float64]


def membership_of(values_Q: list[list[str]]) -> Membership:
    names = sorted({value for values in values_Q for value in values})
    pairs = [(query, names.index(value)) for query, values in enumerate(values_Q) for value in values]
    query, value = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
    return Membership(names, query, value)


def test_slices_average_their_own_queries_and_count_them() -> None:
    per_query: dict[str, F64] = {"m": np.array([1.0, 0.0, np.nan, 0.5, np.nan, 1.0])}
    column = membership_of([["film"], [], ["film"], [], ["book"], ["film", "book", "film"]])
    got = slice_figures(per_query, {"kind": column}, primary="m", least=1)["kind"]
    assert got["slices"] == [
        {"value": NONE, "queries": 2, "metrics": {"m": 0.25}},
        {"value": "film", "queries": 2, "metrics": {"m": 1.0}},
        {"value": "book", "queries": 1, "metrics": {"m": 1.0}},
    ], "a query without a relevant item counts nowhere, a repeated value once"
    assert got["left_out"] == 0


def test_small_slices_and_those_past_the_most_are_counted_only() -> None:
    per_query: dict[str, F64] = {"m": np.ones(9)}
    column = membership_of([["a"]] * 4 + [["b"]] * 3 + [["c"], ["d"]])
    got = slice_figures(per_query, {"x": column}, primary="m", least=2)["x"]
    assert ([row["value"] for row in got["slices"]], got["left_out"]) == (["a", "b"], 2)
    got = slice_figures(per_query, {"x": column}, primary="m", least=1, most=3)["x"]
    assert ([row["value"] for row in got["slices"]], got["left_out"]) == (["a", "b", "c"], 1)
    nobody = Membership([], np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert slice_figures({"m": np.zeros(0)}, {"x": nobody}, primary="m") == {"x": {"slices": [], "left_out": 0}}


def test_every_slice_is_corrected_for_all_slices_of_all_columns() -> None:
    rng = np.random.default_rng(3)
    values, baseline = {"m": rng.random(400), "n": rng.random(400)}, {"m": rng.random(400), "n": rng.random(400)}
    values["m"][:100] += 0.1
    columns = {
        "quarter": membership_of([[str(n // 100)] for n in range(400)]),
        "parity": membership_of([["odd" if n % 2 else "even"] for n in range(400)]),
    }
    got = slice_figures(values, columns, primary="m", baseline=baseline, resamples=2_000)
    rows = [(column, row) for column in got for row in got[column]["slices"]]
    places = {
        "quarter": lambda value: np.arange(400) // 100 == int(value),
        "parity": lambda value: np.arange(400) % 2 == (value == "odd"),
    }
    ps = []
    for column, row in rows:
        inside = places[column](row["value"])
        pair = values["m"][inside], baseline["m"][inside]
        interval = paired_bootstrap(*pair, resamples=2_000)
        ps.append(paired_permutation_p(*pair, resamples=2_000))
        assert row["against_baseline"].keys() == {"mean", "low", "high", "p", "p_adjusted", "significant"}
        assert [row["against_baseline"][name] for name in ("mean", "low", "high", "p")] == [
            interval.mean,
            interval.low,
            interval.high,
            ps[-1],
        ]
    assert [row["against_baseline"]["p_adjusted"] for _, row in rows] == holm(ps)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_membership_equals_looking_at_every_query(values_Q: list[list[str]], random: object) -> None:
    got = membership_of(values_Q).members(len(values_Q))
    want = {value: [q for q, values in enumerate(values_Q) if value in values] for values in values_Q for value in values}
    without = [q for q, values in enumerate(values_Q) if not values]
    assert {value: places.tolist() for value, places in got.items()} == want | ({NONE: without} if without else {})


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.sampled_from([1.0, 2.0])), max_size=60))
def test_ranges_hold_every_number_once_in_order(numbers: list[float]) -> None:
    names, codes = cut_into_ranges(np.array(numbers, np.float64))
    real = np.isfinite(numbers) if numbers else np.zeros(0, bool)
    assert len(names) <= 4
    assert ((codes >= 0) == real).all()
    assert set(codes[real].tolist()) == set(range(len(names))), "no range is empty"
    groups = [np.array(numbers)[codes == code] for code in range(len(names))]
    assert all(before.max() < after.min() for before, after in pairwise(groups))


def test_ranges_are_named_by_what_they_hold() -> None:
    names, codes = cut_into_ranges(np.array([1960.0, 1970, 1980, 1990, 2000, 2010, 2020, 2020]))
    assert names == ["1960 to 1970", "1980 to 1990", "2000 to 2010", "2020"]
    assert codes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
