"""Every metric that trec_eval has, against trec_eval itself (pytrec_eval binds its C code), to 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from eval.metrics import Judgements, per_query_metrics
from jobs.demo.catalogue import generate_catalogue

pytrec_eval = pytest.importorskip("pytrec_eval")

I64 = npt.NDArray[np.int64]
Triples = list[tuple[int, int, int]]
THEIRS = {
    **{f"recall@{k}": f"recall_{k}" for k in (1, 3, 5, 10, 100)}, **{f"hit@{k}": f"success_{k}" for k in (1, 3, 5, 10, 100)},
    "ndcg@10": "ndcg_cut_10", "mrr@10": "recip_rank", "map@100": "map_cut_100",
}  # fmt: skip
MEASURES = {"recall.1,3,5,10,100", "success.1,3,5,10,100", "ndcg_cut.10", "map_cut.100"}


def named(item: int) -> str:
    """Ids whose order is the other way round: of equal scores trec_eval takes the larger id, we the smaller row."""
    return f"{10**6 - item:07d}"


def theirs(scored: list[dict[int, float]], triples: Triples, level: int = 1) -> dict[str, dict[str, float]]:
    """trec_eval's figures per query: its own sort of the scores, and reciprocal rank of the ten best alone."""
    qrels: dict[str, dict[str, int]] = {}
    for query, item, score in triples:
        qrels.setdefault(str(query), {})[named(item)] = score
    run = {str(query): {named(item): score for item, score in found.items()} for query, found in enumerate(scored)}
    top = {query: dict(sorted(found.items(), key=lambda pair: (-pair[1], -int(pair[0])))[:10]) for query, found in run.items()}
    whole = pytrec_eval.RelevanceEvaluator(qrels, MEASURES, relevance_level=level).evaluate(run)
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}, relevance_level=level).evaluate(top)
    return {query: figures | first[query] for query, figures in whole.items()}


def hits_of(scored: list[dict[int, float]], width: int) -> I64:
    """As the search orders them: equal scores by smaller row, -1 after the last."""
    ranked = [[item for item, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))] for found in scored]
    return np.array([hits[:width] + [-1] * (width - len(hits)) for hits in ranked], np.int64)


def compare_all(scored: list[dict[int, float]], triples: Triples, width: int, level: int = 1) -> int:
    """Compare every metric of every query; returns how many were compared."""
    rows = np.array(triples, np.int64).reshape(-1, 3)
    judgements = Judgements.from_triples(*rows.T, relevant=rows[:, 2] >= level)
    got = per_query_metrics(hits_of(scored, width), np.arange(len(scored)), judgements)
    want = theirs(scored, triples, level)
    compared = 0
    for query in range(len(scored)):
        relevant = any(score >= level for asked, _, score in triples if asked == query)
        for ours, name in THEIRS.items():
            value = float(got[ours][query])
            if not relevant:
                assert np.isnan(value), "ours says that there is nothing to measure"
                assert ours == "ndcg@10" or want.get(str(query), {}).get(name, 0.0) == 0.0, "trec_eval says 0"
            else:  # trec_eval leaves out a query for which nothing was found
                assert value == pytest.approx(want[str(query)][name] if scored[query] else 0.0, abs=1e-9), (query, ours)
                compared += 1
        if relevant:
            assert got["bad_top1"][query] == 1 - (want[str(query)]["success_1"] if scored[query] else 0.0)
    return compared


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("graded", "level"), [(False, 1), (True, 1), (True, 2), (True, 3)])
def test_random_rankings_equal_trec_eval_at_every_level_of_relevance(seed: int, graded: bool, level: int) -> None:
    """Ties, short and empty lists, items judged irrelevant, queries without a relevant item or without any label."""
    rng = np.random.default_rng(seed)
    scored: list[dict[int, float]] = []
    triples: Triples = []
    for query in range(80):
        items = rng.permutation(400)[: int(rng.choice([0, 1, 8, 60, 120]))]
        values = rng.integers(0, 30, len(items)) if query % 2 else rng.random(len(items))  # every other one with many ties
        scored.append({int(item): float(value) for item, value in zip(items, values, strict=True)})
        likely = np.concatenate([items[:12], rng.permutation(400)[:20]])
        top = 0 if query % 9 == 0 else 4 if graded else 1
        triples += [
            (query, int(item), int(rng.integers(0, top + 1)))
            for item in np.unique(rng.choice(likely, size=int(rng.choice([0, 1, 3, 25]))))
        ]
    assert compare_all(scored, triples, 120, level) > 400


def test_a_bag_of_words_ranking_of_the_catalogue_equals_trec_eval() -> None:
    catalogue = generate_catalogue(num_titles=300, num_queries=200)
    items: list[Any] = catalogue.corpus["id"].to_pylist()
    queries = catalogue.queries["id"].to_pylist()
    vectors = [bag_of_words(table["text"].to_pylist()) for table in (catalogue.corpus, catalogue.queries)]
    scores = vectors[1] @ vectors[0].T  # small counts: many ties
    scored = [{int(item): float(row[item]) for item in np.argsort(-row, kind="stable")[:100]} for row in scores]
    labels = catalogue.qrels.to_pylist()
    triples = [(queries.index(row["query_id"]), items.index(row["item_id"]), row["score"]) for row in labels]
    assert {score for _, _, score in triples} == {0, 1, 2}
    assert compare_all(scored, triples, 100) > 2000


def bag_of_words(texts: list[str]) -> npt.NDArray[np.float64]:
    """[N, 4096] counts of words, by a code of the word."""
    vectors = np.zeros((len(texts), 4096))
    for row, text in enumerate(texts):
        for word in text.lower().split():
            vectors[row, sum(ord(letter) * 31**place for place, letter in enumerate(word)) % 4096] += 1
    return vectors
