"""A run as one plain dict: everything its report shows, read from commits alone. Starts nothing, needs no cluster.

The size does not grow with the data: at most 20 + 20 queries with their lists, 300 points per curve, 200 slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.commits import Commit
from cluster.errors import HardmineError
from cluster.storage import Store
from jobs.finished.status import as_json, read_status
from jobs.report.changes import query_changes
from jobs.report.config_rows import changed_settings, setting_rows
from jobs.report.curves import training_curves
from jobs.report.decisions import read_diagnosis, read_gate
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
    summary = as_json(status)
    commits: dict[str, Commit] = {commit.name: commit for commit in status["commits"]}
    run = store.read_json("run.json") if store.exists("run.json") else {}
    config = _config(run, commits)
    models = _models(summary, commits)
    primary = _primary(summary, config, models)
    best = _best(summary, models, primary)
    missing: list[str] = []
    result: Json = {
        "format": FORMAT,
        "kind": "run",
        "name": summary["name"],
        "output": store.root,
        "finished": summary["finished"],
        "written": max((commit.created for commit in commits.values()), default=None),
        "writer": summary.get("writer"),
        "reason": summary.get("reason"),
        "model": _model_address(store, summary, commits),
        "primary": primary,
        "best": best["name"] if best else None,
        "data": _data(commits),
        "confidence": _confidence(commits),
        "models": models,
        "test": summary.get("test"),
        "training": training_curves(store, models, commits),
        "minings": read_minings(store, models, commits),
        "general": _general(models, commits),
        "stages": stage_rows(status["commits"]),
        "settings": setting_rows(config),
        "changed": changed_settings(config),
        "versions": run.get("versions", {}),
        "fingerprints": _fingerprints(run, commits),
        "missing": missing,
    }
    result |= _before_and_after(models, best, commits)
    result["changes"] = _tolerated(missing, "winners and losers", query_changes, store, commits, best, primary)
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


def _config(run: Json, commits: Mapping[str, Commit]) -> Json:
    finish = commits.get("finish")
    return run.get("config") or (finish.inputs.get("config") if finish else None) or {}


def _models(summary: Json, commits: Mapping[str, Commit]) -> list[Json]:
    """The off-the-shelf model, every round, and the random arm, in the order in which they are told."""
    found = []
    if "baseline-evaluate" in commits:
        found.append(_model("baseline", "off the shelf", "baseline", commits))
    rounds = summary["rounds"]
    for row in rounds:
        warm = row["round"] == 0
        found.append(
            _model(
                f"round-{row['round']:02d}",
                "warm-up" if warm else f"round {row['round']}",
                "warm-up" if warm else "mined",
                commits,
            )
            | _trained(row)
        )
    arm = next(
        (
            name
            for name in (f"round-{len([r for r in rounds if r['negatives'] == 'mined']):02d}-random",)
            if f"{name}-evaluate" in commits
        ),
        None,
    )
    if summary.get("random_arm") and arm:
        found.append(_model(arm, "random arm", "random", commits) | _trained(summary["random_arm"]))
    return [model for model in found if model["metrics"]]


def _model(name: str, label: str, arm: str, commits: Mapping[str, Commit]) -> Json:
    evaluation = commits.get(f"{name}-evaluate")
    figures = evaluation.figures if evaluation else {}
    return {
        "name": name,
        "label": label,
        "arm": arm,
        "round": figures.get("round"),
        "queries": figures.get("queries"),
        "without_positive": figures.get("queries_without_positive", 0),
        "equal_texts": figures.get("equal_texts") or {},
        "split": figures.get("split", "dev"),
        "metrics": figures.get("metrics", {}),
        "verdict": (figures.get("against_best") or {}).get("verdict"),
        "train_loss": None,
        "steps": 0,
        "hit_rate": None,
        "seconds": {},
    } | {key: comparison(figures.get(key)) for key in COMPARISONS}


def comparison(block: Json | None) -> Json:
    """{metric: interval} of a block of evaluation.json, without its verdict."""
    return {name: value for name, value in (block or {}).items() if isinstance(value, dict)}


def _trained(row: Json) -> Json:
    return {key: row.get(key) for key in ("train_loss", "steps", "hit_rate", "seconds", "verdict")}


def _model_address(store: Store, summary: Json, commits: Mapping[str, Commit]) -> str | None:
    """Where the model lies now: a run's folder may have been moved since."""
    return store.url(commits["finish"].figures["prefix"]) if summary.get("model") and "finish" in commits else None


def _primary(summary: Json, config: Json, models: Sequence[Json]) -> str:
    known = models[0]["metrics"] if models else {}
    wanted = summary.get("primary") or (config.get("evaluation") or {}).get("primary") or "recall@3"
    return str(wanted if wanted in known or not known else next(iter(known)))


def _best(summary: Json, models: Sequence[Json], primary: str) -> Json | None:
    """The model that is kept; while the run goes on, the one that would be: highest primary figure, earlier of equals."""
    chosen = [model for model in models if model["arm"] != "random"]
    if summary.get("best_round") is not None:
        return next((model for model in chosen if model["round"] == summary["best_round"]), None)
    return max(chosen, key=lambda model: (model["metrics"].get(primary) or 0.0, -(model["round"] or 0)), default=None)


def _confidence(commits: Mapping[str, Commit]) -> float:
    baseline = commits.get("baseline-evaluate")
    settings = (baseline.inputs.get("settings") or {}) if baseline else {}
    return float(settings.get("confidence", 0.95))


def _data(commits: Mapping[str, Commit]) -> Json:
    ingest = commits.get("ingest")
    return dict(ingest.figures) if ingest else {}


def _fingerprints(run: Json, commits: Mapping[str, Commit]) -> Json:
    ingest = commits.get("ingest")
    return {
        name: value
        for name, value in (run.get("data") or (ingest.inputs.get("data") if ingest else None) or {}).items()
        if isinstance(value, dict)
    }


def _general(models: Sequence[Json], commits: Mapping[str, Commit]) -> list[Json]:
    """What each model scores on the general set, if there is one; nothing is trained or decided on it."""
    found = []
    for model in models:
        commit = commits.get(f"general-{model['name']}-evaluate")
        if commit is not None:
            figures = commit.figures
            found.append(
                {
                    "name": model["name"],
                    "label": model["label"],
                    "arm": model["arm"],
                    "queries": figures.get("queries"),
                    "metrics": figures["metrics"],
                    "against_baseline": comparison(figures.get("against_baseline")),
                }
            )
    return found


def _before_and_after(models: Sequence[Json], best: Json | None, commits: Mapping[str, Commit]) -> Json:
    """What an evaluation says beyond metrics, of the off-the-shelf model and of the kept one."""
    names = {"before": "baseline", "after": best["name"] if best else "baseline"}
    figures = {when: commits[f"{name}-evaluate"].figures if f"{name}-evaluate" in commits else {} for when, name in names.items()}
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
