"""Lists around shared centroids: with all of them read the hits are exact, with fewer of them nearly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cluster.tables.tables import F32, I64
from mining.search.engines import SLACK
from mining.search.ivf import ListEngine, train_centroids, usual_lists
from mining.search.kernels import sort_hits
from mining.search.recall import recall_of
from mining.search.topk import Lists, Shard, exact_topk


def unit(vectors_ND: F32) -> F32:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, dimension: int, seed: int, clusters: int = 30) -> F32:
    generator, centers = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((clusters, dimension))
    return unit(centers[generator.integers(0, clusters, count)] + 0.4 * generator.standard_normal((count, dimension)))


def engine_of(items_ND: F32, centroids_LD: F32, probes: int, oversample: float = 2.0) -> ListEngine:
    engine = ListEngine(items_ND, centroids_LD, oversample=oversample)
    engine.probes = probes
    return engine


def searched(
    queries_QD: F32, items_ND: F32, centroids_LD: F32, probes: int, num_hits: int, excluded: Lists | None = None
) -> tuple[F32, I64]:
    return exact_topk(queries_QD, Shard(items_ND, engine_of(items_ND, centroids_LD, probes)), num_hits, excluded)


def slow_lists(engine: ListEngine, items_ND: F32, queries_QD: F32, centroids_LD: F32, enough: int) -> list[set[int]]:
    """Nearest lists one by one until `probes` are read and they hold `enough`, with the lists' lengths counted anew."""
    lengths = np.bincount((items_ND @ centroids_LD.T).argmax(axis=1), minlength=len(centroids_LD))
    result = []
    for scores in queries_QD @ centroids_LD.T:
        order, held, read = np.argsort(-scores, kind="stable"), 0, set()
        for number in order:
            if len(read) >= engine.probes and held >= min(enough, len(items_ND)):
                break
            read.add(int(number))
            held += int(lengths[number])
        result.append(read)
    return result


def test_usual_lists_are_the_power_of_two_nearest_the_root() -> None:
    assert [usual_lists(count) for count in (0, 1, 3, 9, 100, 10_000, 1_000_000, 100_000_000)] == [1, 1, 2, 4, 8, 128, 1024, 8192]


def test_centroids_are_unit_vectors_the_same_every_time_and_no_more_than_the_sample_has() -> None:
    sample = clustered(500, 8, 1)
    centroids = train_centroids(sample, 16, 5)
    assert centroids.shape == (16, 8)
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1.0, atol=1e-5)
    assert train_centroids(sample, 16, 5).tobytes() == centroids.tobytes()
    assert train_centroids(sample, 16, 6).tobytes() != centroids.tobytes()
    assert train_centroids(sample[:5], 64, 5).shape == (5, 8)


def test_lists_to_read_worked_by_hand() -> None:
    centroids = unit(np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32))
    items = unit(np.array([[1, 0.1], [0.1, 1], [0.2, 1], [-0.1, 1], [0, -1]], np.float32))  # lists of 1, 3, 0 and 1
    engine = engine_of(items, centroids, 1)
    query = unit(np.array([[1, 0.5]], np.float32))  # nearest to 0, then 1, then 3, then 2
    for enough, want in ((1, [0]), (2, [0, 1]), (4, [0, 1]), (5, [0, 1, 3]), (9, [0, 1, 3])):
        owners, lists = engine.lists_of(query, enough)
        assert sorted(lists.tolist()) == want
        assert owners.tolist() == [0] * len(want)
    engine.probes = 4
    assert sorted(engine.lists_of(query, 1)[1].tolist()) == [0, 1, 2, 3]
    assert engine.propose(query, 5).index.tolist() == [[0, 2, 1, 3, 4]]


@pytest.mark.parametrize(("lists", "probes", "enough"), [(8, 1, 10), (40, 3, 60), (40, 40, 5), (200, 2, 999), (1, 1, 3)])
def test_the_nearest_lists_are_read_and_as_many_more_as_hold_enough(lists: int, probes: int, enough: int) -> None:
    items, queries = clustered(400, 12, 2), clustered(50, 12, 3)
    centroids = train_centroids(items, lists, 0)
    engine = engine_of(items, centroids, probes)
    engine._step = 16  # several steps over the queries
    owners, numbers = engine.lists_of(queries, enough)
    got: list[set[int]] = [set(numbers[owners == query].tolist()) for query in range(len(queries))]
    assert got == slow_lists(engine, items, queries, centroids, enough)
    assert len(numbers) == sum(len(read) for read in got)  # none twice


