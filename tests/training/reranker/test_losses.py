"""Losses over lists: equal to those of sentence-transformers on a real cross-encoder, gradients to finite differences."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.reranker.losses import best_is_first, count_terms, loss_sums
from training.reranker.settings import Loss

LENGTHS = (5, 2, 7, 1, 4)
"""Pairs of each list."""
RNG = np.random.default_rng(3)
QUERIES = ["".join(RNG.choice(list(string.ascii_lowercase), 4)) for _ in LENGTHS]
ITEMS = [["".join(RNG.choice(list(string.ascii_lowercase), RNG.integers(2, 12))) for _ in range(length)] for length in LENGTHS]
GRADES = [[3.0, *RNG.integers(0, 4, length - 1).astype(float)] for length in LENGTHS]
TEACHER = [RNG.normal(size=length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def model(cross_encoder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(cross_encoder), device="cpu").eval()


def padded(lists: list[list[float]], filling: float) -> Tensor:
    return torch.tensor([[*values, *[filling] * (max(LENGTHS) - len(values))] for values in lists])


REAL = padded([[1.0] * length for length in LENGTHS], 0.0).bool()


def logits(model: Any) -> Tensor:
    pairs = [(query, item) for query, items in zip(QUERIES, ITEMS, strict=True) for item in items]
    flat = torch.tensor(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False))
    return torch.full(REAL.shape, 7.0).masked_scatter(REAL, flat)


def mean(name: Loss, scores: Tensor, gains: Tensor, teacher: Tensor | None = None) -> float:
    terms = count_terms(name, gains, REAL, teacher).sum()
    return float(loss_sums(name, scores, gains, REAL, teacher).sum() / terms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lambda", "listnet"])
def test_a_listwise_loss_is_that_of_sentence_transformers(model: Any, name: Loss) -> None:
    from sentence_transformers.cross_encoder import losses

    theirs = {"lambda": losses.LambdaLoss, "listnet": losses.ListNetLoss}[name](model)
    with torch.no_grad():
        want = float(theirs([QUERIES, ITEMS], [torch.tensor(grades) for grades in GRADES]))
    assert mean(name, logits(model), padded(GRADES, 9.0)) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_binary_cross_entropy_is_that_of_sentence_transformers(model: Any) -> None:
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    pairs = [(query, item) for query, items in zip(QUERIES, ITEMS, strict=True) for item in items]
    flat = torch.tensor([grade / 3 for grades in GRADES for grade in grades])
    with torch.no_grad():
        want = float(BinaryCrossEntropyLoss(model)([[query for query, _ in pairs], [item for _, item in pairs]], flat))
    assert mean("bce", logits(model), padded(GRADES, 9.0) / 3) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_margin_mse_is_that_of_sentence_transformers(model: Any) -> None:
    from sentence_transformers.cross_encoder.losses import MarginMSELoss

    size = 2
    rows = [row for row, length in enumerate(LENGTHS) if length >= size + 1]
    columns = [[QUERIES[row] for row in rows], *([ITEMS[row][place] for row in rows] for place in range(size + 1))]
    labels = [torch.tensor([TEACHER[row][place] for row in rows]) for place in range(size + 1)]
    with torch.no_grad():
        want = float(MarginMSELoss(model)(columns, torch.stack(labels, dim=1)))
    real = REAL[rows].clone()
    real[:, size + 1 :] = False
    teacher, scores = padded(TEACHER, 0.0)[rows], logits(model)[rows]
    terms = count_terms("margin_mse", scores, real, teacher).sum()
    assert float(loss_sums("margin_mse", scores, scores, real, teacher).sum() / terms) == pytest.approx(want, rel=1e-5)


def test_a_pair_that_the_teacher_has_not_read_counts_for_nothing() -> None:
    scores, real = torch.tensor([[2.0, 1.0, 5.0], [0.0, 4.0, 1.0]]), torch.ones(2, 3, dtype=torch.bool)
    teacher = torch.tensor([[1.0, 0.5, torch.nan], [torch.nan, 1.0, 2.0]])
    assert count_terms("margin_mse", scores, real, teacher).tolist() == [1.0, 0.0]
    assert loss_sums("margin_mse", scores, scores, real, teacher).tolist() == [0.25, 0.0]


@pytest.mark.parametrize("name", ["bce", "lambda", "listnet", "margin_mse"])
def test_the_gradient_is_that_of_finite_differences_and_padding_has_none(name: Loss) -> None:
    gains, teacher = padded(GRADES, 9.0).double(), padded(TEACHER, 3.0).double()
    gains = gains / 9 if name == "bce" else gains
    scores = torch.randn(REAL.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: loss_sums(name, x, gains, REAL, teacher), scores)
    (gradient,) = torch.autograd.grad(loss_sums(name, scores, gains, REAL, teacher).sum(), scores)
    assert not gradient[~REAL].any()
    assert gradient.isfinite().all()
    assert gradient[REAL].abs().sum() > 0


def test_lists_of_one_grade_have_nothing_to_order() -> None:
    flat = torch.ones(2, 3)
    assert count_terms("lambda", flat, torch.ones(2, 3, dtype=torch.bool)).tolist() == [0.0, 0.0]
    assert loss_sums("lambda", torch.randn(2, 3), flat, torch.ones(2, 3, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_a_relevant_item_is_first_only_above_all_others_and_padding_is_none_of_them() -> None:
    real = torch.tensor([[True, True, True, False]] * 4)
    gains = torch.tensor([[2.0, 0.0, 1.0, 9.0]] * 3 + [[1.0, 1.0, 0.0, 0.0]])
    scores = torch.tensor([[0.5, 0.4, 0.3, 9.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.6, 0.0], [-3.0, -1.0, -2.0, 0.0]])
    assert best_is_first(scores, gains, real).tolist() == [True, False, False, True]
