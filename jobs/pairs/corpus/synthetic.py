"""Synthetic queries, as many as their share allows: the same ones in every run, chosen by the hashes of their texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import read_part, write_part
from jobs.pairs.labels.texts import query_id
from jobs.pairs.partitions import read_partition
from jobs.pairs.tasks import read_object

SYNTHETIC_SHARE = 0.2
"""Maximum share of synthetic queries among all."""
BINS = 256
"""Ranges of keys in which synthetic queries are counted, so that their share is never passed."""
GENERATED_WEIGHT = 0.5
"""Of the label of a query that a language model wrote, as of a title's."""


@dataclass(frozen=True)
class SyntheticTask:
    """The synthetic queries and labels of one partition of texts."""

    queries: str | None
    labels: str | None
    """Objects with those of titles and templates."""
    real: str | None
    """The table's part with the other queries of the partition."""
    generated: list[str]
    partitions: int
    kept_generated: float
    kept: float
    """Share of those that a model wrote, and of the others, that are kept."""


def in_bins(keys: npt.NDArray[np.uint64]) -> dict[str, int]:
    """How many of the texts' keys are in each of BINS equal ranges."""
    bins, counts = np.unique(keys // np.uint64(2**64 // BINS), return_counts=True)
    return {str(one): count for one, count in zip(bins.tolist(), counts.tolist(), strict=True)}


def share_of_bins(bins: Mapping[str, int], most: int) -> float:
    """The largest share of all keys, the lowest ones, that has no more than `most` of those in `bins`."""
    total = 0
    for one in sorted(int(number) for number in bins):
        total += bins[str(one)]
        if total > most:
            return one / BINS
    return 1.0


def most_synthetic(real: int) -> int:
    """How many queries may be synthetic beside so many others. Without others none."""
    return int(SYNTHETIC_SHARE / (1.0 - SYNTHETIC_SHARE) * real)


def write_synthetic(store: Store, folder: str, number: int, task: SyntheticTask) -> dict[str, Any]:
    """Write the kept ones of a partition beside the other tables: those that a model wrote come before titles and templates."""
    tables = list(_generated(store, number, task))
    if task.queries is not None and task.labels is not None and task.kept:
        queries = read_object(store, task.queries)
        queries = queries.filter(_below(queries["id"], task.kept))
        if tables:
            queries = queries.filter(pc.invert(pc.is_in(queries["id"], value_set=tables[0][0]["id"])))
        labels = read_object(store, task.labels)
        tables.append((queries, labels.filter(pc.is_in(labels["query_id"], value_set=queries["id"]))))
    tables = [(queries, labels) for queries, labels in tables if queries.num_rows]
    if not tables:
        return {"objects": {}, "queries": 0}
    objects, sums = {}, []
    for name, parts in zip(("queries", "qrels"), zip(*tables, strict=True), strict=True):
        table = pa.concat_tables(parts, promote_options="default")
        part = write_part(store, f"tables/{name}/synthetic-{number:05d}.parquet", table, for_others=True)
        objects[part.path] = part.bytes
        sums.append(table.num_rows)
    return {"objects": objects, "queries": sums[0], "labels": sums[1]}


def _generated(store: Store, number: int, task: SyntheticTask) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(queries, labels) that a model wrote, without texts that somebody asked."""
    table = read_partition(store, task.generated, number, task.partitions)
    if table is None:
        return
    table = table.sort_by([("text", "ascending"), ("item", "ascending"), ("raw", "ascending")])
    first = table.take(pa.array(np.unique(table["text"].to_numpy(), return_index=True)[1]))
    ids = pa.array([query_id(key) for key in first["text"].to_pylist()], pa.string())
    asked = read_part(store, task.real, ["id"])["id"] if task.real else pa.array([], pa.string())
    kept = pc.and_(_below(ids, task.kept_generated), pc.invert(pc.is_in(ids, value_set=asked)))
    first, ids = first.filter(kept), ids.filter(kept)
    count = len(ids)
    train, kind = pa.array(["train"] * count, pa.string()), pa.array(["generated"] * count, pa.string())
    queries = {"id": ids, "text": first["raw"], "split": train, "kind": kind, "item_id": pa.nulls(count, pa.string())}
    labels = {"query_id": ids, "item_id": first["item"], "score": np.ones(count, np.int64)}
    yield (
        pa.table(queries | {"count": np.zeros(count, np.int64)}),
        pa.table(labels | {"weight": np.full(count, GENERATED_WEIGHT), "source": kind, "split": train}),
    )


def _below(ids: pa.Array | pa.ChunkedArray, share: float) -> pa.Array:
    """Whether the hash of each id is in the lowest part."""
    keys = np.asarray([int(one[1:], 16) for one in ids.to_pylist()], np.uint64)
    return pa.array(keys // np.uint64(2**64 // BINS) < round(BINS * share))
