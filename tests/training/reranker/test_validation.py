"""NDCG of re-ranked hits: by hand, and as the evaluation measures it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.tables.tables import lists_to_csr, read_parts
from eval.metrics import Judgements, per_query_metrics
from training.reranker.task import RerankTask
from training.reranker.validation import DEPTH, Candidates, choose_candidates, ndcg_of
from training.task import read_examples


def test_two_lists_by_hand() -> None:
    chosen = Candidates(
        np.array([0, 1]),
        np.array([[5, 6, 7], [8, 9, -1]]),
        np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]], np.float32),
        np.array([3.0 + 1.0 / np.log2(3), 2.0 + 2.0 / np.log2(3)]),
    )
    got = ndcg_of(np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 9.0]], np.float32), chosen)
    want = [(1.0 + 3.0 / np.log2(3)) / (3.0 + 1.0 / np.log2(3)), 2.0 / (2.0 + 2.0 / np.log2(3))]
    assert got.tolist() == pytest.approx(want), "of equal scores the hits' own order; what is no hit never counts"


@pytest.fixture(scope="module")
def task(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> RerankTask:
    from tests.training.reranker.rerank_worker import prepare

    return prepare(tmp_path_factory.mktemp("task"), cross_encoder)


def test_it_is_the_ndcg_of_the_evaluation(task: RerankTask) -> None:
    told = read_examples(task, graded=True)
    assert told.gains is not None
    chosen = choose_candidates(task, told, told.gains)
    assert chosen is not None
    hits = read_parts(task.store, task.data.near_misses, ["query_row", "item_rows"])
    offsets, rows = lists_to_csr(hits["item_rows"])
    first = [rows[offsets[row] : offsets[row] + DEPTH].tolist() for row in range(hits.num_rows)]
    assert chosen.item_rows.tolist() == first
    scores = np.random.default_rng(0).normal(size=chosen.item_rows.shape).astype(np.float32)
    ordered = np.take_along_axis(chosen.item_rows, np.argsort(-scores, axis=1), axis=1)
    labels = read_parts(task.store, task.data.labels, ["query_row", "item_row", "score", "gain"])
    query_rows, item_rows, grades, gains = (labels[name].to_numpy() for name in labels.column_names)
    judged = Judgements.from_triples(query_rows, item_rows, gains, grades > 0)
    want = per_query_metrics(ordered, chosen.query_rows, judged)["ndcg@10"]
    assert ndcg_of(scores, chosen).tolist() == pytest.approx(want.tolist())
    assert 0 < want.mean() < 1


def test_as_many_queries_are_validated_as_are_asked_for_and_none_without_hits(task: RerankTask) -> None:
    told = read_examples(task, graded=True)
    assert told.gains is not None
    few = choose_candidates(task, told, told.gains, most=5)
    assert few is not None
    assert len(few.query_rows) == 5
    assert choose_candidates(replace(task, data=replace(task.data, near_misses=[])), told, told.gains) is None
