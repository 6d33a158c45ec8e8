"""Metrics against hand-worked cases, a slow reference, and invariants."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import metrics
from eval.metrics import Judgements, metric_name, per_query_metrics, summarise

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Triples = list[tuple[int, int, float]]


def judgements_of(triples: Triples) -> Judgements:
    queries, items, scores = ([t[n] for t in triples] for n in range(3))
    return Judgements.from_triples(np.array(queries, np.int64), np.array(items, np.int64), np.array(scores, np.float64))


def padded(hits: list[int], width: int) -> list[int]:
    return hits + [-1] * (width - len(hits))


def slow_metrics(hits: list[int], gains: Mapping[int, float], compatible: bool) -> dict[str, float]:
    """One query straight from the definitions; `hits` has its padding, `gains` the judged items."""
    relevant = {item for item, gain in gains.items() if gain > 0}
    want: dict[str, float] = {}
    for k in (1, 3, 5, 10, 100):
        in_top = len(relevant & set(hits[:k]))
        want[f"recall@{k}"] = in_top / len(relevant) if relevant else math.nan
        want[f"hit@{k}"] = float(in_top > 0)
    dcg = sum(gains.get(item, 0.0) / math.log2(n + 2) for n, item in enumerate(hits[:10]))
    ideal = sum(gain / math.log2(n + 2) for n, gain in enumerate(sorted(gains.values(), reverse=True)[:10]))
    want["ndcg@10"] = dcg / ideal if ideal else math.nan
    want["mrr@10"] = next((1 / (n + 1) for n, item in enumerate(hits[:10]) if item in relevant), 0.0)
    precisions = [len(relevant & set(hits[: n + 1])) / (n + 1) for n, item in enumerate(hits[:100]) if item in relevant]
    want["map@100"] = sum(precisions) / len(relevant) if relevant else math.nan
    first = hits[0]
    acceptable = first >= 0 and (first in relevant or (compatible and first not in gains))
    want["bad_top1"] = float(not acceptable)
    return want if relevant else dict.fromkeys(want, math.nan)


def random_case(seed: int) -> tuple[I64, I64, Triples, npt.NDArray[np.bool_]]:
    """Graded and judged-irrelevant labels, queries with no positive or no label, short and empty hit lists."""
    rng = np.random.default_rng(seed)
    num_queries, width, num_items = 60, 120, 300
    hits_QK = np.full((num_queries, width), -1, dtype=np.int64)
    triples: Triples = []
    for query in range(num_queries):
        real = int(rng.choice([0, 1, 7, 50, width]))
        hits_QK[query, :real] = rng.permutation(num_items)[:real]
        likely = np.concatenate([hits_QK[query, :4][hits_QK[query, :4] >= 0], rng.permutation(num_items)[:30]])
        judged = np.unique(rng.choice(likely, size=int(rng.choice([0, 1, 3, 25]))))
        top = 0 if query % 7 == 0 else 3
        triples += [(5 * query, int(item), float(rng.integers(0, top + 1))) for item in judged]
    return hits_QK, 5 * np.arange(num_queries), triples, rng.random(num_queries) < 0.5


def test_hand_worked_graded_ranking() -> None:
    judgements = judgements_of([(7, 1, 3), (7, 2, 1), (7, 9, 2), (7, 5, 0)])
    hits_QK = np.array([padded([4, 1, 5, 2], 100)])
    got = per_query_metrics(hits_QK, np.array([7]), judgements)
    dcg, ideal = 3 / math.log2(3) + 1 / math.log2(5), 3 + 2 / math.log2(3) + 1 / 2
    want = {
        "recall@1": 0, "hit@1": 0, "recall@3": 1 / 3, "hit@3": 1, "recall@5": 2 / 3, "hit@5": 1, "recall@10": 2 / 3,
        "hit@10": 1, "recall@100": 2 / 3, "hit@100": 1, "ndcg@10": dcg / ideal, "mrr@10": 1 / 2,
        "map@100": (1 / 2 + 2 / 4) / 3, "bad_top1": 1,
    }  # fmt: skip
    assert list(got) == list(want)
    assert {name: float(values[0]) for name, values in got.items()} == pytest.approx(want, abs=1e-15)


def test_what_is_graded_and_not_relevant_counts_in_ndcg_alone() -> None:
    judgements = Judgements.from_triples(
        np.array([7, 7, 7]), np.array([1, 2, 9]), np.array([3.0, 1.0, 2.0]), np.array([True, False, True])
    )
    hits_QK = np.array([padded([2, 4, 1], 100)])
    got = {name: float(values[0]) for name, values in per_query_metrics(hits_QK, np.array([7]), judgements).items()}
    assert got["ndcg@10"] == pytest.approx((1 + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2))
    assert (got["hit@1"], got["recall@3"], got["mrr@10"], got["map@100"]) == pytest.approx((0, 1 / 2, 1 / 3, 1 / 6))
    assert got["bad_top1"] == 1, "judged irrelevant outweighs what is compatible"
    only_low = Judgements.from_triples(np.array([7]), np.array([1]), np.array([1.0]), np.array([False]))
    assert all(np.isnan(values[0]) for values in per_query_metrics(hits_QK, np.array([7]), only_low).values())


def test_recall_divides_by_all_relevant_items_even_beyond_k() -> None:
    judgements = judgements_of([(0, item, 1) for item in range(4)])
    assert per_query_metrics(np.array([[0]]), np.array([0]), judgements, ks=(1,))["recall@1"][0] == 1 / 4


def test_cuts_are_sharp_at_ten_and_hundred() -> None:
    judgements = judgements_of([(0, 10, 1), (1, 9, 1), (2, 100, 1), (3, 99, 1)])
    got = per_query_metrics(np.tile(np.arange(120), (4, 1)), np.arange(4), judgements)
    assert got["mrr@10"].tolist() == [0, 1 / 10, 0, 0]
    assert got["ndcg@10"].tolist() == [0, 1 / math.log2(11), 0, 0]
    assert got["map@100"].tolist() == [1 / 11, 1 / 10, 0, 1 / 100]
    assert got["recall@100"].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_random_rankings_equal_slow_reference(seed: int) -> None:
    hits_QK, query_rows_Q, triples, compatible_Q = random_case(seed)
    got = per_query_metrics(hits_QK, query_rows_Q, judgements_of(triples), compatible_top1_Q=compatible_Q)
    for n, query in enumerate(query_rows_Q):
        gains = {item: score for q, item, score in triples if q == query}
        want = slow_metrics(hits_QK[n].tolist(), gains, bool(compatible_Q[n]))
        assert {name: float(values[n]) for name, values in got.items()} == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_small_blocks_equal_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    hits_QK, query_rows_Q, triples, _ = random_case(3)
    want = per_query_metrics(hits_QK, query_rows_Q, judgements_of(triples))
    monkeypatch.setattr(metrics, "_BLOCK_CELLS", 500)
    got = per_query_metrics(hits_QK, query_rows_Q, judgements_of(triples))
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


@st.composite
def cases(draw: st.DrawFn) -> tuple[I64, Judgements]:
    num_queries, width = draw(st.integers(0, 6)), draw(st.integers(0, 13))
    item = st.integers(0, 15)
    rankings = [draw(st.lists(item, max_size=width, unique=True)) for _ in range(num_queries)]
    hits_QK = np.array([padded(hits, width) for hits in rankings], dtype=np.int64).reshape(num_queries, width)
    score = st.one_of(st.integers(0, 3).map(float), st.floats(0, 1e6))
    triples = draw(st.lists(st.tuples(st.integers(0, 6), item, score), max_size=60))
    return hits_QK, judgements_of(triples)


@settings(deadline=None, max_examples=150)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_metrics_lie_in_unit_range_and_follow_query_order(case: tuple[I64, Judgements], seed: int) -> None:
    hits_QK, judgements = case
    rows_Q = np.arange(len(hits_QK))
    order = np.random.default_rng(seed).permutation(len(hits_QK))
    compatible_Q = hits_QK.sum(axis=1) % 2 == 0
    want = per_query_metrics(hits_QK, rows_Q, judgements, compatible_top1_Q=compatible_Q)
    got = per_query_metrics(hits_QK[order], rows_Q[order], judgements, compatible_top1_Q=compatible_Q[order])
    missing_Q = np.isnan(want["bad_top1"])
    for name, values_Q in want.items():
        np.testing.assert_array_equal(got[name], values_Q[order])
        np.testing.assert_array_equal(np.isnan(values_Q), missing_Q)
        assert values_Q.dtype == np.float64
        assert values_Q.shape == rows_Q.shape
        assert ((values_Q[~missing_Q] >= 0) & (values_Q[~missing_Q] <= 1)).all()


@settings(deadline=None, max_examples=50)
@given(gains=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_ideal_order_scores_one_everywhere(gains: list[float]) -> None:
    best_first = sorted(range(len(gains)), key=lambda item: -gains[item])
    judgements = judgements_of([(0, item, gain) for item, gain in enumerate(gains)])
    got = per_query_metrics(np.array([padded(best_first, 100)]), np.array([0]), judgements)
    assert [got[name][0] for name in ("ndcg@10", "mrr@10", "map@100", "recall@100", "hit@1")] == [1] * 5
    assert got["bad_top1"][0] == 0


def test_bad_top1_follows_label_then_compatibility() -> None:
    # First hit: relevant, judged irrelevant, unjudged and compatible, unjudged and not, no hit at all.
    hits_QK = np.array([[0, 9], [1, 9], [2, 9], [3, 9], [-1, -1]])
    judgements = judgements_of([(q, item, score) for q in range(5) for item, score in ((0, 1), (1, 0))])
    compatible_Q = np.array([False, True, True, False, True])
    before = compatible_Q.copy()
    alone = per_query_metrics(hits_QK, np.arange(5), judgements)["bad_top1"]
    informed = per_query_metrics(hits_QK, np.arange(5), judgements, compatible_top1_Q=compatible_Q)["bad_top1"]
    assert alone.tolist() == [0, 1, 1, 1, 1]
    assert informed.tolist() == [0, 1, 0, 1, 1]
    assert (compatible_Q == before).all()


@pytest.mark.parametrize(
    ("width", "want"),
    [
        (0, ["bad_top1"]),
        (4, ["recall@1", "hit@1", "recall@3", "hit@3", "bad_top1"]),
        (10, [f"{name}@{k}" for k in (1, 3, 5, 10) for name in ("recall", "hit")] + ["ndcg@10", "mrr@10", "bad_top1"]),
    ],
)
def test_metrics_cut_above_the_kept_hits_are_left_out(width: int, want: list[str]) -> None:
    got = per_query_metrics(np.full((1, width), -1), np.array([0]), judgements_of([(0, 0, 1)]))
    assert list(got) == want
    assert got["bad_top1"][0] == 1


def test_repeated_pair_keeps_its_largest_score_in_any_order() -> None:
    triples: Triples = [(3, 1, 0), (0, 4, 2), (3, 1, 2), (3, 0, 1), (3, 1, 1)]
    for shift in range(len(triples)):
        got = judgements_of(triples[shift:] + triples[:shift])
        assert got.query_rows.tolist() == [0, 3]
        assert got.offsets.tolist() == [0, 1, 3]
        assert got.item_rows.tolist() == [4, 0, 1]
        assert got.gains.tolist() == [2, 1, 2]


def test_no_judgements_at_all_give_nan() -> None:
    got = per_query_metrics(np.array([[1, 2]]), np.array([0]), judgements_of([]), ks=(1, 2))
    assert all(np.isnan(values).all() for values in got.values())


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        ([(0, 1, -1)], "gain -1.0 in triple 0"),
        ([(0, 1, 1), (0, 1, math.nan)], "gain nan in triple 1"),
        ([(-1, -1, 1)], "query row -1"),
        ([(0, -2, 1)], "item row -2"),
    ],
)
def test_bad_triples_are_named(triples: Triples, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judgements_of(triples)


@pytest.mark.parametrize(
    ("query_rows", "offsets", "item_rows", "gains", "message"),
    [
        ([0], [0, 2], [1], [1.0], "offsets"),
        ([0], [], [1], [1.0], "offsets"),
        ([0, 1, 2], [0, 1, 0, 1], [1], [1.0], "offsets"),
        ([1, 1], [0, 1, 2], [1, 1], [1.0, 1.0], "query_rows"),
        ([0], [0, 2], [1, 1], [1.0, 1.0], "item_rows"),
        ([0], [0, 1], [1], [math.inf], "gains"),
    ],
)
def test_judgements_refuse_broken_arrays(
    query_rows: list[int], offsets: list[int], item_rows: list[int], gains: list[float], message: str
) -> None:
    rows, ends, items = (np.array(values, dtype=np.int64) for values in (query_rows, offsets, item_rows))
    with pytest.raises(ValueError, match=message):
        Judgements(rows, ends, items, np.array(gains), np.array(gains) > 0)


def test_a_relevant_item_without_a_gain_is_refused() -> None:
    one = np.array([1])
    with pytest.raises(ValueError, match="true only where the gain is above 0"):
        Judgements.from_triples(one, one, np.array([0.0]), np.array([True]))


def test_bad_hits_are_named() -> None:
    judgements, rows = judgements_of([(0, 1, 1), (8, 4, 1)]), np.array([0, 8])
    good = np.array([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="one row per query: 2 queries, found 1"):
        per_query_metrics(good[:1], rows, judgements)
    with pytest.raises(ValueError, match="integers in 2"):
        per_query_metrics(good.astype(np.float32), rows, judgements)
    with pytest.raises(ValueError, match="found -2"):
        per_query_metrics(np.array([[1, 2], [3, -2]]), rows, judgements)
    with pytest.raises(ValueError, match="behind it in row 1"):
        per_query_metrics(np.array([[1, 2], [-1, 3]]), rows, judgements)
    with pytest.raises(ValueError, match="item row 4 twice for query row 8"):
        per_query_metrics(np.array([[1, 2], [4, 4]]), rows, judgements)
    with pytest.raises(ValueError, match="found \\(0,\\)"):
        per_query_metrics(good, rows, judgements, ks=(0,))
    with pytest.raises(ValueError, match="compatible_top1_Q must be bool"):
        per_query_metrics(good, rows, judgements, compatible_top1_Q=np.array([True]))


def test_summary_leaves_nan_out_and_is_plain() -> None:
    got = summarise({"a": np.array([1.0, np.nan, 0.0]), "b": np.array([np.nan]), "c": np.array([])})
    assert got["a"] == 0.5
    assert math.isnan(got["b"])
    assert math.isnan(got["c"])
    assert {type(value) for value in got.values()} == {float}


def test_metrics_have_names_for_a_person() -> None:
    assert [metric_name(name) for name in ("recall@3", "hit@5", "ndcg@10", "mrr@10", "map@100", "bad_top1")] == [
        "Recall@3",
        "Hit@5",
        "NDCG@10",
        "MRR@10",
        "MAP@100",
        "bad top-1",
    ]
