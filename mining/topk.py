"""The K nearest items of each query within one shard, exactly and reproducibly.

A matrix product's last bit depends on how it was blocked, so the first pass only proposes: K and a few more candidates
are scored again in float64 in one fixed order, and *that* score, rounded to float32, ranks. Ties go to the smaller row.
Where more candidates tie at the edge than were proposed, the query is searched again with more.

Q queries, N items of the shard, D dimensions, K hits.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cluster.tables import F32, I64

Engine = Literal["faiss", "torch"]

SLACK = 16
"""Candidates proposed beyond K."""
ROUNDING_PER_DIMENSION = 2.0**-23
"""A float32 inner product of unit vectors is off by at most D × 2^-24, in whatever order it is summed; twice that, for
vectors stored in float16 and for the rounding of the score itself."""
RESCORE_BYTES = 64 * 2**20


def canonical_scores(queries_QD: F32, items_ND: F32, index_QK: I64) -> F32:
    """Inner products of each query with its indexed items, float32 [Q, K]; -inf where the index is -1.

    Products and sums are float64 in one fixed order per pair, so the result does not depend on what else is scored.
    """
    result = np.full(index_QK.shape, -np.inf, np.float32)
    pairs = max(1, RESCORE_BYTES // (queries_QD.shape[1] * 8))
    columns = max(1, min(index_QK.shape[1], pairs))
    queries = max(1, pairs // columns)
    for start, left in product(range(0, len(queries_QD), queries), range(0, index_QK.shape[1], columns)):
        some = np.s_[start : start + queries, left : left + columns]
        products = items_ND[np.maximum(index_QK[some], 0)].astype(np.float64)
        products *= queries_QD[start : start + queries, None, :]
        result[some] = np.where(index_QK[some] >= 0, products.sum(axis=-1), -np.inf)
    return result


def order_hits(scores_QK: F32, rows_QK: I64, num_hits: int) -> tuple[F32, I64]:
    """The best `num_hits` per query, best first, ties by smaller row; padding (-1, -inf) last."""
    last = np.iinfo(np.int64).max
    order = np.lexsort((np.where(rows_QK < 0, last, rows_QK), -scores_QK), axis=1)[:, :num_hits]
    return np.take_along_axis(scores_QK, order, axis=1), np.take_along_axis(rows_QK, order, axis=1)


def exact_topk(queries_QD: F32, shard: Any, num_hits: int) -> tuple[F32, I64]:
    """The `num_hits` nearest items of a `Shard`: (scores [Q, K] float32, positions in the shard [Q, K] int64).

    Returns:
        Best first, ties by smaller position; -inf and -1 pad where the shard has fewer items.
    """
    scores = np.full((len(queries_QD), num_hits), -np.inf, np.float32)
    rows = np.full((len(queries_QD), num_hits), -1, np.int64)
    open_queries = np.arange(len(queries_QD))
    width = min(num_hits + SLACK, shard.rows)
    rounding = ROUNDING_PER_DIMENSION * queries_QD.shape[1]
    while len(open_queries):
        proposed, index = shard.propose(queries_QD[open_queries], width)
        exact = canonical_scores(queries_QD[open_queries], shard.vectors, index)
        best, place = order_hits(exact, index, num_hits)
        kept = best.shape[1]
        scores[open_queries, :kept], rows[open_queries, :kept] = best, place
        if width >= shard.rows:
            break
        # an item that was not proposed may still belong in: its product was at most the last one proposed
        unsure = proposed[:, -1] >= best[:, -1] - rounding
        open_queries = open_queries[unsure]
        width = min(width * 4, shard.rows)
    return scores, rows


class Shard:
    """Some consecutive items, and an engine that proposes nearest ones."""

    def __init__(self, vectors_ND: F32, engine: Engine) -> None:
        self.vectors = vectors_ND
        self.rows = len(vectors_ND)
        self._engine = engine
        self._device_vectors: Any = None

    def propose(self, queries_QD: F32, width: int) -> tuple[F32, I64]:
        """(inner products [Q, width] descending, positions) of the nearest items, up to float32 rounding."""
        return self._torch(queries_QD, width) if self._engine == "torch" else self._faiss(queries_QD, width)

    def _faiss(self, queries_QD: F32, width: int) -> tuple[F32, I64]:
        import faiss

        scores, index = faiss.knn(queries_QD, self.vectors, width, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, index

    def _torch(self, queries_QD: F32, width: int) -> tuple[F32, I64]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device_vectors is None:
            self._device_vectors = torch.from_numpy(self.vectors).to(device)
        scores: list[npt.NDArray[Any]] = []
        index: list[npt.NDArray[Any]] = []
        step = max(1, 2**28 // self.rows)  # 1 GiB of scores at once
        queries = torch.from_numpy(np.ascontiguousarray(queries_QD)).to(device)
        for block in torch.split(queries, step):
            top = (block @ self._device_vectors.T).topk(width, dim=1)
            scores.append(top.values.cpu().numpy())
            index.append(top.indices.cpu().numpy())
        return np.concatenate(scores), np.concatenate(index)
