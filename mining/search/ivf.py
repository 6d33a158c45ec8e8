"""Approximate search: the corpus in lists around shared centroids, of which only those near a query are read.

The centroids are trained once per search on a sample of the whole corpus, so the lists of all shards together are those of
one index, however many shards there are. A block's queries are sorted by list: every list is read once per block, and its
products are one matrix product in 8 bits (`mining.search.engines`).

Q queries, N items of the shard, D dimensions, L lists, P (query, list) pairs to read, W proposed items.
"""

from __future__ import annotations

import numpy as np

from cluster.tables.tables import F32, I64, offsets_of
from mining.search.engines import SLACK, TILE_ITEMS, TILE_QUERIES, EightBitItems, EightBitQueries, Proposal, learnt, proposal_of
from mining.search.kernels import RunningTop

SAMPLE_PER_LIST = 64
"""Items that each centroid is trained on (FAISS warns below 39)."""
TRAINING_ROUNDS = 10
CENTROID_SCORES = 2**24
"""Scores of vectors with centroids that are held at once."""


def usual_lists(num_items: int) -> int:
    """Lists for a corpus: the power of two nearest √N."""
    return int(2 ** round(np.log2(max(1.0, num_items**0.5))))


def train_centroids(sample_SD: F32, lists: int, seed: int) -> F32:
    """Unit centroids [L, D] of a sample, by spherical k-means (FAISS). Deterministic for one thread count.

    A sample of fewer items than `lists` gives as many centroids as it has items.
    """
    import faiss

    lists = min(lists, len(sample_SD))
    kmeans = faiss.Kmeans(
        sample_SD.shape[1],
        lists,
        niter=TRAINING_ROUNDS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE_PER_LIST,
    )
    kmeans.train(np.ascontiguousarray(sample_SD))
    return np.ascontiguousarray(kmeans.centroids, dtype=np.float32)


class ListEngine:
    """Reads the `probes` lists nearest each query, and as many more as it takes to find enough items."""

    def __init__(self, items_ND: F32, centroids_LD: F32, *, oversample: float) -> None:
        self._centroids, self._oversample = np.array(centroids_LD), oversample  # torch takes no read-only one
        self._step = max(1, CENTROID_SCORES // len(centroids_LD))
        lists = np.concatenate(
            [
                _products(items_ND[start : start + self._step], self._centroids).argmax(axis=1)
                for start in range(0, len(items_ND), self._step)
            ]
        )
        self._positions = np.argsort(lists, kind="stable").astype(np.int64)
        self._counts = np.bincount(lists, minlength=len(centroids_LD)).astype(np.int64)
        self._starts = offsets_of(self._counts)
        self._items = EightBitItems(items_ND)
        self._items.values = self._items.values[self._positions]  # a list's items lie together
        self.probes = 1

    def width(self, num_hits: int) -> int:
        """See `Engine`."""
        return int(num_hits * self._oversample) + SLACK

    def learn(self, unsettled: float) -> None:
        """As for 8 bits."""
        self._oversample = learnt(self._oversample, unsettled)

    def lists_of(self, queries_QD: F32, enough: int) -> tuple[I64, I64]:
        """(query [P], list [P]) to read: each query's nearest `probes` lists, and the next nearest until those hold
        `enough` items or all that there are."""
        owners, lists = [], []
        for start in range(0, len(queries_QD), self._step):
            scores_QL = _products(queries_QD[start : start + self._step], self._centroids)
            near = _largest(scores_QL, self.probes)
            short = self._counts[near].sum(axis=1) < min(enough, len(self._positions))
            some = np.flatnonzero(~short)
            owners.append(np.repeat(some, near.shape[1]) + start)
            lists.append(near[some].ravel())
            for query in np.flatnonzero(short):
                order = np.argsort(-scores_QL[query], kind="stable")
                needed = 1 + int(np.searchsorted(np.cumsum(self._counts[order]), min(enough, len(self._positions))))
                owners.append(np.full(max(needed, near.shape[1]), query + start))
                lists.append(order[: len(owners[-1])])
        return np.concatenate(owners).astype(np.int64), np.concatenate(lists).astype(np.int64)

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """See `Engine`; of items in lists that are not read nothing is known, and the likely error speaks of the others."""
        queries = EightBitQueries(queries_QD, self._items, certain=False)
        top = RunningTop(len(queries_QD), width, np.int32)
        owners, lists = self.lists_of(queries_QD, width)
        order = np.argsort(lists, kind="stable")
        owners, edges = owners[order], np.searchsorted(lists[order], np.arange(len(self._centroids) + 1))
        for number in np.flatnonzero((np.diff(edges) > 0) & (self._counts > 0)):
            asking = owners[edges[number] : edges[number + 1]]
            for start in range(0, len(asking), TILE_QUERIES):
                self._read(int(number), asking[start : start + TILE_QUERIES], queries, top)
        return proposal_of(top, queries)

    def _read(self, number: int, asking: I64, queries: EightBitQueries, top: RunningTop) -> None:
        import torch

        stop = int(self._starts[number + 1])
        for start in range(int(self._starts[number]), stop, TILE_ITEMS):
            end = min(start + TILE_ITEMS, stop)
            tile = torch._int_mm(queries.values[asking], self._items.values[start:end].T).numpy()
            top.offer(tile, asking, self._positions[start:end])


def _products(vectors_XD: F32, centroids_LD: F32) -> F32:
    import torch

    scores: F32 = (torch.from_numpy(np.ascontiguousarray(vectors_XD)) @ torch.from_numpy(centroids_LD).T).numpy()
    return scores


def _largest(scores_QL: F32, count: int) -> I64:
    """Columns of the `count` largest of each row, in any order."""
    import torch

    found: I64 = torch.from_numpy(scores_QL).topk(min(count, scores_QL.shape[1]), dim=1, sorted=False).indices.numpy()
    return found
