"""`Encoder.encode` on a CPU: packs side by side give what one after the other gives, and leave torch as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.tables.tables import offsets_of
from training.encoders.base import Encoder
from training.encoders.tokens.features import Features, Tokens
from training.encoders.transformer import pad_tokens


class Mean(Encoder):
    """Mean of token embeddings; notes under which conditions it ran."""

    kind, dimension = "test", 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(60, 6)
        self.layer = torch.nn.Linear(6, 6)
        self.fails_at: int | None = None
        self.seen: list[tuple[int, int, bool, bool, torch.dtype]] = []

    def collate(self, features: Features) -> dict[str, Tensor]:
        assert isinstance(features, Tokens)
        return pad_tokens(features, 0)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        ids, mask = inputs["input_ids"], inputs["attention_mask"].unsqueeze(-1)
        if ids.shape[1] == self.fails_at:
            raise ValueError("cannot read this one")
        vectors = self.layer((self.table(ids) * mask).sum(dim=1) / mask.sum(dim=1))
        self.seen.append(
            (threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training, vectors.dtype)
        )
        result: Tensor = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return result


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def texts(count: int) -> Tokens:
    rng = np.random.default_rng(1)
    lengths = rng.permutation(np.arange(count) % 37 + 1).astype(np.int64)
    return Tokens(offsets_of(lengths), rng.integers(1, 60, int(lengths.sum())).astype(np.int32))


def test_the_order_of_the_features_is_kept(threads: int) -> None:
    encoder, features = Mean(), texts(211)
    counts: list[int] = []
    got = encoder.encode(features, budget_tokens=50, on_progress=counts.append)
    with torch.inference_mode():
        want = np.concatenate([encoder(encoder.collate(features.take(np.array([row])))).numpy() for row in range(211)])
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert counts == sorted(counts)
    assert counts[-1] == 211
    assert len(counts) > 20


def test_every_pack_is_encoded_without_gradient_and_the_threads_are_shared_out(threads: int) -> None:
    encoder = Mean().train()
    encoder.encode(texts(100), budget_tokens=40)
    assert {(inference, training) for _, _, inference, training, _ in encoder.seen} == {(True, False)}
    assert {each for _, each, *_ in encoder.seen} == {1}
    assert torch.get_num_threads() == threads


def test_few_packs_get_several_threads_each() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        encoder = Mean()
        encoder.encode(Tokens(10 * np.arange(21), np.ones(200, np.int32)), budget_tokens=100)
        assert len(encoder.seen) == 2
        assert {each for _, each, *_ in encoder.seen} == {3}
        encoder.encode(Tokens(10 * np.arange(6), np.ones(50, np.int32)), budget_tokens=100)
        assert encoder.seen[-1][:2] == (threading.get_ident(), 6)
    finally:
        torch.set_num_threads(before)


def test_bfloat16_reaches_every_thread(threads: int) -> None:
    encoder = Mean()
    got = encoder.encode(texts(60), budget_tokens=40, bfloat16=True)
    assert {dtype for *_, dtype in encoder.seen} == {torch.bfloat16}
    np.testing.assert_allclose(got, Mean().encode(texts(60), budget_tokens=40), atol=0.05)


def test_what_one_pack_raises_is_raised_and_the_threads_are_given_back(threads: int) -> None:
    encoder = Mean()
    encoder.fails_at = 20
    with pytest.raises(ValueError, match="cannot read this one"):
        encoder.encode(texts(120), budget_tokens=40)
    assert torch.get_num_threads() == threads


def test_no_texts_give_no_vectors(threads: int) -> None:
    assert Mean().encode(texts(5).take(np.zeros(0, np.int64))).shape == (0, 6)
