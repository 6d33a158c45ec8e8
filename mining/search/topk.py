"""The K nearest items of each query within one shard, exactly and reproducibly.

A matrix product's last bit depends on how it was blocked, so an engine only proposes: what it proposes is scored again in
float64 in one fixed order, and *that* score, rounded to float32, ranks. Ties go to the smaller row. Where the engine's
error leaves the edge unsettled, the query is proposed more.

Q queries, N items of the shard, D dimensions, K hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import gather_csr
from cluster.tables.tables import F32, I64, offsets_of
from mining.memory import MOST_PROPOSED
from mining.search.engines import Engine, EngineName, make_engine
from mining.search.kernels import drop_listed, score_list, score_needed, score_pairs, sort_hits

COMMON_SHARE = 0.9
"""A query with more known items than this share of the queries is searched again on its own, so that it does not widen
the search for all."""


@dataclass(frozen=True)
class Lists:
    """Some rows for each of several queries."""

    offsets: I64
    """[Q + 1]"""
    rows: I64
    """Ascending within a query."""

    def take(self, queries: I64) -> Lists:
        """The lists of some queries."""
        owner, index = gather_csr(self.offsets, queries)
        counts = np.bincount(owner, minlength=len(queries))
        return Lists(offsets_of(counts), self.rows[index])

    @property
    def owners(self) -> I64:
        """[L] the query of each row."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int64), np.diff(self.offsets))


class Shard:
    """Some consecutive items, and an engine that proposes nearest ones."""

    def __init__(self, vectors_ND: F32, engine: EngineName | Engine) -> None:
        self.vectors = vectors_ND
        self.rows = len(vectors_ND)
        self.engine: Engine = make_engine(engine, vectors_ND) if isinstance(engine, str) else engine


def canonical_scores(queries_QD: F32, items_ND: F32, index_QK: I64) -> F32:
    """Inner products of each query with its indexed items, float32 [Q, K]; -inf where the index is -1.

    Sums are float64 in one fixed order per pair, so the result does not depend on what else is scored.
    """
    result = np.empty(index_QK.shape, np.float32)
    score_pairs(np.ascontiguousarray(queries_QD), items_ND, np.ascontiguousarray(index_QK), result)
    return result


def exact_topk(queries_QD: F32, shard: Shard, num_hits: int, excluded: Lists | None = None) -> tuple[F32, I64]:
    """The `num_hits` nearest items of a `Shard`: (scores [Q, K] float32, positions in the shard [Q, K] int64).

    As exact as the engine's bound: certain ones give the same bytes whatever the engine and whatever else is searched.

    Args:
        excluded: positions in the shard that are no hits of a query, however near.

    Returns:
        Best first, ties by smaller position; -inf and -1 pad where the shard has fewer items that are not excluded.
    """
    scores = np.full((len(queries_QD), num_hits), -np.inf, np.float32)
    rows = np.full((len(queries_QD), num_hits), -1, np.int64)
    known = np.zeros(len(queries_QD), np.int64) if excluded is None else np.diff(excluded.offsets)
    usual = int(np.quantile(known, COMMON_SHARE, method="lower")) if len(known) else 0
    width = min(shard.engine.width(num_hits) + usual, shard.rows)
    open_queries, first = np.arange(len(queries_QD)), True
    while len(open_queries):
        left, step = [], max(1, MOST_PROPOSED // width)
        for start in range(0, len(open_queries), step):
            some = open_queries[start : start + step]
            best, place, unsettled = _best_of(queries_QD[some], shard, width, num_hits, excluded and excluded.take(some))
            scores[some, : best.shape[1]], rows[some, : best.shape[1]] = best, place
            left.append(some[unsettled])
        open_queries = np.concatenate(left)
        if first:  # a query with many known items is open because of them, not because of the engine
            shard.engine.learn(float(np.sum(known[open_queries] <= usual)) / int(np.sum(known <= usual)))
        width, first = min(width * 4, shard.rows), False
    return scores, rows


def _best_of(
    queries_QD: F32, shard: Shard, width: int, num_hits: int, excluded: Lists | None
) -> tuple[F32, I64, npt.NDArray[np.bool_]]:
    """(scores [Q, K'], positions [Q, K'], whether the engine has to propose more [Q]) from `width` proposals."""
    queries_QD = np.ascontiguousarray(queries_QD)
    proposal = shard.engine.propose(queries_QD, width)
    index = np.array(proposal.index)  # it is written to below
    if excluded is not None:
        drop_listed(index, excluded.offsets, excluded.rows)
    if proposal.exact is None:
        exact = np.empty(index.shape, np.float32)
        score_needed(queries_QD, shard.vectors, np.ascontiguousarray(proposal.scores), proposal.error, num_hits, index, exact)
    else:
        exact = np.where(index >= 0, proposal.exact, np.float32(-np.inf))
        owners, columns = np.nonzero(np.isnan(exact))
        summed = np.empty(len(owners), np.float32)
        score_list(queries_QD, shard.vectors, owners, index[owners, columns], summed)
        exact[owners, columns] = summed
    best, place = sort_hits(exact, index, num_hits)
    # an item that was not proposed may still belong in, if its highest possible score is not below the K-th
    unsettled = proposal.scores[:, -1] + proposal.error >= best[:, -1]
    unsettled &= (proposal.index[:, -1] >= 0) & (width < shard.rows)  # else there is no more to propose
    return best, place, unsettled
