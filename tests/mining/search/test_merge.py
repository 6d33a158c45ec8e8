"""Hits of 1 … 8 disjoint shards merge to those of one shard that holds everything."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.tables.tables import F32
from mining.search.block_actor import BlockHits, merge_hits
from mining.search.shards import plan_shards
from mining.search.topk import Shard, exact_topk


def coarse(count: int, dimension: int, seed: int) -> F32:
    vectors = np.random.default_rng(seed).integers(-2, 3, (count, dimension)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1).astype(np.float32)


def found_in(queries_QD: F32, items_ND: F32, start: int, num_hits: int, seconds: float = 0.0) -> BlockHits:
    scores, places = exact_topk(queries_QD, Shard(items_ND, "faiss"), num_hits)
    # one judged item per query, item 3: known only to the shard that holds it
    here = start <= 3 < start + len(items_ND)
    labels = queries_QD @ items_ND[3 - start] if here else np.full(len(queries_QD), -np.inf, np.float32)
    return BlockHits(scores, np.where(places >= 0, places + start, -1), labels.astype(np.float32), seconds)


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(8, 40), st.integers(1, 50), st.integers(0, 99), st.randoms(use_true_random=False))
def test_merging_shards_equals_searching_one_index(shards: int, items: int, num_hits: int, seed: int, random: Random) -> None:
    queries_QD, items_ND = coarse(5, 3, seed), coarse(items, 3, seed + 1)
    want = found_in(queries_QD, items_ND, 0, num_hits)
    found = [
        found_in(queries_QD, items_ND[cut.start : cut.stop], cut.start, num_hits)
        for cut in plan_shards(items, shards=shards, actors=1, shard_rows=100)
    ]
    random.shuffle(found)
    at_once = merge_hits(found, num_hits)
    one_by_one = found[0]
    for hits in found[1:]:  # as in waves
        one_by_one = merge_hits([one_by_one, hits], num_hits)
    for got in (at_once, one_by_one):
        assert got.rows.tolist() == want.rows.tolist()
        assert got.scores.tobytes() == want.scores.tobytes()
        assert np.allclose(got.pair_scores, want.pair_scores)


def test_merge_worked_by_hand() -> None:
    first = BlockHits(np.array([[0.9, 0.5]], np.float32), np.array([[4, 6]]), np.array([-np.inf, 0.1], np.float32), 1.0)
    second = BlockHits(np.array([[0.5, -np.inf]], np.float32), np.array([[2, -1]]), np.array([0.2, -np.inf], np.float32), 3.0)
    got = merge_hits([first, second], 2)
    assert got.rows.tolist() == [[4, 2]]
    assert got.pair_scores.tolist() == [np.float32(0.2), np.float32(0.1)]
    assert got.seconds == 3.0
    assert merge_hits([first, second], 4).rows.tolist() == [[4, 2, 6, -1]]
