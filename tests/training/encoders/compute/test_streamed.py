"""Packs on a device: every row comes back, in its place, whatever was halved on the way."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from cluster.tables.tables import F32, I64
from training.encoders.compute.streamed import AHEAD, Inputs, streamed

CPU = torch.device("cpu")


def packs_of(sizes: list[int]) -> list[I64]:
    rows = np.random.default_rng(0).permutation(sum(sizes)).astype(np.int64)
    return np.split(rows, np.cumsum(sizes)[:-1])


def vectors_of(rows: I64) -> F32:
    return np.stack([rows, rows**2], axis=1).astype(np.float32)


def collate(rows: I64) -> Inputs:
    return {"rows": torch.from_numpy(rows)}


def encode(inputs: Inputs) -> torch.Tensor:
    return torch.from_numpy(vectors_of(inputs["rows"].numpy()))


@pytest.mark.parametrize("sizes", [[1], [5, 1, 7], [2] * 20])
def test_every_row_gets_its_vector_and_is_counted_once(sizes: list[int]) -> None:
    result = np.full((sum(sizes), 2), np.nan, np.float32)
    assert sum(streamed(packs_of(sizes), collate, encode, CPU, result)) == sum(sizes)
    assert np.array_equal(result, vectors_of(np.arange(sum(sizes))))


def test_no_pack_is_no_work() -> None:
    assert list(streamed([], collate, encode, CPU, np.empty((0, 2), np.float32))) == []


def test_packs_that_do_not_fit_the_memory_are_halved_until_they_do() -> None:
    sizes, tried = [9, 1, 16], []

    def small(inputs: Inputs) -> torch.Tensor:
        tried.append(len(inputs["rows"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("no memory")
        return encode(inputs)

    result = np.full((26, 2), np.nan, np.float32)
    assert sum(streamed(packs_of(sizes), collate, small, CPU, result)) == 26
    assert np.array_equal(result, vectors_of(np.arange(26)))
    assert max(tried) == 16


def test_a_row_that_does_not_fit_alone_is_an_error() -> None:
    def never(inputs: Inputs) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(streamed(packs_of([3]), collate, never, CPU, np.empty((3, 2), np.float32)))


def test_packs_are_collated_while_an_earlier_one_is_encoded() -> None:
    collated, ready = [], threading.Event()

    def noted(rows: I64) -> Inputs:
        collated.append(len(rows))
        if len(collated) == AHEAD:
            ready.set()
        return collate(rows)

    def waits(inputs: Inputs) -> torch.Tensor:
        assert ready.wait(60), "the first pack is encoded only when others have been collated"
        return encode(inputs)

    result = np.empty((8, 2), np.float32)
    assert sum(streamed(packs_of([2] * 4), noted, waits, CPU, result)) == 8


def test_an_error_of_the_collating_thread_is_raised() -> None:
    def broken(rows: I64) -> Inputs:
        raise ValueError("a token that is none")

    with pytest.raises(ValueError, match="a token that is none"):
        list(streamed(packs_of([2]), broken, encode, CPU, np.empty((2, 2), np.float32)))
