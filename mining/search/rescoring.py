"""Exact scores on a device: float64 sums in whatever order it likes, taken only where the order cannot matter.

The exact score of a pair is a float64 sum in one order, rounded to float32 (`mining.search.kernels`). Two float64 sums of the
same D products differ by at most 2 D u Σ|q x| with u = 2^-53: each is within D u Σ|q x| of the true value (Higham, Accuracy and
Stability of Numerical Algorithms, 2nd edition, section 3.1; products of float32 numbers are exact in float64). Σ|q x| is at most
|q||x|. Where the sum less that difference and the sum plus it round to the same float32, so does the sum in our order.
Elsewhere the CPU sums up: at 384 dimensions and a score of 0.5 about one pair in 200,000.

Q queries, N items, D dimensions, W proposed items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST_NUMBERS = 2**26
"""Numbers of vectors that are held at once in float64: 512 MiB, and as much for their products."""
UNIT = 2.0**-53
MARGIN = 2.0
"""Times the difference that is possible, for the roundings of the bound itself."""
SMALLEST = 2.0**-100
"""Added to the bound: a score this near to zero is summed up on the CPU, which knows its sign and does not flush it."""


def certain_scores(queries_QD: Tensor, items_ND: Tensor, index_QW: Tensor) -> Tensor:
    """The exact scores of each query's indexed items, float32 [Q, W]; NaN where float64 leaves two values possible.

    Args:
        queries_QD, items_ND: float32, on one device. index_QW: rows of `items_ND`, none negative.
    """
    import torch

    queries, width = index_QW.shape
    dimension = queries_QD.shape[1]
    scores = torch.empty((queries, width), dtype=torch.float32, device=queries_QD.device)
    step = max(1, MOST_NUMBERS // max(1, width * dimension))
    for start in range(0, queries, step):
        asking = queries_QD[start : start + step].double()
        items = items_ND[index_QW[start : start + step]].double()
        lengths = asking.norm(dim=1, keepdim=True) * items.norm(dim=2)
        sums = (items.mul_(asking[:, None, :])).sum(dim=2)
        bound = lengths.mul_(2.0 * MARGIN * (dimension + 1) * UNIT).add_(SMALLEST)
        low, high = (sums - bound).float(), (sums + bound).float()
        scores[start : start + step] = torch.where(low == high, low, torch.nan)
    return scores
