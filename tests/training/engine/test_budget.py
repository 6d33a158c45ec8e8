"""The probe of the budget: what it picks, what it leaves as it was."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.tables.tables import I64, offsets_of
from training.encoders.base import CPU_BUDGET_TOKENS, Encoder
from training.encoders.tokens.features import Features, Tokens
from training.encoders.tokens.packing import pack
from training.encoders.transformer import pad_tokens
from training.engine.budget import Tried, fastest, middle_pack, padding, probe_budget


class SlowAbove(Encoder):
    """Mean of token embeddings with dropout; sleeps per padded token, more above `knee` tokens and below them a fixed time."""

    kind, dimension = "test", 4

    def __init__(self, *, knee: int, fixed_s: float, slow_s: float) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 4)
        self.knee, self.fixed_s, self.slow_s = knee, fixed_s, slow_s
        self.seen: list[tuple[int, int, bool]] = []

    def collate(self, features: Features) -> dict[str, Tensor]:
        assert isinstance(features, Tokens)
        return pad_tokens(features, 0)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        ids = inputs["input_ids"]
        self.seen.append((ids.numel(), int(inputs["attention_mask"].sum()), torch.is_grad_enabled()))
        time.sleep(self.fixed_s + self.slow_s * max(0, ids.numel() - self.knee))
        vectors: Tensor = torch.nn.functional.dropout(self.table(ids), 0.1, self.training).mean(dim=1)
        return torch.nn.functional.normalize(vectors, dim=-1)


def texts(count: int, *, longest: int = 40, seed: int = 0) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest + 1, count).astype(np.int64)
    return Tokens(offsets_of(lengths), rng.integers(1, 50, int(lengths.sum())).astype(np.int32))


def test_the_fastest_budget_per_token_is_found() -> None:
    # a fixed time per pass favours large packs, 100 us per token beyond 250 makes them lose again
    encoder = SlowAbove(knee=250, fixed_s=0.004, slow_s=1e-4)
    assert probe_budget(encoder, texts(300), candidates=(60, 240, 960), repeats=4) == 240
    assert all(grad for _, _, grad in encoder.seen)
    assert max(padded for padded, _, _ in encoder.seen) <= 960


def test_the_probe_leaves_no_trace() -> None:
    encoder = SlowAbove(knee=10**6, fixed_s=0.0, slow_s=0.0)
    encoder(encoder.collate(texts(3))).sum().backward()
    before, gradient = encoder.table.weight.detach().clone(), encoder.table.weight.grad
    assert gradient is not None
    kept = gradient.clone()
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    encoder.eval()
    probe_budget(encoder, texts(50), candidates=(32, 64))
    assert torch.equal(torch.rand(3), want)
    assert not encoder.training
    assert torch.equal(encoder.table.weight, before)
    assert encoder.table.weight.grad is gradient
    assert torch.equal(gradient, kept)


def test_a_probe_whose_time_is_over_falls_back_to_the_usual_budget() -> None:
    encoder = SlowAbove(knee=10**6, fixed_s=0.02, slow_s=0.0)
    started = time.perf_counter()
    found = probe_budget(encoder, texts(500), candidates=(16, 32, 64), repeats=1000, limit_s=0.03)
    assert found == CPU_BUDGET_TOKENS
    assert len(encoder.seen) < 5
    assert time.perf_counter() - started < 5.0


def test_of_budgets_that_differ_little_the_smallest_counts() -> None:
    assert fastest([Tried(512, 1.00), Tried(1024, 0.98), Tried(2048, 0.975)]) == 512
    assert fastest([Tried(512, 1.00), Tried(1024, 0.96), Tried(2048, 0.94)]) == 1024
    assert fastest([Tried(512, 1.00), Tried(1024, 0.96), Tried(2048, 0.90)]) == 2048
    assert fastest([Tried(512, 0.9), Tried(1024, 1.2)]) == 512


def test_padding_counts_against_a_budget_that_few_texts_share() -> None:
    lengths = texts(400).lengths
    few, all_together = padding(lengths, 960, 12), padding(lengths, 960, 400)
    assert 1.0 < all_together < 1.1 < few
    want = sum(int(lengths[:12][each].max()) * len(each) for each in pack(lengths[:12], 960)) / int(lengths[:12].sum())
    assert padding(lengths[:12], 960, 12) == want
    # equal times per padded token: the smaller budget is the faster one where a step has few texts, not where it has many
    assert fastest([Tried(budget, 1e-6 * padding(lengths, budget, 12)) for budget in (80, 960)]) == 80
    assert fastest([Tried(budget, 1e-6 * padding(lengths, budget, 400)) for budget in (640, 960)]) == 640


@pytest.mark.parametrize("budget", [1, 37, 160, 10**6])
def test_the_middle_pack_holds_the_token_at_half_of_all(budget: int) -> None:
    lengths: I64 = texts(97, seed=3).lengths
    chosen = middle_pack(lengths, budget)
    order = np.concatenate(pack(lengths, budget))
    half = order[np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)]
    assert half in chosen
    assert len(chosen) == 1 or lengths[chosen].max() * len(chosen) <= budget


def test_features_shorter_than_every_candidate_give_the_smallest() -> None:
    encoder = SlowAbove(knee=10**6, fixed_s=0.003, slow_s=0.0)
    assert probe_budget(encoder, texts(4, longest=5), candidates=(512, 1024)) == 512


def test_an_encoder_that_does_not_pad_is_refused() -> None:
    encoder = SlowAbove(knee=1, fixed_s=0.0, slow_s=0.0)
    encoder.pads = False
    with pytest.raises(AssertionError, match="does not pad"):
        probe_budget(encoder, texts(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_budget_climbs_while_it_gains() -> None:
    encoder = SlowAbove(knee=4000, fixed_s=0.01, slow_s=1e-4).to("cuda")
    assert probe_budget(encoder, texts(4000), candidates=(1000, 2000, 4000, 8000, 16000)) in (4000, 8000)
