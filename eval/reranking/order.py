"""A retriever's hits in a re-ranker's order.

Shape suffixes: Q queries, K hits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eval.metrics import I64, Bool, Judgements

F32 = npt.NDArray[np.float32]


def reorder(rows_QK: I64, scores_QK: F32, *, depth: int | None = None) -> tuple[I64, F32]:
    """The first `depth` hits of each query by the re-ranker's score, best first; the others keep their order behind them.

    Args:
        rows_QK: item rows in the retriever's order; -1 is padding and stands only after the hits.
        scores_QK: float32, the re-ranker's score of each hit; what padding has does not matter.
        depth: hits that the re-ranker reads, >= 1; None: all of them.

    Returns:
        (rows, scores) in the new order; padding has -inf, and so have hits behind `depth`. Equal scores keep the
        retriever's order, so the result is the same in every run.

    Raises:
        ValueError: a hit within `depth` has no score (NaN).
    """
    width = rows_QK.shape[1] if depth is None else min(depth, rows_QK.shape[1])
    read = (rows_QK >= 0) & (np.arange(rows_QK.shape[1]) < width)
    if np.isnan(scores_QK[read]).any():
        query, position = np.argwhere(read & np.isnan(scores_QK))[0]
        raise ValueError(f"expected a score for every hit, found none for hit {position} of query {query}")
    known = np.where(read, scores_QK, np.float32(-np.inf))
    order = np.argsort(-known[:, :width], axis=1, kind="stable")
    order = np.concatenate(
        [order, np.broadcast_to(np.arange(width, rows_QK.shape[1]), (len(rows_QK), max(0, rows_QK.shape[1] - width)))], axis=1
    )
    return np.take_along_axis(rows_QK, order, axis=1), np.take_along_axis(known, order, axis=1)


def perfect_order(rows_QK: I64, query_rows_Q: I64, judgements: Judgements) -> I64:
    """The hits of each query by their grade: the order that no re-ranker surpasses. Equal grades keep the retriever's order.

    Args:
        rows_QK: item rows; -1 is padding and stands only after the hits. query_rows_Q: their queries, in any order.
    """
    width = np.int64(max(judgements.item_rows.max(initial=0), rows_QK.max(initial=0)) + 1)
    labels = np.repeat(judgements.query_rows, np.diff(judgements.offsets)) * width + judgements.item_rows
    asked = query_rows_Q[:, None] * width + rows_QK
    place = np.minimum(np.searchsorted(labels, asked), max(0, len(labels) - 1))
    known = (labels[place] == asked) & (rows_QK >= 0) if len(labels) else np.zeros(rows_QK.shape, np.bool_)
    gains = np.where(known, judgements.gains[place] if len(labels) else 0.0, 0.0)
    return reorder(rows_QK, gains.astype(np.float32))[0]


def tied_at_the_top(scores_QK: F32, codes_QK: I64) -> Bool:
    """[Q] whether the highest score of a query is shared by hits of different texts, so that the retriever decides.

    Args:
        scores_QK: best first; -inf is padding. codes_QK: code of each hit's text; equal texts have equal scores anyway.
    """
    at_the_top = (scores_QK == scores_QK[:, :1]) & np.isfinite(scores_QK)
    tied: Bool = (at_the_top & (codes_QK != codes_QK[:, :1])).any(axis=1)
    return tied
