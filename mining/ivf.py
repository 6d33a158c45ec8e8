"""Approximate search: the corpus in lists around shared centroids, of which only those near a query are read.

The centroids are trained once per search on a sample of the whole corpus, so the lists of all shards together are those of
one index, however many shards there are. A block's queries are sorted by list: every list is read once per block, and its
products are one matrix product in 8 bits (`mining.engines`).

Q queries, N items of the shard, D dimensions, L lists, W proposed items.
"""

from __future__ import annotations

import numpy as np

from cluster.tables import F32, I64
from mining.engines import SLACK, EightBitItems, EightBitQueries, Proposal, proposal_of
from mining.kernels import RunningTop

SAMPLE_PER_LIST = 64
"""Items that each centroid is trained on (FAISS warns below 39)."""
TRAINING_ROUNDS = 10
ASSIGN_ROWS = 8192


def usual_lists(num_items: int) -> int:
    """Lists for a corpus: the power of two nearest √N."""
    return int(2 ** round(np.log2(max(1.0, num_items**0.5))))


def train_centroids(sample_SD: F32, lists: int, seed: int) -> F32:
    """Unit centroids [L, D] of a sample, by spherical k-means (FAISS). Deterministic for one thread count."""
    import faiss

    kmeans = faiss.Kmeans(sample_SD.shape[1], lists, niter=TRAINING_ROUNDS, seed=seed, spherical=True,
                          min_points_per_centroid=1, max_points_per_centroid=SAMPLE_PER_LIST)
    kmeans.train(np.ascontiguousarray(sample_SD))
    return np.ascontiguousarray(kmeans.centroids, dtype=np.float32)


class ListEngine:
    """Reads the `probes` lists nearest each query."""

    def __init__(self, items_ND: F32, centroids_LD: F32, *, oversample: float) -> None:
        self._centroids, self._oversample = centroids_LD, oversample
        lists = np.concatenate([self._nearest(items_ND[start : start + ASSIGN_ROWS], 1)[:, 0]
                                for start in range(0, len(items_ND), ASSIGN_ROWS)])
        self._positions = np.argsort(lists, kind="stable").astype(np.int64)
        counts = np.bincount(lists, minlength=len(centroids_LD))
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._items = EightBitItems(items_ND)
        self._items.values = self._items.values[self._positions]  # a list's items lie together
        self.probes = 1

    def _nearest(self, vectors_XD: F32, count: int) -> I64:
        import torch

        scores = torch.from_numpy(vectors_XD) @ torch.from_numpy(self._centroids).T
        if count == 1:
            return scores.argmax(dim=1, keepdim=True).numpy()  # type: ignore[no-any-return]
        return scores.topk(min(count, len(self._centroids)), dim=1, sorted=False).indices.numpy()  # type: ignore[no-any-return]

    def width(self, num_hits: int) -> int:
        """See `Engine`."""
        return int(num_hits * self._oversample) + SLACK

    def learn(self, unsettled: float) -> None:
        """What lies in other lists is not known: nothing is ever unsettled."""

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """See `Engine`; the error speaks of the lists that were read only, so it is -inf: ask for no more."""
        import torch

        queries = EightBitQueries(queries_QD, self._items, certain=False)
        top = RunningTop(len(queries_QD), width, np.int32)
        lists = self._nearest(queries_QD, self.probes)
        order = np.argsort(lists.ravel(), kind="stable")
        owners = (order // lists.shape[1]).astype(np.int64)
        edges = np.searchsorted(lists.ravel()[order], np.arange(len(self._centroids) + 1))
        for number in range(len(self._centroids)):
            start, stop = self._starts[number], self._starts[number + 1]
            asking = owners[edges[number] : edges[number + 1]]
            if start == stop or not len(asking):
                continue
            tile = torch._int_mm(queries.values[asking], self._items.values[start:stop].T).numpy()
            top.offer(tile, asking, self._positions[start:stop])
        found = proposal_of(top, queries)
        return Proposal(found.scores, found.index, np.full(len(queries_QD), -np.inf, np.float32))
