"""Engines propose; their error bounds hold for whatever the vectors look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.tables.tables import F32
from mining.search.engines import (
    MOST_OVERSAMPLE,
    SLACK,
    EightBitEngine,
    EightBitItems,
    EightBitQueries,
    EngineName,
    make_engine,
    padded,
)

ENGINES: tuple[EngineName, ...] = ("faiss", "torch", "half", "int8")
KINDS = ("random", "clustered", "coarse", "zeros", "one side", "equal", "outlier")


def vectors(kind: str, count: int, dimension: int, generator: np.random.Generator, center: F32) -> F32:
    """Unit or zero vectors of a shape that is hard in its own way."""
    noise = generator.standard_normal((count, dimension))
    made = {
        "random": noise,
        "clustered": center + 10.0 ** -float(generator.integers(1, 7)) * noise,  # differences down to float32's rounding
        "coarse": generator.integers(-1, 2, (count, dimension)),  # ties
        "zeros": noise * (generator.random((count, 1)) > 0.4),
        "one side": np.abs(noise),  # far from centred
        "equal": np.repeat(center[None], count, axis=0),
        "outlier": np.where(np.arange(count)[:, None] == 0, -center, center + 0.01 * noise),  # one sets the scale of all
    }[kind]
    length = np.linalg.norm(made, axis=1, keepdims=True)
    return (made / np.where(length > 0, length, 1.0)).astype(np.float32)


def exact_scores(queries_QD: F32, items_ND: F32) -> F32:
    return (queries_QD.astype(np.float64) @ items_ND.T.astype(np.float64)).astype(np.float32)


def check_bound(name: EngineName, queries_QD: F32, items_ND: F32, width: int) -> None:
    """What is not proposed scores at most the last proposal + error; what is, comes once, best first, near its score."""
    exact = exact_scores(queries_QD, items_ND)
    got = make_engine(name, items_ND).propose(queries_QD, width)
    assert got.scores.shape == got.index.shape == (len(queries_QD), width)
    assert (got.scores.dtype, got.index.dtype, got.error.dtype) == (np.float32, np.int64, np.float32)
    assert (np.diff(got.scores, axis=1) <= 0).all()
    assert all(len(set(line)) == width for line in got.index.tolist())
    left = exact.copy()
    np.put_along_axis(left, got.index, -np.inf, axis=1)
    assert (left.max(axis=1) <= got.scores[:, -1] + got.error).all()
    assert (np.abs(np.take_along_axis(exact, got.index, 1) - got.scores) <= got.error[:, None]).all()


@settings(max_examples=150)
@given(
    st.sampled_from(ENGINES),
    st.sampled_from(KINDS),
    st.sampled_from([1, 2, 3, 4, 5, 8, 17, 64, 385]),
    st.integers(1, 90),
    st.integers(1, 12),
    st.booleans(),
    st.integers(0, 9999),
)
def test_what_is_not_proposed_scores_at_most_the_last_proposal_and_the_error(
    name: EngineName, kind: str, dimension: int, items: int, queries: int, stored_in_half: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    center = generator.standard_normal(dimension).astype(np.float32)
    made = [vectors(kind, count, dimension, generator, center) for count in (items, queries)]
    if stored_in_half:
        made = [some.astype(np.float16).astype(np.float32) for some in made]
    check_bound(name, made[1], made[0], int(generator.integers(1, items + 1)))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("queries", "items", "dimension", "width"),
    [
        (1025, 40, 6, 7),  # more queries than a tile holds
        (3, 4099, 5, 21),  # more items than a tile holds
        (20, 2500, 385, 2500),
        (1, 1, 1, 1),
        (7, 1, 16, 1),
        (9, 33, 1, 5),
    ],
)
def test_the_bound_holds_across_tiles_and_for_single_items(
    name: EngineName, queries: int, items: int, dimension: int, width: int
) -> None:
    generator, center = np.random.default_rng(dimension), np.zeros(dimension, np.float32)
    check_bound(
        name,
        vectors("random", queries, dimension, generator, center),
        vectors("random", items, dimension, generator, center),
        width,
    )


def test_eight_bits_worked_by_hand() -> None:
    items = EightBitItems(np.array([[1.0, 0.5], [0.0, -0.5]], np.float32))
    assert items.mean.tolist() == [0.5, 0.0]
    assert items.scale == 254.0  # the largest that is left is 0.5
    assert items.values.numpy().tolist() == [[127, 127, 0, 0], [-127, -127, 0, 0]]
    assert items.lost < 1e-7
    queries = EightBitQueries(np.array([[0.0, 2.0], [0.5, 0.25]], np.float32), items, certain=True)
    assert queries.values.numpy().tolist() == [[0, 127, 0, 0], [127, 64, 0, 0]]  # 63.5 is rounded to the even number
    assert queries.shift.tolist() == [0.0, 0.25]
    products = queries.values.numpy().astype(np.int64) @ items.values.numpy().astype(np.int64).T
    scores = products * queries.factor[:, None] + queries.shift[:, None]
    assert np.allclose(scores, [[1.0, -1.0], [0.625, -0.125]], atol=1.1 * 0.5 / 254)
    # the second query lost half a step of 0.5 / 127 in its second number, and no item is longer than √0.5
    assert queries.error[1] == pytest.approx(0.5 * 0.5 / 127 * 0.5**0.5, rel=1e-3)


@pytest.mark.parametrize(("dimension", "length"), [(1, 4), (4, 4), (5, 8), (385, 388)])
def test_the_length_of_eight_bit_vectors_is_a_multiple_of_four(dimension: int, length: int) -> None:
    made = padded(3, dimension)
    assert made.shape == (3, length)
    assert not made.any()


@pytest.mark.parametrize("dimension", [16, 64, 384])
def test_the_likely_bound_holds_for_nearly_all_pairs_and_is_much_narrower(dimension: int) -> None:
    generator, center = np.random.default_rng(1), np.zeros(dimension, np.float32)
    items_ND, queries_QD = (vectors("random", count, dimension, generator, center) for count in (3000, 200))
    engine = EightBitEngine(items_ND, certain=False, oversample=1.0)
    got = engine.propose(queries_QD, len(items_ND))
    off = np.abs(np.take_along_axis(exact_scores(queries_QD, items_ND), got.index, 1) - got.scores)
    assert (off <= got.error[:, None]).mean() >= 0.999
    certain = EightBitEngine(items_ND, certain=True, oversample=1.0).propose(queries_QD[:1], 1)
    assert got.error[0] < certain.error[0] * 8 / dimension**0.5


def test_eight_bits_propose_more_once_many_queries_were_left_open_and_no_end_of_it() -> None:
    engine = EightBitEngine(np.eye(4, dtype=np.float32), certain=True, oversample=2.0)
    assert engine.width(100) == 200 + SLACK
    engine.learn(0.01)
    assert engine.width(100) == 200 + SLACK
    engine.learn(0.03)
    assert engine.width(100) == 300 + SLACK
    for _ in range(9):
        engine.learn(1.0)
    assert engine.width(100) == 100 * MOST_OVERSAMPLE + SLACK
    generous = EightBitEngine(np.eye(4, dtype=np.float32), certain=True, oversample=12.0)
    generous.learn(1.0)  # what a person set is not taken back
    assert generous.width(100) == 1200 + SLACK


@pytest.mark.parametrize("name", ENGINES)
def test_more_is_proposed_at_first_than_is_needed(name: EngineName) -> None:
    assert make_engine(name, np.eye(4, dtype=np.float32)).width(10) >= 10 + SLACK
