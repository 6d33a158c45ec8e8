"""A generated run for benchmarks: vectors, corpus, queries and labels as the stages before searching leave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.shared.vectors import Topics
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, part_name, vectors_to_column, write_part
from mining.search.block_actor import SearchTask

PART_ROWS = 16_384


@dataclass(frozen=True)
class Catalogue:
    """Addresses of the tables; the vectors are in the store only."""

    store: Store
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    item_vectors: list[Part]
    query_vectors: list[Part]
    num_items: int
    num_queries: int

    def search_task(self, folder: str, num_hits: int) -> SearchTask:
        """As the search stage makes it for mining."""
        return SearchTask(
            self.store,
            self.item_vectors,
            self.query_vectors,
            self.labels,
            self.corpus,
            self.num_queries,
            num_hits,
            folder,
            exclude_known=True,
        )


def make(folder: Path, *, items: int, queries: int, dimension: int = 384, dtype: str = "float32", seed: int = 0) -> Catalogue:
    """Write a catalogue: every query has one to three relevant items near it; items have genres, groups and a brand."""
    store, topics = Store(str(folder)), Topics(dimension)
    vectors = _write_vectors(store, "items", topics, items, seed + 1, dtype)
    query_vectors = _write_vectors(store, "queries-vectors", topics, queries, seed + 2, dtype)
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, queries)
    labels = pa.table(
        {
            "query_row": np.repeat(np.arange(queries), counts),
            "item_row": rng.integers(0, items, counts.sum()),
            "score": np.ones(counts.sum(), np.int64),
        }
    )
    labels = labels.sort_by([("query_row", "ascending"), ("item_row", "ascending")])
    return Catalogue(
        store,
        _write(store, "corpus", _corpus(items, rng)),
        _write(
            store,
            "queries",
            pa.table(
                {
                    "row": range(queries),
                    "id": [f"q{row}" for row in range(queries)],
                    "text": [f"query {row}" for row in range(queries)],
                    "item_row": np.full(queries, -1),
                    "split": ["train"] * queries,
                }
            ),
        ),
        _write(store, "labels", labels),
        vectors,
        query_vectors,
        items,
        queries,
    )


def _corpus(items: int, rng: np.random.Generator) -> pa.Table:
    genres = [[f"g{value}" for value in values] for values in rng.integers(0, 20, (1000, 2))]
    return pa.table(
        {
            "row": range(items),
            "id": [f"i{row}" for row in range(items)],
            "text": [f"item {row}" for row in range(items)],
            "text_code": np.arange(items),
            "group_code": np.where(np.arange(items) % 3 == 0, np.arange(items) // 9, -1),
            "genres": pa.array(genres).take(pa.array(np.arange(items) % 1000)),
            "brand": pa.array([f"b{number}" for number in range(200)]).take(pa.array(rng.integers(0, 200, items))),
        }
    )


def _write(store: Store, folder: str, table: pa.Table) -> list[Part]:
    return [
        write_part(store, f"{folder}/{part_name(number)}", table.slice(start, PART_ROWS), first_row=start)
        for number, start in enumerate(range(0, table.num_rows, PART_ROWS))
    ]


def _write_vectors(store: Store, folder: str, topics: Topics, count: int, seed: int, dtype: str) -> list[Part]:
    parts = []
    for number, start in enumerate(range(0, count, PART_ROWS)):  # never all at once: there may be millions
        vectors = topics.draw(min(PART_ROWS, count - start), seed * 1_000_003 + number).astype(dtype)
        table = pa.table({"row": np.arange(start, start + len(vectors)), "vector": vectors_to_column(vectors)})
        parts.append(write_part(store, f"{folder}/{part_name(number)}", table, first_row=start))
    return parts


def float_vectors(count: int, *, seed: int, dimension: int = 384) -> F32:
    """Vectors of the same kind in memory."""
    return Topics(dimension).draw(count, seed)
