"""Rejected queries, clustered by their vectors and named by their terms. Deterministic: equal queries make equal clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import F32

MOST_CLUSTERS = 100
DIMENSIONS = 64


@dataclass(frozen=True)
class Clusters:
    """Which cluster each query is in."""

    of: npt.NDArray[np.int64]
    """[Q] numbers from 0, the largest cluster first."""
    names: list[str]
    """Their most telling words."""


def cluster(queries: Sequence[str]) -> Clusters:
    """k-means over TF-IDF of groups of three to five letters, reduced to 64 dimensions; half the square root of their number as
    clusters, two at least.
    """
    if len(queries) < 4:
        return Clusters(np.zeros(len(queries), np.int64), [_name(queries, _words(queries))] if queries else [])
    from sklearn.cluster import KMeans

    vectors = _vectors(queries)
    distinct = len(np.unique(np.round(vectors, 6), axis=0))
    count = int(np.clip(round((len(queries) / 2) ** 0.5), 2, MOST_CLUSTERS))
    cluster_of = KMeans(min(count, distinct), n_init=1, random_state=0).fit_predict(vectors)
    sizes = np.bincount(cluster_of)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of = rank[cluster_of]
    members = [[queries[row] for row in np.flatnonzero(of == number).tolist()] for number in range(len(order))]
    everywhere = _words(queries)
    return Clusters(of, [_name(some, everywhere) for some in members])


def _vectors(queries: Sequence[str]) -> F32:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    sparse = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=50_000).fit_transform(
        queries
    )
    if min(sparse.shape) <= DIMENSIONS + 1:
        return np.asarray(normalize(sparse).toarray(), np.float32)
    return np.asarray(normalize(TruncatedSVD(DIMENSIONS, random_state=0).fit_transform(sparse)), np.float32)


def _words(queries: Sequence[str]) -> Counter[str]:
    """How many of the queries have each word."""
    return Counter(word for query in queries for word in set(query.lower().split()))


def _name(members: Sequence[str], everywhere: Mapping[str, int]) -> str:
    """The three words that are frequent in the cluster and rare elsewhere."""
    inside = _words(members)
    best = sorted(inside, key=lambda word: (-(inside[word] ** 2) / everywhere[word], word))
    return " ".join(best[:3])
