"""What the loss sees, as figures to log every step: how hard the negatives are and which of them teach anything.

All figures are computed without gradient. Those of the softmax are made of sums that add up over rows and ranks
(`geometry_sums`), and become means and shares at the end (`geometry_figures`): a share over ranks is the share of all.

Shape letters: B queries, C candidate columns, D embedding dimensions, K kinds.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

IN_BATCH, HARD, RANDOM, CROSS_RANK = 0, 1, 2, 3
"""Kinds of a column for a query: another query's item of this rank; a negative mined for this query; a random one drawn
for it; an item that only other ranks' queries brought."""

KINDS = {"hard": HARD, "random": RANDOM, "in_batch": IN_BATCH, "cross_rank": CROSS_RANK}

DEAD_BELOW = 1e-4
"""A negative whose softmax weight is below this adds practically nothing to the gradient."""

ROW_SUMS = ("rows", "positive", "with_negatives", "hardest", "effective")
"""Sums over rows: their number, p of the positive, rows that have a negative, and of those largest w and exp(entropy of w)."""
KIND_SUMS = ("count", "pull", "dead", "above", "logit")
"""Sums over the negatives of a kind: number, p, those that are dead, those above the positive, logits."""
NUM_SUMS = len(ROW_SUMS) + len(KIND_SUMS) * len(KINDS)
SPACE = ("alignment", "uniformity", "mean_pairwise_cosine")
UNIFORMITY_ROWS = 1024
"""Rows that are compared with each other; of a larger batch the first."""


@torch.no_grad()
def geometry_sums(logits_BC: Tensor, positive_column_B: Tensor, kind_BC: Tensor) -> Tensor:
    """Sums over the rows of a batch (or of a part of it) that `geometry_figures` makes into figures.

    A negative is a column with a finite logit that is not the positive; p is the softmax over positive and negatives, w
    the softmax over the negatives alone. The gradient of InfoNCE with respect to the logit of a negative is p, so sums of
    p are shares of the gradient.

    Args:
        logits_BC: divided by the temperature, -inf where a column is not a candidate.
        positive_column_B: int64 column of each query's positive, which is a candidate.
        kind_BC: uint8 of KINDS; ignored at the positive and where masked.

    Returns:
        float64, one for each of ROW_SUMS, then one for each of KIND_SUMS for each of KINDS; they add up over parts of a batch
        and over ranks. NaN logits give NaN sums: a diverged run
        must show.
    """
    logits_BC = logits_BC.float()
    positive_B1 = logits_BC.gather(1, positive_column_B[:, None])
    negative_BC = logits_BC.scatter(1, positive_column_B[:, None], -torch.inf)
    among_B1 = negative_BC.logsumexp(1, keepdim=True)
    w_BC = torch.exp(negative_BC - torch.where(torch.isneginf(among_B1), 0.0, among_B1))
    rest_B1 = torch.sigmoid(among_B1 - positive_B1)  # what all negatives carry of p
    certain = torch.sigmoid(positive_B1 - among_B1).sum(dtype=torch.float64)
    softmax = _Softmax(negative_BC, w_BC, positive_B1[:, 0], among_B1[:, 0], rest_B1[:, 0], kind_BC)
    if logits_BC.device.type == "cpu":
        from training.telemetry.gradient_geometry_sums import sum_rows  # numba takes a while to load

        sums = torch.zeros(NUM_SUMS, dtype=torch.float64)
        parts: list[Any] = [part.numpy() for part in softmax]
        sum_rows(*parts, DEAD_BELOW, sums.numpy())  # type: ignore[call-arg]
    else:
        sums = _sum_on_device(softmax)
    sums[ROW_SUMS.index("positive")] = certain
    return sums


class _Softmax(NamedTuple):
    """What the sums are over."""

    negative_BC: Tensor  # noqa: N815
    w_BC: Tensor  # noqa: N815
    positive_B: Tensor  # noqa: N815
    among_B: Tensor  # noqa: N815
    """log-sum-exp of the negatives' logits."""
    rest_B: Tensor  # noqa: N815
    kind_BC: Tensor  # noqa: N815


