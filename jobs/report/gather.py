"""A run as one plain dict: everything that its report shows, read from commits alone. Starts nothing.

The size does not grow with the data: at most 20 + 20 queries with their lists, 300 points per curve, 200 slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from cluster.errors import HardmineError
from cluster.storage.records import read_if_there
from cluster.storage.store import Store
from jobs.finished.diagnose import diagnose_output
from jobs.finished.gate.gate import judge
from jobs.finished.next_steps import read_next_steps
from jobs.finished.status import read_status
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind
from jobs.report.changes import query_changes
from jobs.report.config_rows import changed_settings, setting_rows
from jobs.report.curves import training_curves
from jobs.report.minings import read_minings
from jobs.report.stages import stage_rows

FORMAT = 1
"""Version of the dict: it changes when a name changes its meaning."""
MOST_SLICES = 200
GATE = "gate.json"
COMPARISONS = ("against_baseline", "against_best", "against_previous")

Json = dict[str, Any]


def gather(store: Store) -> Json:
    """Everything the report of the run at `store` shows.

    Returns:
        JSON values without NaN. What the run does not have is None or empty; `missing` names what could not be read.

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
        "reranker": summary.get("reranker"),
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
    result["diagnosis"] = _tolerated(missing, "the diagnosis", lambda: diagnose_output(store).as_json())
    result["next"] = _tolerated(missing, "the next steps", _next_steps, store, primary) or {"steps": []}
    result["next"] = result["next"]["steps"]
    result["gate"] = _tolerated(missing, "the gate", _gate, store) if summary["finished"] else None
    shown: Json = plain(result)
    return shown


def _next_steps(store: Store, primary: str) -> Json:
    return {"steps": [step.as_json() for step in read_next_steps(store, primary)]}


def plain(value: Any) -> Any:
    """`value` as JSON: NaN and infinities become None, tuples lists, numpy numbers plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tolerated(missing: list[str], what: str, read: Callable[..., Json | None], *arguments: Any) -> Json | None:
    """One part of the report; None: it is damaged, which must not cost the whole page."""
    try:
        return read(*arguments)
    except HardmineError as error:
        missing.append(f"{what}: {error}")
        return None


def _gate(store: Store) -> Json:
    """The stored answer of `hardmine gate`, with its latency and thresholds, if it judged this evaluation. If not, the
    gate's answer now, without latency; `latency_pending` says that the gate would measure it.
    """
    why = f"the report measures no times; `hardmine gate {store.root}` does"
    now = judge(store, without_latency=why)
    now["latency_pending"] = any(check["why"] == why for check in now["checks"])
    stored: Json = store.read_json(GATE) if store.exists(GATE) else {}
    return stored if stored.get("evaluation") == now["evaluation"] else now


def model_json(model: MeasuredModel) -> Json:
    """A model in the report."""
    trained = model.train.figures if model.train else {}
    return {
        "name": str(model.name),
        "label": model.label,
        "arm": model.arm,
        "round": model.round,
        "queries": model.queries,
        "without_positive": model.without_positive,
        "equal_texts": model.figures.get("equal_texts") or {},
        "split": model.split,
        "metrics": model.metrics,
        "attainable": model.figures.get("attainable") or {},
        "verdict": model.verdict,
        "train_loss": trained.get("train_loss"),
        "steps": trained.get("steps", 0),
        "hit_rate": model.hit_rate,
        "seconds": model.seconds if model.train or model.arm == "merged" else {},
    } | {key: comparison(model.figures.get(key)) for key in COMPARISONS}


def comparison(block: Json | None) -> Json:
    """{metric: interval} of a block of evaluation.json, without its verdict."""
    return {name: value for name, value in (block or {}).items() if isinstance(value, dict)}


def _primary(summary: Json, config: Json, record: RunRecord) -> str:
    metrics = record.models[0].metrics if record.models else {}
    primary = summary.get("primary") or (config.get("evaluation") or {}).get("primary") or "recall@3"
    return str(primary if primary in metrics or not metrics else next(iter(metrics)))


def _best(summary: Json, record: RunRecord, primary: str) -> MeasuredModel | None:
    """The kept model; of an unfinished run, the best one so far."""
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
    """The figures of each model on the general set, if there is one."""
    return [
        {
            "name": str(model.name),
            "label": model.label,
            "arm": model.arm,
            "queries": model.general.figures.get("queries"),
            "metrics": model.general.figures["metrics"],
            "against_baseline": comparison(model.general.figures.get("against_baseline")),
        }
        for model in record.models
        if model.general is not None
    ]


def _before_and_after(record: RunRecord, best: MeasuredModel | None) -> Json:
    """The figures of an evaluation besides metrics, of the off-the-shelf model and of the kept one."""
    models = {"before": record.baseline, "after": best or record.baseline}
    figures = {when: model.figures if model else {} for when, model in models.items()}
    return {
        "scores": {when: value.get("scores") for when, value in figures.items()},
        "results": {when: value.get("results") for when, value in figures.items()},
        "slices": _slices(figures["after"].get("slices") or {}),
        "leakage": figures["before"].get("leakage") or {},
    }


def _slices(columns: Json) -> list[Json]:
    """The slices of all columns, largest first within a column; at most MOST_SLICES."""
    rows: list[Json] = []
    for column, block in columns.items():
        slices = sorted(block["slices"], key=lambda row: -row["queries"])
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
