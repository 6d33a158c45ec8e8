"""What each training showed, step by step, in few enough points for a page.

Shape suffixes: S micro-steps, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.commits import Commit
from cluster.storage import Store
from cluster.tables import read_part
from jobs.record.record import RunRecord
from jobs.report.labels import model_label

F64 = npt.NDArray[np.float64]
Json = dict[str, Any]

MOST_POINTS = 300
"""Of one training's curves."""
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
"""Telemetry that is kept; training/telemetry/geometry.py defines it."""


def training_curves(store: Store, record: RunRecord) -> list[Json]:
    """A dict per trained model: {"name", "label", "arm", "start", "steps", "curves", "validation", "seconds"}.

    `start` counts the optimizer steps before it in its own line of models: both arms go on from the warm-up.
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
                "label": model_label(model),
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
        there = np.isfinite(recalls)
        validation = {"step": columns["step"][there].tolist(), "recall": recalls[there].tolist()}
    return {"curves": curves, "validation": validation}


def read_columns(store: Store, commit: Commit) -> dict[str, F64]:
    """Columns of a training's telemetry, float64 [S], NaN where a line has no such figure; {} without telemetry.

    The table written at the end of a training is read where there is one; else the lines.
    """
    from training.telemetry.telemetry import read_lines, steps_table

    tables = [path for path in commit.files if path.endswith("/telemetry.parquet")]
    lines = [path for path in commit.files if path.endswith("/telemetry.jsonl")]
    if tables:
        table = read_part(store, tables[0])
    elif lines:
        import json

        table = steps_table(json.dumps(line) for line in read_lines(store, lines[0].rpartition("/")[0], commit.files))
    else:
        return {}
    wanted = [name for name in ("step", "validation_recall", *SHOWN) if name in table.column_names]
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in wanted}


def downsample(columns: Mapping[str, F64], points: int = MOST_POINTS) -> dict[str, F64]:
    """Bin means of each column over at most `points` runs of consecutive rows.

    Args:
        columns: [S] each; "step" among them.

    Returns:
        [B] each, B = min(S, points). "step" is the last one of its bin, so that a curve ends where its training ended; a
        bin without any figure is NaN.
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
