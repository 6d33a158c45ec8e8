"""Features by row, and micro-batches of similar length under a token budget."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.storage.store import Store
from cluster.tables.tables import part_name, vectors_to_column, write_part
from training.encoders.tokens.features import Tokens, Vectors, load_features

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=20)


def tokens_of(lists: list[list[int]]) -> Tokens:
    lengths = np.array([len(row) for row in lists], np.int64)
    flat = np.array([token for row in lists for token in row], np.int32)
    return Tokens(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), flat)


def lists_of(tokens: Tokens) -> list[list[int]]:
    return [tokens.values[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(len(tokens))]


@settings(max_examples=60, deadline=None)
@given(LISTS, st.randoms(use_true_random=False))
def test_taken_rows_are_the_lists_in_the_order_asked_for(lists: list[list[int]], random: object) -> None:
    rows = random.choices(range(len(lists)), k=7)  # type: ignore[attr-defined]  # repeats included
    got = tokens_of(lists).take(np.array(rows, np.int64))
    assert lists_of(got) == [lists[row] for row in rows]
    assert got.values.dtype == np.int32
    assert got.lengths.tolist() == [len(lists[row]) for row in rows]


def test_taking_no_rows_gives_no_texts() -> None:
    assert len(tokens_of([[1], [2, 3]]).take(np.zeros(0, np.int64))) == 0
    assert len(Vectors(np.ones((3, 2), np.float32)).take(np.zeros(0, np.int64))) == 0


def test_tokens_are_loaded_over_parts_in_row_order(tmp_path: Path) -> None:
    store, lists = Store(str(tmp_path)), [[1, 2], [], [3], [4, 5, 6], []]
    parts = [
        write_part(
            store,
            f"tokens/{part_name(i)}",
            pa.table({"row": np.arange(low, high), "tokens": pa.array(lists[low:high], pa.list_(pa.int32()))}),
        )
        for i, (low, high) in enumerate([(0, 2), (2, 2), (2, 5)])
    ]
    got = load_features(store, parts)
    assert isinstance(got, Tokens)
    assert lists_of(got) == lists
    assert got.values.dtype == np.int32


def test_vectors_are_loaded_over_parts_in_row_order(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    parts = [
        write_part(store, f"vectors/{part_name(i)}", pa.table({"vector": vectors_to_column(block)}))
        for i, block in enumerate([vectors[:1], vectors[1:]])
    ]
    got = load_features(store, parts)
    assert isinstance(got, Vectors)
    np.testing.assert_array_equal(got.values, vectors)
    assert got.lengths.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(got.take(np.array([3, 0])).values, vectors[[3, 0]])
