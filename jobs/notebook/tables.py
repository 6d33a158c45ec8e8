"""What a run's commits hold, as Arrow tables: models, figures by split, negatives, telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import lists_to_csr, read_part
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Chosen
from jobs.report.curves import telemetry_table

_METRICS = pa.schema(
    [
        ("model", pa.string()),
        ("round", pa.int64()),
        ("arm", pa.string()),
        ("split", pa.string()),
        ("queries", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p_adjusted", pa.float64()),
        ("significant", pa.bool_()),
    ]
)


def models_table(record: RunRecord, best_round: int | None) -> pa.Table:
    """A row per model that is measured on dev, in the order of the report, with its figures as columns."""
    rows = [
        {
            "model": model.label,
            "round": model.round,
            "arm": model.arm,
            "kept": model.arm != "random" and model.round == best_round,
            "negatives": trained.get("negatives"),
            "steps": trained.get("steps", 0),
            "train_loss": trained.get("train_loss"),
            "hit_rate": model.hit_rate,
            "verdict": model.verdict,
            **model.metrics,
        }
        for model in record.models
        for trained in [model.train.figures if model.train else {}]
    ]
    return pa.Table.from_pylist(rows)


def metrics_table(record: RunRecord) -> pa.Table:
    """A row per model, split and metric: the figure, and its difference from the off-the-shelf model with the interval."""
    rows = [row for model in record.models for row in _figures(model, model.split, model.figures)]
    for model in record.models:
        rows += _figures(model, "general", model.general.figures) if model.general else []
    for tested in map(record.measured, Chosen):
        rows += _figures(tested, tested.split, tested.figures) if tested else []
    return pa.Table.from_pylist(rows, schema=_METRICS)


def _figures(model: MeasuredModel, split: str, figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    changes: dict[str, Any] = figures.get("against_baseline") or {}
    for metric, value in figures["metrics"].items():
        change = changes.get(metric) or {}
        yield {
            "model": model.label,
            "round": model.round,
            "arm": model.arm,
            "split": split,
            "queries": figures.get("queries"),
            "metric": metric,
            "value": value,
            "difference": change.get("mean"),
        } | {name: change.get(name) for name in ("low", "high", "p_adjusted", "significant")}


def telemetry_of_all(store: Store, record: RunRecord) -> pa.Table:
    """A row per micro-step of every training, with the columns that it has; the first two name the model and its arm."""
    tables = []
    for model in record.models:
        table = telemetry_table(store, model.train) if model.train else None
        if table is not None:
            for number, (name, value) in enumerate((("model", model.label), ("arm", model.arm))):
                table = table.add_column(number, name, pa.array([value] * table.num_rows, pa.string()))
            tables.append(table)
    return (
        pa.concat_tables(tables, promote_options="permissive")
        if tables
        else pa.schema([("model", pa.string()), ("arm", pa.string())]).empty_table()
    )


def negatives_table(store: Store, mined: Commit, ingested: Commit, *, queries: int | None) -> pa.Table:
    """A row per query and negative, in the order of the data, the negatives of a query as training takes them.

    Args:
        queries: only those of the first so many queries that have a negative; None: of all.
    """
    parts: list[pa.Table] = []
    taken = 0
    for part in mined.parts("negatives"):
        if queries is None or taken < queries or not parts:
            read = read_part(store, part, ["query_row", "query_id", "negative_rows", "negatives"])
            parts.append(read.filter(pc.greater(pc.list_value_length(read["negatives"]), 0)))
            taken += parts[-1].num_rows
    table = pa.concat_tables(parts).slice(0, queries).combine_chunks()
    offsets, rows = lists_to_csr(table["negative_rows"])
    owners = pa.array(np.repeat(np.arange(table.num_rows), np.diff(offsets)))
    columns: dict[str, Any] = {"query_id": table["query_id"].take(owners), "query": _texts(store, ingested, "queries", table)}
    columns["query"] = columns["query"].take(owners)
    each = pc.list_flatten(table["negatives"])
    columns["item_id"] = pc.struct_field(each, "item_id")
    columns["item"] = read_rows(store, ingested.parts("corpus"), rows, ["text"])["text"]
    for name in ("score", "position", "source", "teacher_score", "round"):
        columns[name] = pc.struct_field(each, name)
    return pa.table(columns)


def _texts(store: Store, ingested: Commit, name: str, table: pa.Table) -> pa.ChunkedArray:
    return read_rows(store, ingested.parts(name), table["query_row"].to_numpy(), ["text"])["text"]
