"""Rejected queries, clustered by their vectors and named by their terms. Deterministic: equal queries make equal clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def cluster(queries: Sequence[str], model: str | None) -> Clusters:
    """k-means over the vectors of the queries; half the square root of their number as clusters, two at least.

    Args:
        model: a sentence-transformers model; None: TF-IDF of groups of three to five letters, reduced to 64 dimensions.
    """
    if len(queries) < 4:
        return Clusters(np.zeros(len(queries), np.int64), [_name(queries, queries)] if queries else [])
    from sklearn.cluster import KMeans

    vectors = _vectors(queries, model)
    distinct = len(np.unique(np.round(vectors, 6), axis=0))
    count = int(np.clip(round((len(queries) / 2) ** 0.5), 2, MOST_CLUSTERS))
    cluster_of = KMeans(min(count, distinct), n_init=1, random_state=0).fit_predict(vectors)
    sizes = np.bincount(cluster_of)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of = rank[cluster_of]
    return Clusters(
        of, [_name([queries[row] for row in np.flatnonzero(of == number).tolist()], queries) for number in range(len(order))]
    )


def _vectors(queries: Sequence[str], model: str | None) -> F32:
    if model is not None:
        from sentence_transformers import SentenceTransformer

        encoded: Any = SentenceTransformer(model, device="cpu").encode(list(queries), normalize_embeddings=True)
        return np.asarray(encoded, np.float32)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    sparse = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=50_000).fit_transform(
        queries
    )
    if min(sparse.shape) <= DIMENSIONS + 1:
        return np.asarray(normalize(sparse).toarray(), np.float32)
    return np.asarray(normalize(TruncatedSVD(DIMENSIONS, random_state=0).fit_transform(sparse)), np.float32)


def _name(members: Sequence[str], everything: Sequence[str]) -> str:
    """The three words that are frequent in the cluster and rare elsewhere."""
    inside: dict[str, int] = {}
    for query in members:
        for word in set(query.lower().split()):
            inside[word] = inside.get(word, 0) + 1
    outside: dict[str, int] = {}
    for query in everything:
        for word in set(query.lower().split()) & inside.keys():
            outside[word] = outside.get(word, 0) + 1
    best = sorted(inside, key=lambda word: (-(inside[word] ** 2) / outside[word], word))
    return " ".join(best[:3])
