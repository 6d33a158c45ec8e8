"""The curves of each training, in few enough points for a page.

Shape suffixes: S micro-steps, B bins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.commits import Commit
from cluster.storage.store import Store
from cluster.tables.tables import read_part
from jobs.record.record import RunRecord

F64 = npt.NDArray[np.float64]
Json = dict[str, Any]

MOST_POINTS = 300
"""Points per training."""
SHOWN = (
    "loss",
    "positive_probability",
    "hardest_weight",
    "effective_negatives",
    "negatives_per_query",
    "dead_negatives",
    "above_positive",
    "gradient_share_hard",
    "gradient_share_random",
    "gradient_share_in_batch",
    "gradient_share_cross_rank",
    "alignment",
    "uniformity",
    "mean_pairwise_cosine",
    "temperature",
    "gradient_norm",
    "learning_rate",
)
"""Telemetry columns that are kept; training/telemetry/gradient_geometry.py defines them."""


def training_curves(store: Store, record: RunRecord) -> list[Json]:
    """A dict per trained model: {"name", "label", "arm", "start", "steps", "curves", "validation", "seconds"}.

    `start` counts the optimizer steps before it in its own arm: both arms start from the warm-up.
    """
    curves, before = [], {"mined": 0, "random": 0}
    for model in record.models:
        if model.train is None:
            continue
        lines = ("mined", "random") if model.arm == "warm-up" else (model.arm,)
        figures = model.train.figures
        start = before[lines[0]]
        curves.append(
            {
                "name": str(model.name),
                "label": model.label,
                "arm": model.arm,
                "start": start,
                "steps": figures["steps"],
                "epochs": figures.get("epochs"),
                "seconds": figures.get("seconds"),
            }
            | _read(store, model.train)
        )
        for line in lines:
            before[line] = start + figures["steps"]
    return curves


def _read(store: Store, commit: Commit) -> Json:
    columns = read_columns(store, commit)
    curves = {name: [float(f"{value:.5g}") for value in values] for name, values in downsample(columns).items()}
    recalls = columns.get("validation_recall")
    validation: Json = {"step": [], "recall": []}
    if recalls is not None:
        measured = np.isfinite(recalls)
        validation = {"step": columns["step"][measured].tolist(), "recall": recalls[measured].tolist()}
    return {"curves": curves, "validation": validation}


def telemetry_table(store: Store, commit: Commit) -> pa.Table | None:
    """A training's telemetry, a row per micro-step; None: it has none.

    Reads the table that a finished training writes; without it, the lines.
    """
    from training.telemetry.telemetry import read_lines, steps_table

    tables = [path for path in commit.files if path.endswith("/telemetry.parquet")]
    lines = [path for path in commit.files if path.endswith("/telemetry.jsonl")]
    if tables:
        return read_part(store, tables[0])
    if lines:
        return steps_table(json.dumps(line) for line in read_lines(store, lines[0].rpartition("/")[0], commit.files))
    return None


def read_columns(store: Store, commit: Commit) -> dict[str, F64]:
    """Columns of a training's telemetry, float64 [S], NaN where a line lacks the figure; {} without telemetry."""
    table = telemetry_table(store, commit)
    if table is None:
        return {}
    known = [name for name in ("step", "validation_recall", *SHOWN) if name in table.column_names]
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in known}


def downsample(columns: Mapping[str, F64], points: int = MOST_POINTS) -> dict[str, F64]:
    """The mean of each column in at most `points` bins of consecutive rows.

    Args:
        columns: [S] each; "step" among them.

    Returns:
        [B] each, B = min(S, points). "step" is the last one of its bin, so that a curve ends where its training ended. A
        bin without figures is NaN.
    """
    size = len(columns.get("step", ()))
    if not size:
        return {}
    count = min(size, points)
    edges = np.linspace(0, size, count + 1).round().astype(np.int64)
    result = {"step": columns["step"][edges[1:] - 1]}
    for name, values in columns.items():
        if name in SHOWN:
            known = np.isfinite(values)
            sums = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
            counts = np.add.reduceat(known.astype(np.float64), edges[:-1])
            result[name] = np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)
    return result
