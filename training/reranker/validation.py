"""Validation inside the re-ranker's training: NDCG of dev queries' hits in the order in which the model as it is puts them.

It orders epochs; what the re-ranker is worth is measured behind each retriever, on all hits, by later stages.

V queries, D hits of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels
from cluster.tables.tables import F32, I64, lists_to_csr, read_parts
from training.reranker.lists import PairValues
from training.reranker.task import RerankTask
from training.settings import VALIDATION_QUERIES
from training.task import Told

DEPTH = 30
"""Hits of each query that validation re-ranks."""
AT = 10
"""NDCG at this position."""


@dataclass(frozen=True)
class Candidates:
    """What is re-ranked."""

    query_rows: I64
    """[V]"""
    item_rows: I64
    """[V, D] best first; -1: no hit."""
    gains: F32
    """[V, D]"""
    ideal: npt.NDArray[np.float64]
    """[V] DCG of the best order of all graded items."""


def choose_candidates(task: RerankTask, told: Told, gains: F32, most: int = VALIDATION_QUERIES) -> Candidates | None:
    """The hits of up to `most` dev queries with a relevant item; None: there are none.

    Args:
        gains: of all labels, in their order.
    """
    if not task.data.near_misses:
        return None
    hits, labels = read_parts(task.store, task.data.near_misses, ["query_row", "item_rows"]), told.labels
    hit_queries = hits["query_row"].to_numpy()
    relevant = np.diff(labels.positives(hit_queries)[0]) > 0
    usable = np.flatnonzero(relevant & np.isin(hit_queries, told.dev))
    if not len(usable):
        return None
    rng = np.random.default_rng([task.seed, 1])
    chosen = np.sort(rng.permutation(usable)[:most])
    offsets, rows = lists_to_csr(hits["item_rows"].take(chosen))
    queries = hit_queries[chosen].astype(np.int64)
    items = np.full((len(chosen), DEPTH), -1, np.int64)
    owner = np.repeat(np.arange(len(chosen)), np.diff(offsets))
    position = np.arange(len(rows)) - offsets[owner]
    shown = position < DEPTH
    items[owner[shown], position[shown]] = rows[shown]
    no_hit = labels.self_rows is not None and items == labels.self_rows[queries][:, None]
    items = np.where(no_hit, -1, items)
    if not (items >= 0).any():
        return None
    owners = np.repeat(np.arange(labels.num_queries), np.diff(labels.offsets))
    gains = np.where(labels.scores >= 0, gains, np.float32(0.0))  # as in eval.metrics: grades below data.relevant_from count too
    known = PairValues.of(owners, labels.item_rows, gains, labels.num_items)
    return Candidates(queries, items, known.look_up(queries, items, 0.0), _ideal(labels, gains, queries))


def _ideal(labels: Labels, gains: F32, queries: I64) -> npt.NDArray[np.float64]:
    """[V] DCG of each query's graded items, best first."""
    best = np.zeros(len(queries))
    for number, query in enumerate(queries):
        worth = np.sort(gains[labels.offsets[query] : labels.offsets[query + 1]])[::-1][:AT]
        best[number] = float((worth / np.log2(np.arange(2, len(worth) + 2))).sum())
    return best


def ndcg_of(scores_VD: F32, chosen: Candidates) -> npt.NDArray[np.float64]:
    """NDCG@10 of each query's hits, [V], ordered by their scores; equal scores in the order of the hits."""
    real = chosen.item_rows >= 0
    order = np.argsort(np.where(real, -scores_VD.astype(np.float64), np.inf), axis=1, kind="stable")[:, :AT]
    gains = np.take_along_axis(np.where(real, chosen.gains, 0.0), order, axis=1)
    dcg = (gains / np.log2(np.arange(2, gains.shape[1] + 2))).sum(axis=1)
    ndcg: npt.NDArray[np.float64] = np.divide(dcg, chosen.ideal, out=np.zeros(len(dcg)), where=chosen.ideal > 0)
    return ndcg
