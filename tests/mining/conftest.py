"""A small run in a temporary store: corpus, queries, labels and vectors, as the stages before mining leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage import Store
from cluster.tables import F32, Part, vectors_to_column, write_part
from mining.block_actor import SearchTask


@dataclass(frozen=True)
class World:
    """Addresses of the tables, and what is in them."""

    store: Store
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    item_vectors: list[Part]
    query_vectors: list[Part]
    item_matrix: F32
    query_matrix: F32
    judged: dict[tuple[int, int], int]

    def search_task(self, folder: str, num_hits: int, **options: Any) -> SearchTask:
        return SearchTask(self.store, self.item_vectors, self.query_vectors, self.labels, self.corpus,
                          len(self.query_matrix), num_hits, folder, **options)


def write_table(store: Store, folder: str, table: pa.Table, rows: int) -> list[Part]:
    return [write_part(store, f"{folder}/part-{number:05d}.parquet", table.slice(start, rows), first_row=start)
            for number, start in enumerate(range(0, table.num_rows, rows))]


def coarse(count: int, dimension: int, generator: np.random.Generator) -> F32:
    """Unit vectors of which many are equal, so that ties are common."""
    vectors = generator.integers(-1, 2, (count, dimension)).astype(np.float32)
    vectors[:, 0] += 0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)


def make_world(root: Path, *, items: int = 70, queries: int = 50, dimension: int = 4, seed: int = 0) -> World:
    store, generator = Store(str(root)), np.random.default_rng(seed)
    items_ND, queries_QD = coarse(items, dimension, generator), coarse(queries, dimension, generator)
    pairs = sorted({(int(q), int(i)) for q, i in generator.integers(0, [queries, items], (3 * queries, 2))})
    judged = {pair: int(score) for pair, score in zip(pairs, generator.integers(0, 3, len(pairs)), strict=True)}
    corpus = pa.table({
        "row": range(items), "id": [f"i{row}" for row in range(items)],
        "text_code": [row if row % 7 else 0 for row in range(items)],
        "group_code": [row // 2 if row % 5 == 0 else -1 for row in range(items)],
        "genres": [[f"g{row % 3}"] for row in range(items)],
    })
    query_table = pa.table({"row": range(queries), "id": [f"q{row}" for row in range(queries)],
                            "item_row": [row if row % 4 == 0 and row < items else -1 for row in range(queries)]})
    labels = pa.table({"query_row": [q for q, _ in pairs], "item_row": [i for _, i in pairs],
                       "score": list(judged.values())})
    return World(
        store, write_table(store, "corpus", corpus, 40), write_table(store, "queries", query_table, 40),
        write_table(store, "labels", labels, 60),
        write_table(store, "items", pa.table({"row": range(items), "vector": vectors_to_column(items_ND)}), 30),
        write_table(store, "vectors", pa.table({"row": range(queries), "vector": vectors_to_column(queries_QD)}), 20),
        items_ND, queries_QD, judged,
    )


@pytest.fixture
def new_world(tmp_path: Path) -> Callable[..., World]:
    """Makes a run in the test's own folder."""
    return lambda **options: make_world(tmp_path / "run", **options)
