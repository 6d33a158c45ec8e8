"""Whether a query leads back to its item: the item is among the first results, of a pool of other items and itself.

Q queries, N items of the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import read_part
from jobs.pairs.partitions import hashes
from jobs.pairs.sessions.together import ITEM_SALT
from jobs.stages.ingest.texts import normalise

FIRST = 3
"""Results among which the item must be."""
MOST_POOLED = 20_000
"""Items of the pool, about."""
MOST_LETTERS = 2_000
"""Of an item's text that are looked at."""
BLOCK = 256
"""Queries that are compared with the pool at the same time."""


@dataclass(frozen=True)
class Pool:
    """Which items a query is compared with, and by what."""

    parts: tuple[str, ...]
    """Of the corpus."""
    share: float
    """Of the items, those in the pool."""
    model: str | None
    """A sentence-transformers model; None: words that are rare in the pool (TF-IDF)."""


class _Retriever:
    """Vectors of texts, unit length, and those of the pool."""

    def __init__(self, model: str | None, ids: Sequence[str], texts: Sequence[str]) -> None:
        self.place = {item: row for row, item in enumerate(ids)}
        self._encoder: Any
        if model is None:
            from sklearn.feature_extraction.text import TfidfVectorizer

            self._encoder = TfidfVectorizer(preprocessor=normalise, token_pattern=r"\S+", sublinear_tf=True).fit([*texts, "a"])
        else:
            from sentence_transformers import SentenceTransformer

            self._encoder = SentenceTransformer(model)
        self.pool = self.vectors(texts)

    def vectors(self, texts: Sequence[str]) -> Any:
        """[N, D], sparse or dense."""
        if hasattr(self._encoder, "encode"):
            return np.asarray(self._encoder.encode(list(texts), normalize_embeddings=True), np.float32)
        return self._encoder.transform(texts)


@lru_cache(maxsize=1)
def _retriever(root: str, settings: StorageSettings, pool: Pool) -> _Retriever:
    store = Store(root, settings)
    ids: list[str] = []
    texts: list[str] = []
    for path in pool.parts:
        table = read_part(store, path)
        keys = hashes(table["id"], ITEM_SALT)
        # from the other end than the items that are asked for, which compete by themselves where they are few
        table = table.filter(pa.array((~keys >> np.uint64(11)).astype(np.float64) / 2.0**53 < pool.share))
        ids += table["id"].to_pylist()
        texts += item_texts(table)
    return _Retriever(pool.model, ids, texts)


def item_texts(table: pa.Table) -> list[str]:
    """Title and text of each item, as the model and the retriever see it."""
    columns = [table[name].cast(pa.string()).to_pylist() for name in ("title", "text") if name in table.column_names]
    return ["\n".join(value for value in row if value)[:MOST_LETTERS] for row in zip(*columns, strict=True)]


def leads_back(
    store: Store, pool: Pool, queries: Sequence[str], owner_Q: npt.NDArray[np.int64], ids: Sequence[str], texts: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """[Q] whether fewer than FIRST items of the pool are as near to the query as its own item, which shares something with it.

    Args:
        owner_Q: row in `ids` and `texts` of the item that each query was written for.
    """
    result = np.zeros(len(queries), bool)
    if not queries:
        return result
    retriever = _retriever(store.root, store.settings, pool)
    for start in range(0, len(queries), BLOCK):
        rows = owner_Q[start : start + BLOCK]
        asked, own = retriever.vectors(queries[start : start + BLOCK]), retriever.vectors([texts[row] for row in rows])
        scores = np.asarray((asked @ retriever.pool.T).todense() if hasattr(asked, "todense") else asked @ retriever.pool.T)
        product = asked.multiply(own) if hasattr(asked, "multiply") else asked * own
        of_own = np.asarray(product.sum(axis=1)).ravel()
        places = np.asarray([retriever.place.get(ids[row], -1) for row in rows.tolist()])
        in_pool = np.flatnonzero(places >= 0)
        scores[in_pool, places[in_pool]] = -1.0
        result[start : start + BLOCK] = (of_own > 0) & ((scores > of_own[:, None] - 1e-6).sum(axis=1) < FIRST)
    return result
