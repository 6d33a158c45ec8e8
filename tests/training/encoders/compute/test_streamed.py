"""Packs on a device: every row comes back, in its place, whatever was halved on the way."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.tables.tables import F32, I64
from training.encoders.adapter import AdapterEncoder
from training.encoders.compute import streamed as streamed_module
from training.encoders.compute.streamed import AHEAD, Inputs, streamed
from training.encoders.tokens.features import Vectors
from training.encoders.transformer import TransformerEncoder

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


def test_no_pack_waits_for_the_device_until_its_vectors_are_fetched_three_packs_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's "meta" device, whose tensors have no values: whatever reads one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no such device, and waits for none
    encoder, started, fetched = AdapterEncoder(6, 4).to("meta"), list[int](), list[int]()
    encoder.register_forward_hook(lambda _, inputs, vectors: started.append(len(vectors)))
    vectors = Vectors(np.ones((20, 6), np.float32))
    with pytest.raises((RuntimeError, TypeError, NotImplementedError)) as error:
        encoder.encode(vectors, budget_tokens=2)
    assert error.traceback[-1].frame.code.name == "_receive", "in nothing that encodes"
    assert len(started) == AHEAD + 1

    def fetch(sent: Any, _: F32) -> int:
        fetched.append(len(started))
        return len(sent.rows)

    started.clear()
    monkeypatch.setattr(streamed_module, "_receive", fetch)
    encoder.encode(vectors, budget_tokens=2)
    assert sum(started) == 20
    assert fetched[:-AHEAD] == list(range(AHEAD + 1, len(started) + 1)), "never the pack that was started last"


def test_the_one_wait_of_a_pack_of_a_transformer_is_its_librarys_look_at_the_mask() -> None:
    """transformers asks `attention_mask.all()` in every pass. Where it no longer does, this test and docs/gpu.md can go."""
    import transformers

    config = transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=16)
    model = transformers.BertModel(config)
    encoder = TransformerEncoder(model, pooling="mean", pad_id=0, source=Path("none")).to("meta")
    inputs = {name: torch.ones((2, 3), dtype=torch.int64, device="meta") for name in ("input_ids", "attention_mask")}
    with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor") as error:
        encoder(inputs)
    assert "_ignore_bidirectional_mask_sdpa" in {entry.frame.code.name for entry in error.traceback}
