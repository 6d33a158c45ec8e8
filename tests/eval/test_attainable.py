"""What a perfect model gets: by hand, and against the metrics of a ranking that is perfect."""

from __future__ import annotations

import numpy as np
import pytest

from eval.attainable import attainable
from eval.metrics import Judgements, per_query_metrics, summarise


def test_more_relevant_items_than_places_keep_recall_below_one() -> None:
    query_rows = np.repeat([3, 5], [2, 10])
    judgements = Judgements.from_triples(query_rows, np.arange(12), np.ones(12))
    best = attainable(["recall@1", "recall@3", "hit@1", "bad_top1"], np.array([5, 3]), judgements)
    assert best["recall@1"].tolist() == [0.1, 0.5]
    assert best["recall@3"].tolist() == [pytest.approx(0.3), 1.0]
    assert best["hit@1"].tolist() == [1.0, 1.0]
    assert best["bad_top1"].tolist() == [0.0, 0.0]
    assert summarise(best)["recall@3"] == pytest.approx(0.65)


def test_a_query_without_a_relevant_item_has_no_best() -> None:
    judgements = Judgements.from_triples(np.array([0, 1]), np.array([0, 0]), np.array([1.0, 0.0]))
    best = attainable(["recall@3", "ndcg@10"], np.array([0, 1, 7]), judgements)
    assert [np.isnan(values).tolist() for values in best.values()] == [[False, True, True]] * 2


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_a_perfect_ranking_gets_and_no_ranking_gets_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, items = 12, 150
    labels = [(q, item, rng.integers(0, 4)) for q in range(queries) for item in rng.permutation(items)[: rng.integers(1, 130)]]
    query, item, gain = (np.array(column) for column in zip(*labels, strict=True))
    judgements = Judgements.from_triples(query, item, gain)
    gains = np.zeros((queries, items))
    gains[query, item] = gain
    perfect = np.argsort(-gains, axis=1, kind="stable")
    reached = per_query_metrics(perfect, np.arange(queries), judgements)
    best = attainable(reached, np.arange(queries), judgements)
    shuffled = per_query_metrics(rng.permuted(perfect, axis=1), np.arange(queries), judgements)
    for name, values in best.items():
        np.testing.assert_allclose(values, reached[name], atol=1e-12, err_msg=name)
        worse = shuffled[name] - values if name == "bad_top1" else values - shuffled[name]
        assert (worse[~np.isnan(worse)] >= -1e-12).all(), name
