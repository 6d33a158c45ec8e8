"""The sums of the loss geometry on a CPU, in one pass over memory: whole-array operations would read it twenty times.

B queries, C candidate columns.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cluster.compiled import compiled

F32 = npt.NDArray[np.float32]


@compiled(reorder_sums=True)
def sum_rows(
    negative_BC: F32,
    w_BC: F32,
    positive_B: F32,
    among_B: F32,
    rest_B: F32,
    kind_BC: npt.NDArray[np.uint8],
    dead_below: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Add up what `training.telemetry.geometry.geometry_sums` returns, but for its second number.

    Args:
        negative_BC: logits, -inf where a column is no negative.
        w_BC: their softmax.
        positive_B: logit of the positive.
        among_B: log-sum-exp of the negatives.
        rest_B: share of the whole softmax that the negatives carry.
        kind_BC: code of each column's kind, which is its place among the kinds.
        out: float64, 5 + 5 for each kind in the order of training.telemetry.geometry.KINDS.
    """
    for row in range(negative_BC.shape[0]):
        hardest, dot, count = np.float32(0.0), 0.0, 0
        for column in range(negative_BC.shape[1]):
            logit = negative_BC[row, column]
            if logit == -np.inf:
                continue
            w = w_BC[row, column]
            pull = w * rest_B[row]
            count += 1
            hardest = max(hardest, w)
            dot += w * logit
            place = 5 + 5 * PLACE_OF[kind_BC[row, column]]
            out[place] += 1.0
            out[place + 1] += pull
            out[place + 2] += pull < dead_below
            out[place + 3] += logit > positive_B[row]
            out[place + 4] += logit
        out[0] += 1.0
        if count:
            out[2] += 1.0
            out[3] += hardest
            out[4] += math.exp(among_B[row] - dot)  # entropy = log-sum-exp - sum of w * logit


PLACE_OF = np.array([2, 0, 1, 3])
"""Kind code (in-batch, hard, random, cross-rank) -> its place in training.telemetry.geometry.KINDS."""
