"""Choosing, building and measuring an index: budgets, recall against a slow reference, the same bytes again."""

from __future__ import annotations

import functools

import faiss
import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.tables.tables import F32
from jobs.serving.export.index import (
    FEW,
    KINDS,
    MANY,
    Budget,
    IndexKind,
    build_index,
    candidates,
    choose_index,
    exact_scores,
    index_bytes,
    recall_of,
)


def unit(rows: int, dimension: int, seed: int = 0) -> F32:
    """Vectors in a few clusters, as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((40, dimension))
    values = centres[rng.integers(0, 40, rows)] + 0.6 * rng.standard_normal((rows, dimension))
    result: F32 = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return result


ITEMS, QUERIES = unit(10_500, 16), unit(60, 16, 2)


@functools.cache
def serialized(kind: IndexKind) -> bytes:
    """An index of 4,000 items, as bytes."""
    return faiss.serialize_index(build_index(kind, ITEMS[:4000])).tobytes()


@pytest.mark.parametrize(
    ("items", "budget", "first"),
    [
        (FEW, Budget(), "flat"),
        (FEW, Budget(memory_mb=20), "sq8"),
        (FEW, Budget(memory_mb=6.5), "ivfpq"),
        (FEW + 1, Budget(), "hnsw"),
        (FEW + 1, Budget(memory_mb=80), "ivf"),
        (MANY, Budget(), "ivf"),
        (500, Budget(), "flat"),
        (FEW + 1, Budget(kind="flat"), "flat"),
    ],
)
def test_the_kind_follows_from_size_and_memory(items: int, budget: Budget, first: IndexKind) -> None:
    assert candidates(items, 384, budget)[0] == first


def test_every_candidate_fits_the_memory() -> None:
    for megabytes in (5, 8, 20, 80, 200):
        kinds = candidates(100_000, 128, Budget(memory_mb=megabytes))
        assert kinds
        assert all(index_bytes(kind, 100_000, 128) <= 1e6 * megabytes for kind in kinds)


@pytest.mark.parametrize(
    ("items", "budget", "words"),
    [
        (100_000, Budget(memory_mb=1), ["no index of 100,000 vectors", "ivfpq", "raise it"]),
        (500, Budget(kind="ivf"), ["--index ivf needs 1,000 items", "found 500", "take flat"]),
        (100_000, Budget(kind="flat", memory_mb=10), ["flat 153.6 MB"]),
    ],
)
def test_a_budget_that_nothing_fits_is_refused_with_sizes(items: int, budget: Budget, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        candidates(items, 384, budget)
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_that_is_promised_is_the_size_that_is_built(kind: IndexKind) -> None:
    assert len(serialized(kind)) == pytest.approx(index_bytes(kind, 4000, 16), rel=0.12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_are_the_same_bytes_again(kind: IndexKind) -> None:
    assert faiss.serialize_index(build_index(kind, ITEMS[:4000])).tobytes() == serialized(kind)


def test_recall_is_that_of_a_slow_reference() -> None:
    exact = exact_scores(ITEMS, QUERIES)
    scores = QUERIES @ ITEMS.T
    np.testing.assert_allclose(exact, -np.sort(-scores, axis=1)[:, :10], rtol=1e-6)
    want_QK = np.argsort(-scores, axis=1)[:, :10]
    assert recall_of(want_QK, ITEMS, QUERIES, exact) == 1.0
    got_QK = want_QK.copy()
    got_QK[:, 7:] = np.argsort(scores, axis=1)[:, :3]  # the farthest
    got_QK[0, 0] = -1
    assert recall_of(got_QK, ITEMS, QUERIES, exact) == pytest.approx((7 * 60 - 1) / 600)


def test_of_equal_items_any_counts() -> None:
    twice = np.concatenate([ITEMS[:200], ITEMS[:200]])
    exact = exact_scores(twice, QUERIES)
    rows = np.argsort(-(QUERIES @ twice.T), axis=1, kind="stable")[:, :10]
    assert recall_of((rows + 200) % 400, twice, QUERIES, exact) == 1.0


def test_few_items_have_fewer_than_ten_neighbours() -> None:
    index, choice = choose_index(ITEMS[:4], QUERIES, Budget())
    assert (index.ntotal, choice.kind, choice.recall) == (4, "flat", 1.0)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_is_tuned_to_the_recall_and_no_further(kind: IndexKind) -> None:
    low, high = (choose_index(ITEMS, QUERIES, Budget(kind=kind, min_recall=recall))[1] for recall in (0.5, 0.98))
    assert low.recall >= 0.5
    assert high.recall >= 0.98
    assert low.setting < high.setting or kind == "hnsw"
    assert low.lasting.keys() == {"kind", "setting", "recall", "queries", "megabytes"}, "no time: it differs each time"


def test_what_does_not_reach_the_recall_is_passed_over_and_told() -> None:
    _, choice = choose_index(ITEMS, QUERIES, Budget(memory_mb=0.4, min_recall=0.3))
    assert choice.kind == "sq8"
    with pytest.raises(ConfigError, match=r"no index keeps --min-recall 1.*sq8: recall@10 0\.9.*more memory"):
        choose_index(ITEMS, QUERIES, Budget(memory_mb=0.25, min_recall=1.0))


def test_a_latency_that_nothing_keeps_is_refused_with_what_was_measured() -> None:
    with pytest.raises(ConfigError, match=r"--latency-ms 1e-06.*flat: recall@10 1\.000.*hnsw.*give more time"):
        choose_index(ITEMS[:2000], QUERIES, Budget(latency_ms=1e-6))
