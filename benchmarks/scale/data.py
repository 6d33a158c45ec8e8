"""Generated items, queries and labels as Parquet files, written part by part: for millions of items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared.vectors import F32, Topics

DIMENSION, QUERIES = 128, 20_000
NOISE = 0.5
"""Length of what a query has beside its item: they have a cosine of about 0.9, and the next items are well below it."""
GROUP_ROWS, FILE_ROWS = 65_536, 1_048_576


def write_data(folder: Path, items: int) -> None:
    """Write corpus/, queries.parquet and qrels.parquet; equal for equal `items`."""
    topics = Topics(DIMENSION)
    relevant = np.sort(np.random.default_rng(0).integers(0, items, QUERIES))
    near = []
    (folder / "corpus").mkdir(parents=True)
    schema = _table("item", 0, topics.draw(1, 0)).schema
    for start in range(0, items, FILE_ROWS):
        with pq.ParquetWriter(folder / f"corpus/items-{start:09d}.parquet", schema) as writer:
            for first in range(start, min(start + FILE_ROWS, items), GROUP_ROWS):
                vectors = topics.draw(min(GROUP_ROWS, start + FILE_ROWS - first, items - first), seed=first)
                writer.write_table(_table("item", first, vectors))
                near.append(vectors[relevant[(relevant >= first) & (relevant < first + len(vectors))] - first])
    noise = np.random.default_rng(1).standard_normal((QUERIES, DIMENSION), np.float32)
    queries = np.concatenate(near) + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    pq.write_table(_table("query", 0, queries / np.linalg.norm(queries, axis=1, keepdims=True)), folder / "queries.parquet")
    labels = {"query_id": [f"query-{row}" for row in range(QUERIES)], "item_id": [f"item-{row}" for row in relevant.tolist()]}
    pq.write_table(pa.table(labels), folder / "qrels.parquet")


def _table(what: str, first: int, vectors: F32) -> pa.Table:
    numbers = range(first, first + len(vectors))
    return pa.table(
        {
            "id": [f"{what}-{number}" for number in numbers],
            "text": [f"the {what} with the number {number}" for number in numbers],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
        }
    )


CONFIG = """
name = "run"
output = "{output}"
[data]
corpus = "{folder}/corpus"
queries = "{folder}/queries.parquet"
qrels = "{folder}/qrels.parquet"
[encoder]
kind = "vectors"
"""
