"""Exact scores from a device: the bytes that the CPU's sums have, or an honest NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.tables.tables import F32
from mining.search import rescoring
from mining.search.engines import TorchEngine
from mining.search.rescoring import certain_scores
from mining.search.topk import Lists, Shard, canonical_scores, exact_topk
from tests.mining.search.test_engines import KINDS, vectors


def made(kind: str, items: int, queries: int, dimension: int, seed: int) -> tuple[F32, F32]:
    generator = np.random.default_rng(seed)
    center = generator.standard_normal(dimension).astype(np.float32)
    return vectors(kind, items, dimension, generator, center), vectors(kind, queries, dimension, generator, center)


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([1, 3, 64, 385]),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(0, 9999),
    st.sampled_from([1.0, 1e-15, 1e-22, 1e12]),
)
def test_what_a_device_is_certain_of_has_the_bytes_of_the_cpus_sum(
    kind: str, dimension: int, items: int, queries: int, seed: int, length: float
) -> None:
    items_ND, queries_QD = (some * np.float32(length) for some in made(kind, items, queries, dimension, seed))
    index = np.tile(np.arange(items), (queries, 1))
    got = certain_scores(*(torch.from_numpy(some) for some in (queries_QD, items_ND, index))).numpy()
    want = canonical_scores(queries_QD, items_ND, index)
    certain = ~np.isnan(got)
    assert got[certain].tobytes() == want[certain].tobytes()


def test_nearly_every_score_is_certain_and_a_score_between_two_floats_is_not() -> None:
    for kind, most in (("random", 200), ("one side", 6)):  # scores near 0, whose neighbours are near, and about 0.6
        items_ND, queries_QD = made(kind, 3000, 40, 384, 0)
        index = torch.arange(3000).expand(40, -1)
        got = certain_scores(torch.from_numpy(queries_QD), torch.from_numpy(items_ND), index)
        assert int(got.isnan().sum()) <= most, "of 120,000"
    # 1 + 2^-24 lies in the middle of two float32 values; 2^-24 is what the second number adds
    middle, none = torch.tensor([[1.0, 2.0**-24]]), torch.zeros((1, 2))
    assert certain_scores(torch.ones((1, 2)), middle, torch.zeros((1, 1), dtype=torch.int64)).isnan().all()
    assert certain_scores(torch.ones((1, 2)), none, torch.zeros((1, 1), dtype=torch.int64)).isnan().all(), (
        "the CPU knows the sign"
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hits_scored_on_the_device_are_those_scored_on_the_cpu_to_the_last_byte(
    kind: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    items_ND, queries_QD = made(kind, 700, 50, 33, 5)
    generator = np.random.default_rng(1)
    known = [np.sort(generator.choice(700, generator.integers(0, 30), replace=False)) for _ in range(50)]
    excluded = Lists(np.cumsum([0, *map(len, known)]), np.concatenate(known).astype(np.int64))
    monkeypatch.setattr(rescoring, "MOST_NUMBERS", 4000)  # a few queries at once
    want = exact_topk(queries_QD, Shard(items_ND, "faiss"), 20, excluded)
    engine = TorchEngine(items_ND, half=half, device="cpu", rescores=True)
    assert engine.propose(queries_QD, 30).exact is not None
    got = exact_topk(queries_QD, Shard(items_ND, engine), 20, excluded)
    assert [some.tobytes() for some in got] == [some.tobytes() for some in want]


@pytest.mark.parametrize(("free", "half", "want"), [(4, False, True), (3.9, False, False), (6, True, True), (5.9, True, False)])
def test_a_device_scores_exactly_if_its_memory_holds_the_vectors_beside_a_block(
    free: float, half: bool, want: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mining.search.engines import BLOCK_BYTES, _fits

    items = np.zeros((1000, 10), np.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free * items.size + BLOCK_BYTES), 0))
    assert _fits(items, "cuda", half=half) is want
    assert not _fits(items, "cpu", half=half)
