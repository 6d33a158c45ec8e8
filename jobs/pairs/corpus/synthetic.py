"""Synthetic queries, as many as their share allows: the same ones in every run, chosen by the hashes of their texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.pairs.tasks import read_object

SYNTHETIC_SHARE = 0.2
"""Maximum share of synthetic queries among all."""


@dataclass(frozen=True)
class SyntheticTask:
    """The synthetic queries and labels of one partition."""

    queries: str
    labels: str
    kept: float
    """Share of all synthetic queries that are kept."""


def kept_share(real: int, synthetic: int, most: float) -> float:
    """The share of synthetic queries so that they are at most `most` of all. Without real queries there are no synthetic ones."""
    return min(1.0, most / (1.0 - most) * real / synthetic) if synthetic else 0.0


def write_synthetic(store: Store, folder: str, number: int, task: SyntheticTask) -> dict[str, Any]:
    """Write the kept ones of a partition beside the other tables."""
    queries, labels = read_object(store, task.queries), read_object(store, task.labels)
    hashed = np.asarray([int(one[1:], 16) for one in queries["id"].to_pylist()], np.uint64)
    kept = queries.filter(pa.array((hashed >> np.uint64(11)).astype(np.float64) / 2.0**53 < task.kept))
    if not kept.num_rows:
        return {"objects": {}, "queries": 0}
    labels = labels.filter(pc.is_in(labels["query_id"], value_set=kept["id"]))
    objects = {}
    for name, table in (("queries", kept), ("qrels", labels)):
        part = write_part(store, f"tables/{name}/synthetic-{number:05d}.parquet", table)
        objects[part.path] = part.bytes
    relevant = int(pc.sum(pc.greater(labels["score"], 0)).as_py() or 0)
    return {"objects": objects, "queries": kept.num_rows, "labels": labels.num_rows, "relevant": relevant}
