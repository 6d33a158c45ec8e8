"""How alike two rankings of the same query are: what is in both, and rank-biased overlap, which weighs the top.

Q queries, K positions. Rows are ids; -1 is padding and equals nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64

F64 = npt.NDArray[np.float64]
PERSISTENCE = 0.9
"""A reader goes on to the next result with this probability: the first ten carry 86 % of the weight."""


def shared_at(a_QK: I64, b_QK: I64) -> I64:
    """[Q, K] items that the first 1 … K of both have in common. No ranking names an item twice."""
    both_QKK = (a_QK[:, :, None] == b_QK[:, None, :]) & (a_QK[:, :, None] >= 0)
    depth_QK = np.maximum(np.arange(a_QK.shape[1]), both_QKK.argmax(axis=2))  # from where on both hold it
    counts_QK = np.zeros(a_QK.shape, np.int64)
    np.add.at(counts_QK, (np.arange(len(a_QK))[:, None], depth_QK), both_QKK.any(axis=2))
    shared: I64 = counts_QK.cumsum(axis=1)
    return shared


def overlap(a_QK: I64, b_QK: I64) -> F64:
    """[Q] share of the longer list that is in both, 0 … 1; two empty lists are alike."""
    longest = np.maximum((a_QK >= 0).sum(axis=1), (b_QK >= 0).sum(axis=1))
    shared = shared_at(a_QK, b_QK)[:, -1]
    result: F64 = np.where(longest > 0, shared / np.maximum(longest, 1), 1.0)
    return result


def rank_biased_overlap(a_QK: I64, b_QK: I64, persistence: float = PERSISTENCE) -> F64:
    """[Q] extrapolated rank-biased overlap, 0 … 1 (Webber, Moffat and Zobel, TOIS 2010, equation 23).

    RBO = X_K / K · p^K + (1 − p) / p · Σ_d X_d / d · p^d, X_d the items that the first d of both share. Where a list ends
    earlier, so does the sum.
    """
    size = np.maximum((a_QK >= 0).sum(axis=1), (b_QK >= 0).sum(axis=1))
    depths = np.arange(1, a_QK.shape[1] + 1)
    agreement_QK = shared_at(a_QK, b_QK) / depths
    weights_K = persistence**depths
    inside_QK = depths[None] <= size[:, None]
    last = np.take_along_axis(agreement_QK, np.maximum(size - 1, 0)[:, None], axis=1)[:, 0]
    summed = (1 - persistence) / persistence * (agreement_QK * weights_K * inside_QK).sum(axis=1)
    result: F64 = np.where(size > 0, summed + last * persistence**size, 1.0)
    return result
