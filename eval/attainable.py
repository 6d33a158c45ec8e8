"""The best that any model can get: with more relevant items than places, a perfect ranking has a recall below 1.

    best = attainable(per_query_metrics(hits_QK, query_rows_Q, judgements), query_rows_Q, judgements)
    summarise(best)["recall@3"]  # 0.509: a threshold of 0.80 asks the impossible

Shape suffix: Q queries evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eval.metrics import F64, I64, LOWER_IS_BETTER, Judgements


def attainable(metrics: Iterable[str], query_rows_Q: I64, judgements: Judgements) -> dict[str, F64]:
    """What a perfect ranking of the corpus gets for each query.

    `recall@k` and `map@k`: min(k, R) / R of R relevant items; `hit@k`, `ndcg@k` and `mrr@k`: 1; `bad_top1`: 0.

    Args:
        metrics: names as `per_query_metrics` has them.
        query_rows_Q: int64 query rows, any order.
        judgements: their labels.

    Returns:
        float64 [Q] for each metric; NaN in all of them for a query without a relevant item.
    """
    relevant = np.concatenate([[0], np.cumsum(judgements.relevant)])
    counts = np.append(relevant[judgements.offsets[1:]] - relevant[judgements.offsets[:-1]], 0)
    row_Q = np.searchsorted(judgements.query_rows, query_rows_Q)
    known_Q = np.append(judgements.query_rows, -1)[row_Q] == query_rows_Q
    count_Q = np.where(known_Q, counts[row_Q], 0)
    best: dict[str, F64] = {}
    for metric in metrics:
        base, _, depth = metric.partition("@")
        if base in ("recall", "map"):
            values_Q = np.minimum(count_Q, int(depth)) / np.maximum(count_Q, 1)
        else:
            values_Q = np.full(len(query_rows_Q), 0.0 if metric in LOWER_IS_BETTER else 1.0)
        best[metric] = np.where(count_Q > 0, values_Q, np.nan)
    return best
