"""Losses against slow references, gradcheck, and the cases that break softmax code."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.objective.losses import info_nce, triplet

B, C, D = 4, 9, 5


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """queries, items, positive columns, mask (some columns of each row), weights."""
    generator = torch.Generator().manual_seed(seed)
    queries_BD = functional.normalize(torch.randn(B, D, generator=generator, dtype=dtype), dim=1)
    items_CD = functional.normalize(torch.randn(C, D, generator=generator, dtype=dtype), dim=1)
    positive_B = torch.randint(C, (B,), generator=generator)
    masked_BC = (torch.rand(B, C, generator=generator) < 0.3).scatter(1, positive_B[:, None], False)
    return queries_BD, items_CD, positive_B, masked_BC, torch.rand(B, generator=generator, dtype=dtype) + 0.1


def dot(a: Tensor, b: Tensor) -> float:
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def slow_info_nce(q: Tensor, items: Tensor, positive: Tensor, masked: Tensor, *, weights: Tensor, temperature: float) -> float:
    total = 0.0
    for b in range(len(q)):
        terms = [math.exp(dot(q[b], items[c]) / temperature) for c in range(len(items)) if not masked[b, c]]
        total += float(weights[b]) * -math.log(math.exp(dot(q[b], items[positive[b]]) / temperature) / sum(terms))
    return total / float(weights.sum())


def slow_triplet(q: Tensor, items: Tensor, positive: Tensor, masked: Tensor, *, weights: Tensor, margin: float) -> float:
    total = 0.0
    for b in range(len(q)):
        lead = margin - dot(q[b], items[positive[b]])
        negatives = [c for c in range(len(items)) if not masked[b, c] and c != positive[b]]
        hinges = [max(0.0, lead + dot(q[b], items[c])) for c in negatives]
        total += float(weights[b]) * (sum(hinges) / len(hinges) if hinges else 0.0)
    return total / float(weights.sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_info_nce_equals_slow_reference(seed: int, weighted: bool) -> None:
    q, items, positive, masked, weights = batch(seed)
    got = info_nce(q, items, positive, temperature=0.2, masked_BC=masked, weights_B=weights if weighted else None).loss.item()
    want = slow_info_nce(q, items, positive, masked, weights=weights if weighted else torch.ones(B), temperature=0.2)
    assert got == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_triplet_equals_slow_reference(seed: int, weighted: bool) -> None:
    q, items, positive, masked, weights = batch(seed)
    got = triplet(q, items, positive, margin=0.3, masked_BC=masked, weights_B=weights if weighted else None).item()
    want = slow_triplet(q, items, positive, masked, weights=weights if weighted else torch.ones(B), margin=0.3)
    assert got == pytest.approx(want, rel=1e-12)


def test_triplet_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    items = torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])  # positive 0.6; negatives 0.8 and 0.0
    got = triplet(queries, items, torch.tensor([0]), margin=0.1, masked_BC=torch.zeros(1, 3, dtype=torch.bool))
    assert got.item() == pytest.approx((0.3 + 0.0) / 2)


def test_info_nce_is_mnrl_with_scale_one_over_temperature() -> None:
    queries, items, _, _, _ = batch(dtype=torch.float32)
    got = info_nce(queries, items, torch.arange(B), temperature=1 / 20, masked_BC=torch.zeros(B, C, dtype=torch.bool))
    want = functional.cross_entropy(20 * queries @ items.T, torch.arange(B))
    torch.testing.assert_close(got.loss, want)


def test_gradcheck_of_info_nce_for_queries_items_temperature_and_weights() -> None:
    q, items, positive, masked, weights = batch()
    inputs = [x.requires_grad_() for x in (q, items, torch.tensor(0.3, dtype=torch.float64), weights)]

    def loss(q: Tensor, items: Tensor, temperature: Tensor, weights: Tensor) -> Tensor:
        return info_nce(q, items, positive, temperature=temperature, masked_BC=masked, weights_B=weights).loss

    assert torch.autograd.gradcheck(loss, inputs)


def test_gradcheck_of_triplet() -> None:
    q, items, positive, masked, weights = batch()
    inputs = [x.requires_grad_() for x in (q, items, weights)]
    assert torch.autograd.gradcheck(
        lambda q, items, w: triplet(q, items, positive, margin=0.3, masked_BC=masked, weights_B=w), inputs
    )


def test_masked_columns_are_as_if_absent() -> None:
    q, items, _, _, _ = batch()
    positive, masked = torch.zeros(B, dtype=torch.int64), torch.zeros(B, C, dtype=torch.bool)
    masked[:, 5:] = True
    items.requires_grad_()
    got = info_nce(q, items, positive, temperature=0.1, masked_BC=masked)
    want = info_nce(q, items[:5], positive, temperature=0.1, masked_BC=masked[:, :5])
    torch.testing.assert_close(got.loss, want.loss)
    assert torch.isneginf(got.logits_BC).equal(masked)
    got.loss.backward()
    assert items.grad is not None
    assert items.grad[5:].eq(0).all()
    assert items.grad[:5].ne(0).all()


def test_positive_stays_a_candidate_and_a_row_without_negatives_costs_nothing() -> None:
    q, items, positive, _, _ = batch()
    everything = torch.ones(B, C, dtype=torch.bool)
    q.requires_grad_()
    nce = info_nce(q, items, positive, temperature=0.05, masked_BC=everything)
    hinge = triplet(q, items, positive, margin=0.2, masked_BC=everything)
    (nce.loss + hinge).backward()
    assert nce.loss.item() == 0.0
    assert hinge.item() == 0.0
    assert q.grad is not None
    assert q.grad.eq(0).all()
    assert everything.all(), "the caller's mask was changed"


def test_weight_zero_removes_a_row_and_no_weight_at_all_is_zero() -> None:
    q, items, positive, masked, _ = batch()
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0])
    got = info_nce(q, items, positive, temperature=0.1, masked_BC=masked, weights_B=weights).loss
    want = info_nce(q[:3], items, positive[:3], temperature=0.1, masked_BC=masked[:3]).loss
    torch.testing.assert_close(got, want)
    nothing = info_nce(q, items, positive, temperature=0.1, masked_BC=masked, weights_B=torch.zeros(B)).loss
    empty = info_nce(q[:0], items, positive[:0], temperature=0.1, masked_BC=masked[:0]).loss
    assert nothing.item() == 0.0
    assert empty.item() == 0.0


def test_denominator_replaces_the_local_sum_of_weights() -> None:
    q, items, positive, masked, weights = batch()
    local = info_nce(q, items, positive, temperature=0.1, masked_BC=masked, weights_B=weights).loss
    got = info_nce(q, items, positive, temperature=0.1, masked_BC=masked, weights_B=weights, denominator=torch.tensor(2.0))
    torch.testing.assert_close(got.loss, local * weights.sum() / 2)
    local = triplet(q, items, positive, margin=0.1, masked_BC=masked)
    got_triplet = triplet(q, items, positive, margin=0.1, masked_BC=masked, denominator=torch.tensor(8.0))
    torch.testing.assert_close(got_triplet, local * B / 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_huge_logits_stay_finite(dtype: torch.dtype) -> None:
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    items = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    got = info_nce(queries, items, torch.tensor([0, 1]), temperature=0.001, masked_BC=torch.zeros(2, 2, dtype=torch.bool))
    got.loss.backward()
    assert got.loss.item() == pytest.approx(1000.0, rel=1e-4)  # (0 + 2000) / 2
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()


def test_scores_are_float32_also_for_half_inputs_and_under_autocast() -> None:
    q, items, positive, masked, _ = batch(dtype=torch.float32)
    want = info_nce(q, items, positive, temperature=0.05, masked_BC=masked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = info_nce(q, items, positive, temperature=0.05, masked_BC=masked)
    torch.testing.assert_close(got.loss, want.loss)
    half = info_nce(q.bfloat16(), items.bfloat16(), positive, temperature=0.05, masked_BC=masked)
    assert half.loss.dtype == half.logits_BC.dtype == torch.float32
    assert not half.logits_BC.requires_grad


@pytest.mark.parametrize("bad", [0.0, 0.0009, 1.01, -0.05, 20.0, math.nan, torch.tensor(0.0), torch.tensor(math.nan)])
def test_temperature_out_of_range_is_refused(bad: float | Tensor) -> None:
    q, items, positive, masked, _ = batch()
    with pytest.raises(ValueError, match=r"temperature must be within \[0.001, 1.0\].*1/s"):
        info_nce(q, items, positive, temperature=bad, masked_BC=masked)


@pytest.mark.parametrize("end", [0.001, 1.0, torch.tensor(0.001, dtype=torch.bfloat16), torch.tensor([1.0])])
def test_ends_of_the_temperature_range_are_allowed_also_rounded(end: float | Tensor) -> None:
    q, items, positive, masked, _ = batch()
    assert info_nce(q, items, positive, temperature=end, masked_BC=masked).loss.shape == ()


@pytest.mark.parametrize("bad", [-0.1, math.nan])
def test_negative_margin_is_refused(bad: float) -> None:
    q, items, positive, masked, _ = batch()
    with pytest.raises(ValueError, match="margin must be >= 0"):
        triplet(q, items, positive, margin=bad, masked_BC=masked)
