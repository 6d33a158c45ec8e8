"""Generated items, queries and labels as Parquet files, written part by part: for millions of items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared.vectors import Topics

DIMENSION, QUERIES, LABELS = 128, 20_000, 2
"""LABELS: relevant items of each query."""
GROUP_ROWS, FILE_ROWS = 65_536, 1_048_576


def write_data(folder: Path, items: int) -> None:
    """Write corpus/, queries.parquet and qrels.parquet; equal for equal `items`."""
    topics = Topics(DIMENSION)
    (folder / "corpus").mkdir(parents=True)
    for start in range(0, items, FILE_ROWS):
        with pq.ParquetWriter(folder / f"corpus/items-{start:09d}.parquet", _table("item", 0, 1, topics).schema) as writer:
            for first in range(start, min(start + FILE_ROWS, items), GROUP_ROWS):
                writer.write_table(_table("item", first, min(GROUP_ROWS, start + FILE_ROWS - first, items - first), topics))
    pq.write_table(_table("query", 0, QUERIES, topics), folder / "queries.parquet")
    relevant = np.random.default_rng(0).integers(0, items, QUERIES * LABELS)
    names = {"query_id": np.repeat(np.arange(QUERIES), LABELS), "item_id": relevant}
    labels = {name: [f"{name.removesuffix('_id')}-{row}" for row in rows.tolist()] for name, rows in names.items()}
    pq.write_table(pa.table(labels), folder / "qrels.parquet")


def _table(what: str, first: int, rows: int, topics: Topics) -> pa.Table:
    numbers = range(first, first + rows)
    vectors = topics.draw(rows, seed=first + (0 if what == "item" else 10**9))
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
