"""Contrastive losses over the candidates of all ranks: InfoNCE and triplet.

A rank passes its *local* queries and the items of *all* ranks (`training.objective.gather.gather_rows`, with gradient), so each
loss is a mean over local rows.  Multiple-negatives ranking (MNRL of sentence-transformers) is `info_nce` with
temperature = 1 / scale.

Shape letters: B local queries, C candidate columns (distinct items of all ranks), D embedding dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.settings import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE

# A learnable temperature that was clamped to an end of the range may sit just outside it once rounded to bfloat16.
_ROUNDING = 0.005


class InfoNCE(NamedTuple):
    """What `info_nce` returns."""

    loss: Tensor
    """Scalar, with gradient; float32, or float64 for float64 embeddings."""
    logits_BC: Tensor  # noqa: N815
    """float32, detached, already divided by the temperature; -inf where a column is not a candidate."""


def info_nce(
    queries_BD: Tensor,
    items_CD: Tensor,
    positive_column_B: Tensor,
    *,
    temperature: float | Tensor,
    masked_BC: Tensor,
    weights_B: Tensor | None = None,
    denominator: Tensor | None = None,
) -> InfoNCE:
    """Softmax cross-entropy of each query's positive against all its candidates.

    L = sum_b w_b * -log( exp(s(q_b, p_b) / t) / sum_c exp(s(q_b, c) / t) ) / sum_b w_b, with s the inner product.
    (van den Oord 2018, arXiv 1807.03748, eq. 4; across ranks as in DPR / sentence-transformers.)

    Args:
        queries_BD: L2-normalised by the caller; any floating dtype, scored in float32 at least, also under autocast.
        items_CD: L2-normalised by the caller.
        positive_column_B: int64 column of each query's positive.
        temperature: t, within [0.001, 1]; a tensor with one element may be learnable and receives its gradient.
        masked_BC: bool, True = not a candidate (known positives, group mates, second occurrences).  The positive column
            stays a candidate whatever the mask says.
        weights_B: weight of each query, >= 0; None weighs all equally.
        denominator: scalar to divide by in place of the local sum of weights.  Needed for exactness across ranks where
            the ranks differ in B or in their sum of weights: pass `mean_over_ranks(weights_B.sum())`, or of B as a
            tensor where there are no weights.

    Returns:
        The loss and the logits.  A batch with no weight at all (or no rows) has loss 0.

    Raises:
        ValueError: the temperature is out of range.
    """
    _check_temperature(temperature)
    scores_BC = scores(queries_BD, items_CD) / temperature
    masked_BC = masked_BC.scatter(1, positive_column_B[:, None], False)
    logits_BC = scores_BC.masked_fill(masked_BC, -torch.inf)
    losses_B = functional.cross_entropy(logits_BC, positive_column_B, reduction="none")
    return InfoNCE(weighted_mean(losses_B, weights_B, denominator), logits_BC.detach().float())


def triplet(
    queries_BD: Tensor,
    items_CD: Tensor,
    positive_column_B: Tensor,
    *,
    margin: float,
    masked_BC: Tensor,
    weights_B: Tensor | None = None,
    denominator: Tensor | None = None,
) -> Tensor:
    """Hinge loss: weighted mean over queries of the mean over their negatives of relu(margin + s(q, n) - s(q, p)).

    (Schroff 2015, arXiv 1503.03832, eq. 2 with the inner product as similarity and all negatives in place of one.)

    Args:
        margin: wanted lead of the positive in units of the inner product, >= 0.
        queries_BD, items_CD, positive_column_B, masked_BC, weights_B, denominator: as in `info_nce`.

    Returns:
        Scalar with gradient; float32, or float64 for float64 embeddings.  A query with no negative left has loss 0
        and still counts in the mean.

    Raises:
        ValueError: the margin is negative or not a number.
    """
    if not margin >= 0.0:
        raise ValueError(f"margin must be >= 0, found {margin}: below 0 a negative may outscore the positive for free")
    scores_BC = scores(queries_BD, items_CD)
    positive_B1 = scores_BC.gather(1, positive_column_B[:, None])
    negative_BC = ~masked_BC.scatter(1, positive_column_B[:, None], True)
    hinge_BC = functional.relu(margin + scores_BC - positive_B1).masked_fill(~negative_BC, 0.0)
    losses_B = hinge_BC.sum(1) / negative_BC.sum(1).clamp(min=1)
    return weighted_mean(losses_B, weights_B, denominator)


def likely_positives(scores_BC: Tensor, positive_column_B: Tensor, margin: float) -> Tensor:
    """Mark candidates that a model finds about as relevant as the positive: most likely positives without a label.

    With a second model's scores this is GISTEmbed's guide (Solatorio 2024, arXiv 2402.16829, section 3): margin 0, or, as in
    sentence-transformers, more.  With the trained model's own scores and a negative margin of at most 0 here, i.e. a
    threshold *above* the positive, it is the guard of Qwen3-Embedding (arXiv 2506.05176, section 2.3): margin -0.1.

    Args:
        scores_BC: inner products of unit vectors; no gradient flows.
        positive_column_B: int64 column of each query's positive.
        margin: a candidate is marked if its score > s - margin, s being the positive's.

    Returns:
        bool [B, C]; never True at the positive column.
    """
    scores_BC = scores_BC.detach()
    positive_B1 = scores_BC.gather(1, positive_column_B[:, None])
    return (scores_BC > positive_B1 - margin).scatter(1, positive_column_B[:, None], False)


def truncated(x_ND: Tensor, length: int) -> Tensor:
    """The first `length` dimensions, of unit length again (Matryoshka: Kusupati 2022, arXiv 2205.13147).

    Raises:
        ValueError: there are not so many dimensions.
    """
    if not 1 <= length <= x_ND.shape[1]:
        raise ValueError(
            f"a vector of {x_ND.shape[1]} dimensions has no first {length}: training.matryoshka takes lengths "
            f"from 1 to {x_ND.shape[1]}"
        )
    return functional.normalize(x_ND[:, :length], dim=-1)


def _check_temperature(temperature: float | Tensor) -> None:
    if isinstance(temperature, Tensor) and temperature.device.type != "cpu":
        return  # to look at it would wait for the device
    value, slack = (temperature.detach().item(), _ROUNDING) if isinstance(temperature, Tensor) else (temperature, 0.0)
    # Written so that NaN fails too.
    if not LOWEST_TEMPERATURE * (1 - slack) <= value <= HIGHEST_TEMPERATURE * (1 + slack):
        raise ValueError(
            f"temperature must be within [{LOWEST_TEMPERATURE}, {HIGHEST_TEMPERATURE}], found {value}: cosines span 2, "
            "so below it the softmax sees one single negative and its gradient is noise, above it all negatives weigh "
            "nearly the same; 0.02 to 0.1 is usual (a scale s of MNRL is temperature 1/s); clamp a learnable one"
        )


def scores(queries_BD: Tensor, items_CD: Tensor) -> Tensor:
    """Inner products [B, C] in float32, or float64 where an input is float64; also under autocast."""
    dtype = torch.promote_types(torch.promote_types(queries_BD.dtype, items_CD.dtype), torch.float32)
    # Autocast would round the products to bfloat16: an error of 0.004 in a cosine is 0.08 in a logit at t = 0.05.
    with torch.autocast(queries_BD.device.type, enabled=False):
        return queries_BD.to(dtype) @ items_CD.to(dtype).T


def weighted_mean(losses_B: Tensor, weights_B: Tensor | None, denominator: Tensor | None) -> Tensor:
    """The mean of local rows' losses; `denominator` in place of the sum of weights makes it exact across ranks."""
    weights_B = torch.ones_like(losses_B) if weights_B is None else weights_B.to(losses_B.dtype)
    total = weights_B.sum() if denominator is None else denominator.to(losses_B.dtype)
    # A mean over *local* rows.  Whoever averages parameter gradients over W ranks (DDP, DeepSpeed) supplies the factor
    # 1/W: (1/W) * sum over ranks of (1/B) * sum over local rows = the mean over the W*B rows of the joined batch, if B
    # (or the sum of weights) is equal on all ranks.  Where it is not, `denominator` is its average over ranks, and the
    # same mean comes out.
    return (losses_B * weights_B).sum() / total.clamp(min=torch.finfo(losses_B.dtype).tiny)
