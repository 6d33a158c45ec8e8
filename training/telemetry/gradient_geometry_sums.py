"""The sums of the loss geometry on a CPU, in one pass over memory: whole-array operations would read it twenty times.

B queries, C candidate columns.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cluster.labels.compiled import compiled
from training.telemetry.gradient_geometry import KIND_SUMS, KINDS, ROW_SUMS

F32 = npt.NDArray[np.float32]

ROWS, POSITIVE, WITH_NEGATIVES, HARDEST, EFFECTIVE = range(len(ROW_SUMS))
"""Places of the sums over rows."""
COUNT, PULL, DEAD, ABOVE, LOGIT = range(len(KIND_SUMS))
"""Places of the sums over the negatives of a kind, counted from the kind's first."""
FIRST_SUM = np.array([len(ROW_SUMS) + len(KIND_SUMS) * list(KINDS.values()).index(code) for code in range(len(KINDS))])
"""Code of a kind -> place of its first sum."""


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
    """Add up what `training.telemetry.gradient_geometry.geometry_sums` returns, all but POSITIVE.

    Args:
        negative_BC: logits, -inf where a column is no negative.
        w_BC: their softmax.
        positive_B: logit of the positive.
        among_B: log-sum-exp of the negatives.
        rest_B: share of the whole softmax that the negatives carry.
        kind_BC: code of each column's kind.
        dead_below: a negative with less of the whole softmax is dead.
        out: float64, one for each of ROW_SUMS, then one for each of KIND_SUMS for each of KINDS.
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
            first = FIRST_SUM[kind_BC[row, column]]
            out[first + COUNT] += 1.0
            out[first + PULL] += pull
            out[first + DEAD] += pull < dead_below
            out[first + ABOVE] += logit > positive_B[row]
            out[first + LOGIT] += logit
        out[ROWS] += 1.0
        if count:
            out[WITH_NEGATIVES] += 1.0
            out[HARDEST] += hardest
            out[EFFECTIVE] += math.exp(among_B[row] - dot)  # entropy = log-sum-exp - sum of w * logit
