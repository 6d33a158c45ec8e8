"""One round of training of an adapter on 50,000 queries out of millions of items, under Ray: start, steps and memory of a rank.

    python -m benchmarks.scale.training FOLDER       trains what `write_training` wrote there; the case "train" watches it

Its tables are as ingest, embedding and mining leave them, but written at once: only training is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.shared.vectors import F32, Topics
from cluster.session.resources import ClusterSettings, train_pool
from cluster.session.session import ray_session
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, parts_from_json, vectors_to_column, write_part
from training.distributed.trainer import train
from training.engine.schedule import Schedule
from training.settings import TrainingSettings
from training.task import TrainData, TrainTask

DIMENSION, QUERIES, DEV, NEGATIVES = 128, 50_000, 2_000, 32
PART_ROWS = 65_536
TABLES = "tables.json"


def write_training(folder: Path, items: int) -> None:
    """The tables of a round: item n of query n is relevant to it, and the negatives are any items."""
    from training.encoders.adapter import new_adapter_folder

    store, topics, rng = Store(str(folder)), Topics(DIMENSION), np.random.default_rng(0)
    queries = QUERIES + DEV
    relevant = rng.integers(0, items, queries)
    mined = pa.array(rng.integers(0, items, (QUERIES, NEGATIVES)).tolist(), pa.list_(pa.int64()))
    near = pa.array(rng.integers(0, items, (DEV, NEGATIVES)).tolist(), pa.list_(pa.int64()))
    ones = np.ones(queries)
    labels = {"query_row": np.arange(queries), "item_row": relevant, "score": ones, "weight": ones, "source": [""] * queries}
    splits = ["train"] * QUERIES + ["dev"] * DEV
    new_adapter_folder(folder / "adapter", DIMENSION, 256, 0)
    tables = {
        "codes": [_write(store, "codes", first, {"text_code": rows, "group_code": rows}) for first, rows in _ranges(items)],
        "item_features": [
            _write(store, "items", first, {"row": rows, "vector": _column(topics.draw(len(rows), first))})
            for first, rows in _ranges(items)
        ],
        "query_features": [
            _write(store, "queries", 0, {"row": np.arange(queries), "vector": _column(topics.draw(queries, 10**9))})
        ],
        "queries": [_write(store, "split", 0, {"split": splits, "item_row": np.full(queries, -1)})],
        "labels": [_write(store, "labels", 0, labels)],
        "negatives": [_write(store, "mined", 0, {"query_row": np.arange(QUERIES), "negative_rows": mined})],
        "near_misses": [_write(store, "near", 0, {"item_rows": near})],
    }
    store.write_json(TABLES, {name: [part.to_json() for part in parts] for name, parts in tables.items()})


def _ranges(items: int) -> list[tuple[int, Any]]:
    return [(first, np.arange(first, min(items, first + PART_ROWS))) for first in range(0, items, PART_ROWS)]


def _column(vectors: F32) -> pa.Array:
    return vectors_to_column(vectors)


def _write(store: Store, name: str, first: int, columns: dict[str, Any]) -> Part:
    return write_part(store, f"{name}/{part_name(first // PART_ROWS)}", pa.table(columns), first_row=first)


def train_once(folder: Path) -> dict[str, float]:
    """Seconds until Ray is there, until the first step, and of the steps; steps, and items that the ranks hold."""
    store = Store(str(folder))
    started = time.perf_counter()
    with ray_session(ClusterSettings()) as size:
        pool = train_pool(ClusterSettings(), size)
        task = TrainTask(
            store=store,
            folder=f"trained-{time.time_ns()}",
            kind="adapter",
            model=upload_folder(folder / "adapter", store, "model"),
            model_prefix="model",
            data=TrainData(**{name: parts_from_json(parts) for name, parts in store.read_json(TABLES).items()}),
            settings=TrainingSettings(),
            schedule=Schedule(1),
            threads=pool.cpus,
        )
        there = time.perf_counter()
        result = train(task, pool)
        done = time.perf_counter()
    return {
        "ray_s": there - started,
        "start_s": done - there - result["seconds"],
        "steps_s": result["seconds"],
        "steps": result["steps"],
        "ranks": result["ranks"],
        "items_loaded": result["items_loaded"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of `write_training`")
    print(json.dumps(train_once(parser.parse_args().folder)))
