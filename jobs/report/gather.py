"""A run as one plain dict: everything its report shows, read from commits alone. Starts nothing, needs no cluster.

The size does not grow with the data: at most 20 + 20 queries with their lists, 300 points per curve, 200 slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cluster.errors import HardmineError
from cluster.records import read_if_there
from cluster.storage import Store
from jobs.finished.status import read_status
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind
from jobs.report.changes import query_changes
from jobs.report.config_rows import changed_settings, setting_rows
from jobs.report.curves import training_curves
from jobs.report.decisions import read_diagnosis, read_gate
from jobs.report.labels import model_label
from jobs.report.minings import read_minings
from jobs.report.stages import stage_rows

FORMAT = 1
"""Of the dict; another number says that names have changed meaning."""
MOST_SLICES = 200
COMPARISONS = ("against_baseline", "against_best", "against_previous")

Json = dict[str, Any]


def gather(store: Store) -> Json:
    """Everything the report of the run at `store` shows.

    Returns:
        JSON-able values without NaN. What the run does not have is None or empty, and `missing` says why.

    Raises:
        ConfigError: there is no run at this address. ArtifactError: a committed object is damaged.
    """
    status = read_status(store)
    record, summary = status.record, status.as_json()
    run = read_if_there(store, "run.json") or {}
    config = run.get("config") or (record.finish.inputs["config"] if record.finish else {})
    primary = _primary(summary, config, record)
    best = _best(summary, record, primary)
    missing: list[str] = []
    result: Json = {
        "format": FORMAT,
        "kind": "run",
        "name": summary["name"],
        "output": store.root,
        "finished": summary["finished"],
        "written": max((commit.created for commit in record.all), default=None),
        "writer": summary.get("writer"),
        "reason": summary.get("reason"),
        "model": store.url(record.finish.figures["prefix"]) if record.finish and summary["model"] else None,
        "primary": primary,
        "best": str(best.name) if best else None,
        "data": dict(ingest.figures) if (ingest := record.find(Kind.INGEST)) else {},
        "confidence": _confidence(record),
        "models": [model_json(model) for model in record.models],
        "test": summary.get("test"),
        "training": training_curves(store, record),
        "minings": read_minings(store, record),
        "general": _general(record),
        "stages": stage_rows(record),
        "settings": setting_rows(config),
        "changed": changed_settings(config),
        "versions": run.get("versions", {}),
        "fingerprints": _fingerprints(run, record),
        "missing": missing,
    }
    result |= _before_and_after(record, best)
    result["changes"] = _tolerated(missing, "winners and losers", query_changes, store, record, best, primary)
    result["diagnosis"] = _tolerated(missing, "the diagnosis", read_diagnosis, store)
    result["gate"] = _tolerated(missing, "the gate", read_gate, store, finished=summary["finished"])
    shown: Json = plain(result)
    return shown


def plain(value: Any) -> Any:
    """`value` as JSON holds it: NaN and infinities become None, tuples lists, numbers of numpy plain ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tolerated(missing: list[str], what: str, read: Any, *given: Any, **named: Any) -> Any:
    """One part of the report, or None: a damaged part must not take the whole page with it."""
    try:
        return read(*given, **named)
    except HardmineError as error:
        missing.append(f"{what}: {error}")
        return None


def model_json(model: MeasuredModel) -> Json:
    """A model as the report shows it."""
    trained = model.train.figures if model.train else {}
    return {
        "name": str(model.name),
        "label": model_label(model),
        "arm": model.arm,
        "round": model.round,
        "queries": model.figures["queries"],
        "without_positive": model.figures["queries_without_positive"],
        "equal_texts": model.figures.get("equal_texts") or {},
        "split": model.figures["split"],
        "metrics": model.metrics,
        "verdict": model.verdict,
        "train_loss": trained.get("train_loss"),
        "steps": trained.get("steps", 0),
        "hit_rate": model.mine.figures["hit_rate"] if model.mine else None,
        "seconds": model.seconds if model.train else {},
    } | {key: comparison(model.figures.get(key)) for key in COMPARISONS}


def comparison(block: Json | None) -> Json:
    """{metric: interval} of a block of evaluation.json, without its verdict."""
    return {name: value for name, value in (block or {}).items() if isinstance(value, dict)}


def _primary(summary: Json, config: Json, record: RunRecord) -> str:
    known = record.models[0].metrics if record.models else {}
    wanted = summary.get("primary") or (config.get("evaluation") or {}).get("primary") or "recall@3"
    return str(wanted if wanted in known or not known else next(iter(known)))


def _best(summary: Json, record: RunRecord, primary: str) -> MeasuredModel | None:
    """The model that is kept; while the run goes on, the one that would be."""
    if summary.get("best_round") is None:
        return record.best(primary)
    kept = (model for model in record.models if model.arm != "random" and model.round == summary["best_round"])
    return next(kept, None)


def _confidence(record: RunRecord) -> float:
    settings = record.baseline.evaluation.inputs["settings"] if record.baseline else {}
    return float(settings.get("confidence", 0.95))


def _fingerprints(run: Json, record: RunRecord) -> Json:
    ingest = record.find(Kind.INGEST)
    prints = run.get("data") or (ingest.inputs["data"] if ingest else {})
    return {name: value for name, value in prints.items() if isinstance(value, dict)}


def _general(record: RunRecord) -> list[Json]:
    """What each model scores on the general set, if there is one; nothing is trained or decided on it."""
    return [
        {
            "name": str(model.name),
            "label": model_label(model),
            "arm": model.arm,
            "queries": model.general.figures.get("queries"),
            "metrics": model.general.figures["metrics"],
            "against_baseline": comparison(model.general.figures.get("against_baseline")),
        }
        for model in record.models
        if model.general is not None
    ]


def _before_and_after(record: RunRecord, best: MeasuredModel | None) -> Json:
    """What an evaluation says beyond metrics, of the off-the-shelf model and of the kept one."""
    models = {"before": record.baseline, "after": best or record.baseline}
    figures = {when: model.figures if model else {} for when, model in models.items()}
    return {
        "scores": {when: value.get("scores") for when, value in figures.items()},
        "results": {when: value.get("results") for when, value in figures.items()},
        "slices": _slices(figures["after"].get("slices") or {}),
        "leakage": figures["before"].get("leakage") or {},
    }


def _slices(columns: Json) -> list[Json]:
    """Rows of all columns, most queries first within each column; at most MOST_SLICES in all."""
    rows: list[Json] = []
    for column, found in columns.items():
        slices = sorted(found["slices"], key=lambda row: -row["queries"])
        rows += [
            {
                "column": column,
                "value": str(row["value"]),
                "queries": row["queries"],
                "metrics": row["metrics"],
                "against_baseline": row.get("against_baseline"),
            }
            for row in slices
        ]
    return rows[:MOST_SLICES]