def _sum_on_device(softmax: _Softmax) -> Tensor:
    """What `gradient_geometry_sums.sum_rows` does in one pass over memory, as whole-array operations for a GPU."""
    negative_BC, w_BC, positive_B, among_B, rest_B, kind_BC = softmax
    is_negative_BC = ~torch.isneginf(negative_BC)
    has_B = is_negative_BC.any(1)
    finite_BC = negative_BC.masked_fill(~is_negative_BC, 0.0)
    effective_B = torch.where(has_B, (among_B - (w_BC * finite_BC).sum(1)).exp(), 0.0)
    rows = torch.stack(
        [torch.ones_like(positive_B).sum(), rest_B.sum(), has_B.sum(), w_BC.amax(1).sum(), effective_B.sum()]
    ).double()
    pull_BC = w_BC * rest_B[:, None]
    of_pairs = (is_negative_BC, pull_BC, (pull_BC < DEAD_BELOW) & is_negative_BC, negative_BC > positive_B[:, None], finite_BC)
    by_kind = [(values * (kind_BC == code)).sum(dtype=torch.float64) for code in KINDS.values() for values in of_pairs]
    return torch.cat([rows, torch.stack(by_kind)])


def geometry_figures(sums: Tensor, temperature: float) -> dict[str, float]:
    """The figures of one step, from the sums over all its rows.

    Args:
        sums: of `geometry_sums`, added up over parts and ranks.
        temperature: what the logits were divided by.

    Returns:
        `positive_probability`: mean p of the positive.
        `hardest_weight`: largest w, mean over the queries that have a negative.
        `effective_negatives`: exp(entropy of w in nats), mean over the same; between 1 and the number of negatives.
        `dead_negatives`: share of negatives with p < 1e-4.
        `above_positive`: share of negatives with a logit above that of the positive.
        `negatives_per_query`: mean count.
        For each kind (hard, random, in_batch, cross_rank): `gradient_share_*`, its share of the sum of p over all
            negatives (together 1, or all 0 where no negative has any p); `cosine_*`, its mean score; `dead_*` and
            `above_*`, as above, among its own.
        A mean or share over nothing is 0.
    """
    values = sums.tolist()
    rows = dict(zip(ROW_SUMS, values, strict=False))
    kinds = {
        name: dict(zip(KIND_SUMS, values[start:], strict=False))
        for name, start in zip(KINDS, range(len(ROW_SUMS), len(values), len(KIND_SUMS)), strict=True)
    }
    whole = {name: sum(kind[name] for kind in kinds.values()) for name in KIND_SUMS}
    figures = {
        "positive_probability": _ratio(rows["positive"], rows["rows"]),
        "hardest_weight": _ratio(rows["hardest"], rows["with_negatives"]),
        "effective_negatives": _ratio(rows["effective"], rows["with_negatives"]),
        "dead_negatives": _ratio(whole["dead"], whole["count"]),
        "above_positive": _ratio(whole["above"], whole["count"]),
        "negatives_per_query": _ratio(whole["count"], rows["rows"]),
    }
    for name, kind in kinds.items():
        figures |= {
            f"gradient_share_{name}": _ratio(kind["pull"], whole["pull"]),
            f"cosine_{name}": _ratio(kind["logit"], kind["count"]) * temperature,
            f"dead_{name}": _ratio(kind["dead"], kind["count"]),
            f"above_{name}": _ratio(kind["above"], kind["count"]),
        }
    return figures


@torch.no_grad()
def alignment_uniformity(queries_BD: Tensor, positives_BD: Tensor) -> Tensor:
    """Describe the embedding space: are pairs close, is the sphere used, has it collapsed?

    (Wang & Isola 2020, arXiv 2005.10242, section 4.1, with alpha = 2 and t = 2.)

    Args:
        queries_BD: L2-normalised.
        positives_BD: L2-normalised, row b belongs to query b.  A positive shared by two queries counts as a close pair.

    Returns:
        float64 [3], named as SPACE:
        `alignment`: mean |q - p|^2 over pairs, 0 is best.
        `uniformity`: log of the mean of exp(-2 |x - y|^2) over different rows x, y, averaged over the two sides; lower
            is better, 0 is full collapse.
        `mean_pairwise_cosine`: over different rows, averaged over the two sides; near 1 is collapse.
        With fewer than two rows the last two are 0; with none, all are.
    """
    queries_BD, positives_BD = queries_BD.float(), positives_BD.float()
    if len(queries_BD) == 0:
        return torch.zeros(len(SPACE), dtype=torch.float64, device=queries_BD.device)
    sides = [_pairwise(queries_BD[:UNIFORMITY_ROWS]), _pairwise(positives_BD[:UNIFORMITY_ROWS])]
    alignment = (queries_BD - positives_BD).square().sum(1).mean()
    return torch.stack([alignment, (sides[0][0] + sides[1][0]) / 2, (sides[0][1] + sides[1][1]) / 2]).double()


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


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
