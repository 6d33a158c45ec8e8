"""Exact top-k: equals a float64 brute force, ties by smaller row, the same for every engine and blocking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.tables.tables import F32, I64
from mining.search.engines import SLACK, EngineName, FaissEngine, Proposal
from mining.search.kernels import sort_hits
from mining.search.topk import Lists, Shard, canonical_scores, exact_topk

ENGINES: tuple[EngineName, ...] = ("faiss", "torch", "int8", "half")


def unit(shape: tuple[int, int], seed: int) -> F32:
    vectors = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_topk(queries_QD: F32, items_ND: F32, num_hits: int) -> tuple[F32, I64]:
    """Every pair in float64, rounded once, sorted by (-score, row), padded."""
    scores_QN = (queries_QD.astype(np.float64)[:, None, :] * items_ND.astype(np.float64)[None]).sum(-1)
    scores = np.full((len(queries_QD), num_hits), -np.inf, np.float32)
    rows = np.full((len(queries_QD), num_hits), -1, np.int64)
    for query, line in enumerate(scores_QN.astype(np.float32)):
        best = sorted(range(len(items_ND)), key=lambda row: (-line[row], row))[:num_hits]
        scores[query, : len(best)], rows[query, : len(best)] = line[best], best
    return scores, rows


def check(queries_QD: F32, items_ND: F32, num_hits: int, engine: EngineName) -> None:
    scores, rows = exact_topk(queries_QD, Shard(items_ND, engine), num_hits)
    want_scores, want_rows = slow_topk(queries_QD, items_ND, num_hits)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    assert np.array_equal(rows, want_rows)
    assert np.array_equal(scores, want_scores)


@pytest.mark.parametrize("engine", ENGINES)
def test_topk_worked_by_hand(engine: EngineName) -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0], [1, 0]], np.float32)
    queries = np.array([[1, 0], [0, -1]], np.float32)
    scores, rows = exact_topk(queries, Shard(items, engine), 6)
    assert rows.tolist() == [[0, 4, 2, 1, 3, -1], [0, 3, 4, 2, 1, -1]]
    assert scores[0].tolist() == [1, 1, np.float32(0.6), 0, -1, -np.inf]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("queries", "items", "dimension", "num_hits"),
    [
        (50, 500, 32, 10),
        (3, 500, 384, 100),  # another code path of FAISS: few queries
        (30, 20, 8, 50),  # K > N
        (1, 1, 4, 1),
        (5, 1, 4, 3),
        (1, 300, 16, 300),  # K = N
        (7, 117, 16, 100),  # one item more than is proposed
    ],
)
def test_topk_equals_the_brute_force(queries: int, items: int, dimension: int, num_hits: int, engine: EngineName) -> None:
    check(unit((queries, dimension), 1), unit((items, dimension), 2), num_hits, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("better", [0, 3, 50])
def test_many_identical_vectors_at_the_edge_come_by_smaller_row(engine: EngineName, better: int) -> None:
    # 200 items tie at the edge of K = 10 or around it: far more than the slack
    query = unit((1, 24), 3)
    tied = unit((1, 24), 4)
    near = (query + 0.1 * unit((better, 24), 5)) if better else np.zeros((0, 24), np.float32)
    near /= np.maximum(np.linalg.norm(near, axis=1, keepdims=True), 1e-9)
    far = -query.repeat(100, axis=0)
    items = np.concatenate([near, tied.repeat(200, axis=0), far]).astype(np.float32)
    items = items[np.random.default_rng(6).permutation(len(items))]
    for num_hits in (10, 60):
        assert num_hits + SLACK < 200
        check(np.concatenate([query, unit((4, 24), 7)]), items, num_hits, engine)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(1, 5), st.integers(1, 70), st.sampled_from(ENGINES))
def test_topk_of_coarse_vectors_full_of_ties_equals_the_brute_force(
    queries: int, items: int, dimension: int, num_hits: int, engine: EngineName
) -> None:
    generator = np.random.default_rng(queries * 100 + items)

    def coarse(count: int) -> F32:
        vectors = generator.integers(-1, 2, (count, dimension)).astype(np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1).astype(np.float32)

    check(coarse(queries), coarse(items), num_hits, engine)


def test_the_engines_give_the_same_bytes_also_for_near_ties() -> None:
    base = unit((40, 64), 8)
    items = np.concatenate([base + np.float32(1e-7) * unit((40, 64), seed) for seed in range(20)])
    queries = unit((25, 64), 9)
    want_scores, want_rows = exact_topk(queries, Shard(items, "faiss"), 30)
    for engine in ENGINES[1:]:
        scores, rows = exact_topk(queries, Shard(items, engine), 30)
        assert scores.tobytes() == want_scores.tobytes()
        assert rows.tobytes() == want_rows.tobytes()


def test_a_score_does_not_depend_on_what_is_scored_with_it() -> None:
    queries, items = unit((9, 100), 10), unit((50, 100), 11)
    index = np.random.default_rng(12).integers(-1, 50, (9, 40))
    whole = canonical_scores(queries, items, index)
    assert np.array_equal(np.isneginf(whole), index < 0)
    single = np.array(
        [[canonical_scores(queries[[q]], items, index[[q], k : k + 1])[0, 0] for k in range(40)] for q in range(9)], np.float32
    )
    assert single.tobytes() == whole.tobytes()
    assert canonical_scores(queries, items, np.zeros((9, 0), np.int64)).shape == (9, 0)


def test_proposals_that_are_off_by_float32_rounding_do_not_change_the_hits() -> None:
    class Rough(FaissEngine):
        """An engine as inexact as float32 may be."""

        def propose(self, queries_QD: F32, width: int) -> Proposal:
            exact = queries_QD.astype(np.float64) @ items.T.astype(np.float64)
            noise: npt.NDArray[np.float64] = np.random.default_rng(13).uniform(-1, 1, exact.shape)
            rough = (exact + noise * queries_QD.shape[1] * 2.0**-24).astype(np.float32)
            order = np.argsort(-rough, axis=1)[:, :width]
            return Proposal(
                np.take_along_axis(rough, order, axis=1),
                order,
                np.full(len(queries_QD), queries_QD.shape[1] * 2.0**-23, np.float32),
            )

    center = unit((1, 256), 14)
    items = center + np.float32(2e-5) * unit((400, 256), 15)  # products that differ by less than the rounding
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    scores, rows = exact_topk(center, Shard(items, Rough(items)), 20)
    want_scores, want_rows = slow_topk(center, items, 20)
    assert np.array_equal(rows, want_rows)
    assert np.array_equal(scores, want_scores)


def test_order_puts_padding_last_and_smaller_rows_first() -> None:
    scores = np.array([[0.5, -np.inf, 0.5, 0.9]], np.float32)
    rows = np.array([[7, -1, 3, 9]])
    got_scores, got_rows = sort_hits(scores, rows, 3)
    assert got_rows.tolist() == [[9, 3, 7]]
    assert got_scores.tolist() == [[np.float32(0.9), 0.5, 0.5]]
    assert sort_hits(scores, rows, 9)[1].tolist() == [[9, 3, 7, -1]]


@pytest.mark.parametrize("engine", ENGINES)
def test_excluded_items_are_no_hits_and_cost_no_other_query_its_hits(engine: EngineName) -> None:
    queries, items = unit((6, 16), 16), unit((900, 16), 17)
    _, nearest = slow_topk(queries, items, 900)
    counts = [0, 1, 5, 40, 700, 900]  # from none to all that there is
    excluded = [np.sort(nearest[query, :count]) for query, count in enumerate(counts)]
    lists = Lists(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(excluded))
    scores, rows = exact_topk(queries, Shard(items, engine), 30, lists)
    for query, count in enumerate(counts):
        want = nearest[query, count : count + 30]
        assert rows[query, : len(want)].tolist() == want.tolist()
        assert (rows[query, len(want) :] == -1).all()
    assert np.array_equal(np.isneginf(scores), rows < 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_hits_are_the_same_however_few_candidates_fit_into_memory(engine: EngineName, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, items = unit((40, 12), 18), unit((300, 12), 19)
    items[50:250] = items[50]  # ties, so that the search is widened
    known = Lists(np.arange(41, dtype=np.int64) * 2, np.tile([7, 60], 40))
    want = exact_topk(queries, Shard(items, engine), 20, known)
    for most in (1, 700):
        monkeypatch.setattr("mining.search.topk.MOST_PROPOSED", most)
        got = exact_topk(queries, Shard(items, engine), 20, known)
        assert [found.tobytes() for found in got] == [found.tobytes() for found in want]


class Listening(FaissEngine):
    """Keeps what it was told."""

    heard: float | None = None

    def learn(self, unsettled: float) -> None:
        self.heard = unsettled


@pytest.mark.parametrize("crowded", [0, 2])
def test_an_engine_does_not_learn_from_queries_that_know_unusually_many_items(crowded: int) -> None:
    queries, items = unit((30, 16), 20), unit((2000, 16), 21)
    _, nearest = slow_topk(queries, items, 500)
    counts = np.where(np.arange(30) < crowded, 500, 1)
    known = Lists(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([np.sort(nearest[query, :count]) for query, count in enumerate(counts)]),
    )
    engine = Listening(items)
    exact_topk(queries, Shard(items, engine), 10, known)
    assert engine.heard == 0.0


def test_an_engine_learns_which_share_of_the_queries_it_left_open() -> None:
    items = np.zeros((200, 4), np.float32)
    items[:100, 0], items[100:, 1] = 1.0, np.linspace(0.1, 1.0, 100)
    engine = Listening(items)  # a hundred ties for the first query, none for the three others
    exact_topk(np.eye(4, dtype=np.float32)[[0, 1, 1, 1]], Shard(items, engine), 10)
    assert engine.heard == 0.25