@pytest.mark.parametrize(
    ("items", "lists", "dimension", "num_hits"),
    [
        (3000, 64, 24, 50),
        (5000, 2, 16, 10),  # a list is longer than a tile
        (300, 32, 385, 20),
        (60, 100, 8, 5),  # more lists than items
        (40, 8, 1, 10),
        (25, 5, 6, 100),  # K > N
        (1, 1, 4, 3),
    ],
)
def test_with_all_lists_read_the_hits_are_exact(items: int, lists: int, dimension: int, num_hits: int) -> None:
    items_ND, queries_QD = clustered(items, dimension, 4), clustered(70, dimension, 5)
    centroids = train_centroids(items_ND, lists, 0)
    scores, rows = searched(queries_QD, items_ND, centroids, len(centroids), num_hits)
    want_scores, want_rows = exact_topk(queries_QD, Shard(items_ND, "faiss"), num_hits)
    assert np.array_equal(rows, want_rows)
    assert np.array_equal(scores, want_scores)


def test_recall_grows_with_the_lists_that_are_read_and_scores_are_true() -> None:
    items, queries = clustered(4000, 24, 6), clustered(100, 24, 7)
    centroids = train_centroids(items, 64, 0)
    _, exact = exact_topk(queries, Shard(items, "faiss"), 30)
    recalls = []
    for probes in (1, 2, 4, 8, 64):
        scores, rows = searched(queries, items, centroids, probes, 30)
        assert (rows >= 0).all()
        true = (queries.astype(np.float64)[:, None] * items[rows].astype(np.float64)).sum(-1)
        assert np.allclose(scores, true, atol=1e-7)
        assert (np.diff(scores, axis=1) <= 0).all()
        recalls.append(recall_of(rows, exact))
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.95
    assert recalls[-1] == 1.0


def test_one_and_three_shards_read_the_same_lists_and_find_the_same() -> None:
    items, queries = clustered(6000, 16, 8, clusters=8), clustered(60, 16, 9, clusters=8)
    centroids = train_centroids(items, 8, 0)
    one = engine_of(items, centroids, 3)
    _, want = searched(queries, items, centroids, 3, 20)
    cuts, scores, rows = (0, 1900, 4000, 6000), [], []
    for start, stop in pairwise(cuts):
        shard = engine_of(items[start:stop], centroids, 3)
        assert [part.tolist() for part in shard.lists_of(queries, 60)] == [part.tolist() for part in one.lists_of(queries, 60)]
        found = searched(queries, items[start:stop], centroids, 3, 20)
        scores.append(found[0])
        rows.append(np.where(found[1] >= 0, found[1] + start, -1))
    _, got = sort_hits(np.concatenate(scores, axis=1), np.concatenate(rows, axis=1), 20)
    assert np.array_equal(got, want)


def test_a_query_among_empty_and_short_lists_still_gets_all_its_hits() -> None:
    generator = np.random.default_rng(10)
    crowd = unit(np.array([1.0, 0, 0, 0]) + 0.05 * generator.standard_normal((300, 4))).astype(np.float32)
    lonely = unit(np.array([[0, 1.0, 0, 0], [0, 0.9, 0.1, 0]], np.float32))
    items = np.concatenate([lonely, crowd])
    centroids = unit(np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, -1], [1, 0, 0, 0]], np.float32))
    scores, rows = searched(lonely, items, centroids, 1, 40)  # the nearest list holds 2 items, three hold none
    want_scores, want_rows = exact_topk(lonely, Shard(items, "faiss"), 40)
    assert np.array_equal(rows, want_rows)
    assert np.array_equal(scores, want_scores)


def test_known_items_take_no_hits_from_a_query_in_lists_either() -> None:
    items, queries = clustered(2000, 16, 11), clustered(30, 16, 12)
    centroids = train_centroids(items, 64, 0)
    _, nearest = exact_topk(queries, Shard(items, "faiss"), 400)
    counts = np.where(np.arange(30) % 10 == 0, 400, 5)  # some know all that lies near, which is more than is proposed
    known = Lists(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([np.sort(nearest[query, :count]) for query, count in enumerate(counts)]),
    )
    assert counts.max() > 2 * 20 + SLACK
    _, rows = searched(queries, items, centroids, 2, 20, known)
    assert (rows >= 0).all()
    assert not any(set(rows[query]) & set(nearest[query, :count]) for query, count in enumerate(counts))
    _, whole = searched(queries, items, centroids, 64, 20, known)
    assert np.array_equal(whole, exact_topk(queries, Shard(items, "faiss"), 20, known)[1])


def test_a_first_pass_in_eight_bits_that_is_too_narrow_is_widened() -> None:
    # the 20 best of 600 items that 8 bits cannot tell apart: more must be proposed than at first
    generator = np.random.default_rng(13)
    center = unit(generator.standard_normal((1, 64)).astype(np.float32))
    near = unit(center + 0.002 * generator.standard_normal((600, 64)).astype(np.float32))
    items = np.concatenate([near, -near[:5]])  # the far ones make the steps of the scale wide
    centroids = np.concatenate([center, -center])
    engine = engine_of(items, centroids, 1, oversample=1.0)
    _, rows = exact_topk(center, Shard(items, engine), 20)
    assert np.array_equal(rows, exact_topk(center, Shard(items, "faiss"), 20)[1])
    assert engine.width(20) > 20 + SLACK  # it has learnt
