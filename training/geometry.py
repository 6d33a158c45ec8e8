"""What the loss sees, as figures to log every step: how hard the negatives are and which of them teach anything.

All figures are computed without gradient, for the rows of one rank; across ranks, average them with equal weight.

Shape letters: B queries, C candidate columns, D embedding dimensions, K figures.
"""

import math

import torch
from torch import Tensor

IN_BATCH, HARD, RANDOM = 0, 1, 2
"""Kinds of a column for a query: another query's item; a negative mined for this query; a random one drawn for it."""

DEAD_BELOW = 1e-4
"""A negative whose softmax weight is below this adds practically nothing to the gradient."""


@torch.no_grad()
def loss_geometry(logits_BC: Tensor, positive_column_B: Tensor, kind_BC: Tensor) -> dict[str, float]:
    """Describe the softmax of one batch of InfoNCE.

    A negative is a column with a finite logit that is not the positive; p is the softmax over positive and negatives, w
    the softmax over the negatives alone.  The gradient of InfoNCE with respect to the logit of a negative is p, so sums
    of p are shares of the gradient.

    Args:
        logits_BC: divided by the temperature, -inf where a column is not a candidate (`InfoNCE.logits_BC`).
        positive_column_B: int64 column of each query's positive.
        kind_BC: uint8, `IN_BATCH`, `HARD` or `RANDOM`; ignored at the positive and where masked.

    Returns:
        `positive_probability`: mean p of the positive.
        `hardest_weight`: largest w, mean over the queries that have a negative.
        `effective_negatives`: exp(entropy of w in nats), mean over the same; between 1 and the number of negatives.
        `gradient_share_hard`, `gradient_share_random`, `gradient_share_in_batch`: sum of p of the kind over that of all
            negatives of the batch; add up to 1, or are all 0 where no negative has any p.
        `dead_negatives`: share of negatives with p < 1e-4.
        `above_positive`: share of negatives with a logit above that of the positive.
        `negatives_per_query`: mean count.
        A mean or share over nothing is 0.  NaN logits give NaN figures: a diverged run must show.
    """
    logits_BC = logits_BC.float()
    candidate_BC = ~torch.isneginf(logits_BC)
    negative_BC = candidate_BC.scatter(1, positive_column_B[:, None], False)
    p_BC = _softmax(logits_BC, candidate_BC)
    w_BC = _softmax(logits_BC, negative_BC)
    positive_B1 = logits_BC.gather(1, positive_column_B[:, None])
    has_negative_B = negative_BC.any(1)
    entropy_B = torch.special.entr(w_BC).sum(1)
    pull_BC = p_BC.masked_fill(~negative_BC, 0.0)
    figures = {
        "positive_probability": _mean(p_BC.gather(1, positive_column_B[:, None])[:, 0], candidate_BC.any(1)),
        "hardest_weight": _mean(w_BC.amax(1), has_negative_B),
        "effective_negatives": _mean(entropy_B.exp(), has_negative_B),
        "gradient_share_hard": _ratio(pull_BC[kind_BC == HARD].sum(), pull_BC.sum()),
        "gradient_share_random": _ratio(pull_BC[kind_BC == RANDOM].sum(), pull_BC.sum()),
        "gradient_share_in_batch": _ratio(pull_BC[kind_BC == IN_BATCH].sum(), pull_BC.sum()),
        "dead_negatives": _mean((p_BC < DEAD_BELOW).float(), negative_BC),
        "above_positive": _mean((logits_BC > positive_B1).float(), negative_BC),
        "negatives_per_query": _mean(negative_BC.sum(1).float(), torch.ones_like(has_negative_B)),
    }
    return _to_floats(figures)


@torch.no_grad()
def alignment_uniformity(queries_BD: Tensor, positives_BD: Tensor) -> dict[str, float]:
    """Describe the embedding space: are pairs close, is the sphere used, has it collapsed?

    (Wang & Isola 2020, arXiv 2005.10242, section 4.1, with alpha = 2 and t = 2.)

    Args:
        queries_BD: L2-normalised.
        positives_BD: L2-normalised, row b belongs to query b.  A positive shared by two queries counts as a close pair.

    Returns:
        `alignment`: mean |q - p|^2 over pairs, 0 is best.
        `uniformity`: log of the mean of exp(-2 |x - y|^2) over different rows x, y, averaged over the two sides; lower
            is better, 0 is full collapse.
        `mean_pairwise_cosine`: over different rows, averaged over the two sides; near 1 is collapse.
        With fewer than two rows the last two are 0; with none, all are.
    """
    queries_BD, positives_BD = queries_BD.float(), positives_BD.float()
    if len(queries_BD) == 0:
        return {"alignment": 0.0, "uniformity": 0.0, "mean_pairwise_cosine": 0.0}
    sides = [_pairwise(queries_BD), _pairwise(positives_BD)]
    figures = {
        "alignment": (queries_BD - positives_BD).square().sum(1).mean(),
        "uniformity": (sides[0][0] + sides[1][0]) / 2,
        "mean_pairwise_cosine": (sides[0][1] + sides[1][1]) / 2,
    }
    return _to_floats(figures)


def _pairwise(x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(uniformity, mean cosine) over ordered pairs of different rows of unit length."""
    num_pairs = len(x_BD) * (len(x_BD) - 1)
    if num_pairs == 0:
        return x_BD.new_zeros(()), x_BD.new_zeros(())
    with torch.autocast(x_BD.device.type, enabled=False):
        cosine_BB = x_BD @ x_BD.T
    # |x - y|^2 = 2 - 2 cos on the unit sphere, so exp(-2 |x - y|^2) = exp(4 cos - 4).
    exponent_BB = (4.0 * cosine_BB - 4.0).fill_diagonal_(-torch.inf)
    uniformity = exponent_BB.flatten().logsumexp(0) - math.log(num_pairs)
    return uniformity, cosine_BB.fill_diagonal_(0.0).sum() / num_pairs


def _softmax(logits_BC: Tensor, among_BC: Tensor) -> Tensor:
    """Softmax over the chosen columns, 0 elsewhere; a row with none chosen is all 0 rather than NaN."""
    # Emptied rows get finite logits first: softmax of nothing but -inf is NaN.
    filled_BC = torch.where(among_BC, logits_BC, -torch.inf).masked_fill(~among_BC.any(1, keepdim=True), 0.0)
    return torch.softmax(filled_BC, 1).masked_fill(~among_BC, 0.0)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0.0, torch.zeros_like(part), part / whole)


def _to_floats(figures: dict[str, Tensor]) -> dict[str, float]:
    values_K = torch.stack(list(figures.values())).tolist()  # one copy from the device for all figures
    return dict(zip(figures, values_K, strict=True))
