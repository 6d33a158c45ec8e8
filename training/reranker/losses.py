"""Losses over lists of pairs, each as sentence-transformers' cross-encoder loss of that name.

A loss is a sum over its terms (pairs, pairs of pairs, or whole lists), and how many terms a list has is known without its
scores: so ranks divide by the number of terms of all lists together, and train as one rank would.

B lists, L pairs of a list.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.reranker.settings import Loss

MU = 10.0
"""Weight of NDCGLoss2 beside LambdaRank in NDCGLoss2++ (Wang 2018, LambdaLoss, section 5)."""


def loss_sums(name: Loss, scores_BL: Tensor, gains_BL: Tensor, real_BL: Tensor, teacher_BL: Tensor | None = None) -> Tensor:
    """[B] the sum of each list's terms, differentiable in the scores.

    Args:
        scores_BL: float32 logits.
        gains_BL: float32 grades, >= 0; bce: within [0, 1]. The first pair of a list is relevant.
        real_BL: bool; the other pairs are padding and count for nothing.
        teacher_BL: a teacher's scores, NaN where it has none; margin_mse only.
    """
    if name == "bce":
        each = functional.binary_cross_entropy_with_logits(scores_BL, gains_BL, reduction="none")
        return each.masked_fill(~real_BL, 0.0).sum(dim=1)
    if name == "lambda":
        return _lambda(scores_BL, gains_BL, real_BL)
    if name == "listnet":
        # Cao 2007, top-1 probabilities: cross-entropy of softmax(grades) and softmax(scores)
        wanted = gains_BL.masked_fill(~real_BL, -torch.inf).softmax(dim=1)
        got = scores_BL.masked_fill(~real_BL, -torch.inf).log_softmax(dim=1)
        return -(wanted * got.masked_fill(~real_BL, 0.0)).sum(dim=1)
    assert teacher_BL is not None
    known = _margins(real_BL, teacher_BL)
    # Hofstätter 2020, arXiv 2010.02666: squared difference of the margins between the relevant pair and each other one
    margin, wanted = scores_BL[:, :1] - scores_BL, teacher_BL[:, :1] - teacher_BL
    return (margin - wanted.masked_fill(~known, 0.0)).square().masked_fill(~known, 0.0).sum(dim=1)


def count_terms(name: Loss, gains_BL: Tensor, real_BL: Tensor, teacher_BL: Tensor | None = None) -> Tensor:
    """[B] float32: how many terms `loss_sums` adds up."""
    if name == "bce":
        return real_BL.sum(dim=1).float()
    if name == "lambda":
        both = real_BL[:, :, None] & real_BL[:, None, :]
        return (both & (gains_BL[:, :, None] > gains_BL[:, None, :])).sum(dim=(1, 2)).float()
    if name == "listnet":
        return real_BL.any(dim=1).float()
    assert teacher_BL is not None
    return _margins(real_BL, teacher_BL).sum(dim=1).float()


def best_is_first(scores_BL: Tensor, gains_BL: Tensor, real_BL: Tensor) -> Tensor:
    """[B] bool: whether a pair of the best grade has a higher score than every pair of another grade (not an equal one)."""
    best = real_BL & (gains_BL >= gains_BL.masked_fill(~real_BL, 0.0).amax(dim=1, keepdim=True))
    highest, others = (scores_BL.masked_fill(~some, -torch.inf).amax(dim=1) for some in (best, real_BL & ~best))
    return highest > others


def _margins(real_BL: Tensor, teacher_BL: Tensor) -> Tensor:
    """[B, L] pairs whose margin to the first one the teacher knows."""
    known = real_BL & teacher_BL.isfinite() & teacher_BL[:, :1].isfinite()
    known[:, 0] = False
    return known


def _lambda(scores_BL: Tensor, gains_BL: Tensor, real_BL: Tensor) -> Tensor:
    """NDCGLoss2++ (Wang 2018, The LambdaLoss Framework, eq. 12 and 18), without a cut: for each two pairs of other grades, the
    binary logarithm of how surely the better one is above, weighted by what changing places would do to NDCG."""
    length = scores_BL.shape[1]
    scores, order = scores_BL.masked_fill(~real_BL, -torch.inf).sort(dim=1, descending=True, stable=True)
    gains, real = gains_BL.masked_fill(~real_BL, 0.0).gather(1, order), real_BL.gather(1, order)
    discount_L = torch.log2(torch.arange(2, length + 2, device=scores.device, dtype=scores.dtype))
    ideal = (gains.sort(dim=1, descending=True).values.exp2() - 1) / discount_L
    worth = (gains.exp2() - 1) / ideal.sum(dim=1, keepdim=True).clamp(min=1e-10)
    apart = worth[:, :, None] - worth[:, None, :]
    # NDCGLoss2: as if the two were this many positions apart, at the top; LambdaRank: where they are
    position = torch.arange(length, device=scores.device)
    distance_LL = (position[:, None] - position[None, :]).abs()
    near_LL = 1 / discount_L[(distance_LL - 1).clamp(min=0)] - 1 / discount_L[distance_LL.clamp(max=length - 1)]
    there_LL = (1 / discount_L[:, None] - 1 / discount_L[None, :]).abs()
    weights = (MU * near_LL.abs().masked_fill(distance_LL == 0, 0.0) + there_LL) * apart.abs()
    counted = real[:, :, None] & real[:, None, :] & (gains[:, :, None] > gains[:, None, :])
    above = scores[:, :, None] - scores[:, None, :]
    likely = functional.logsigmoid(above.masked_fill(~counted, 0.0)) / math.log(2)
    return -(weights.detach() * likely).masked_fill(~counted, 0.0).sum(dim=(1, 2))
