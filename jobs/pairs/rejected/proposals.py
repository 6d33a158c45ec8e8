"""Items that may answer a rejected query, by their metadata, and items of the same words that do not: for a person to accept."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.stages.ingest.texts import normalise

EACH = 3
"""Proposals of each kind for a query."""
COVERED = 0.6
"""Share of a query's words (the rare ones count more) that metadata must have for a proposed positive."""
NOT_METADATA = ("id", "text", "title", "vector", "group", "text_enriched", "description")


@dataclass
class Proposed:
    """For one query, the best items so far: (score, id, title)."""

    relevant: list[tuple[float, str, str]] = field(default_factory=list)
    irrelevant: list[tuple[float, str, str]] = field(default_factory=list)


def propose(queries: Sequence[str], chunks: Iterable[pa.Table]) -> list[Proposed]:
    """Proposals for each query.

    Args:
        chunks: the items, some at a time: `id`, perhaps `title` and `text`, and metadata.

    A proposed positive has the query's words in its metadata. A proposed hard negative has words of the query in its title or
    text, and none in its metadata.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    proposed = [Proposed() for _ in queries]
    words = sorted({word for query in queries for word in normalise(query).split() if len(word) > 2})
    if not words:
        return proposed
    counter = CountVectorizer(vocabulary=words, binary=True, tokenizer=str.split, token_pattern=None, lowercase=False)
    asked = counter.transform([normalise(query) for query in queries])
    weight = 1.0 / (1.0 + np.asarray(asked.sum(axis=0)).ravel())
    total = np.maximum(asked @ weight, 1e-9)
    for chunk in chunks:
        names = [name for name in chunk.column_names if name not in NOT_METADATA and _readable(chunk[name].type)]
        metadata = counter.transform(_texts(chunk, names))
        body = counter.transform(_texts(chunk, [name for name in ("title", "text") if name in chunk.column_names]))
        ids = chunk["id"].to_pylist()
        titles = chunk["title"].to_pylist() if "title" in chunk.column_names else ids
        weighted = asked.multiply(weight).tocsr()
        in_metadata = (weighted @ metadata.T).tocsr()
        in_body = (weighted @ body.T).tocsr()
        for row, one in enumerate(proposed):
            items, shares = _entries(in_metadata, row)
            others, of_others = _entries(in_body, row)
            apart = ~np.isin(others, items)
            enough = shares >= COVERED * total[row]
            _keep(one.relevant, _best(items[enough], shares[enough] / total[row], ids, titles))
            _keep(one.irrelevant, _best(others[apart], of_others[apart] / total[row], ids, titles))
    return proposed


def _entries(matrix: Any, row: int) -> tuple[Any, Any]:
    """(columns, values) of a row of a sparse matrix."""
    own = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[own], matrix.data[own]


def _best(items: Any, shares: Any, ids: Sequence[str], titles: Sequence[str]) -> list[tuple[float, str, str]]:
    """The EACH highest ones; of equal ones those with the smallest ids."""
    if len(shares) > EACH:
        high = shares >= np.partition(shares, -EACH)[-EACH]
        items, shares = items[high], shares[high]
    rows = ((share, ids[at], titles[at]) for at, share in zip(items.tolist(), shares.tolist(), strict=True))
    return heapq.nsmallest(EACH, rows, key=lambda one: (-one[0], one[1]))


def _keep(best: list[tuple[float, str, str]], more: list[tuple[float, str, str]]) -> None:
    best[:] = sorted([*best, *more], key=lambda one: (-one[0], one[1]))[:EACH]


def _readable(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _texts(table: pa.Table, names: Sequence[str]) -> list[str]:
    """The columns of each row as one text, as it is compared."""
    columns = [table[name].to_pylist() for name in names]
    rows = zip(*columns, strict=True) if columns else ([] for _ in range(table.num_rows))
    return [
        normalise(" ".join(" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row if value))
        for row in rows
    ]
