"""The evidence for a diagnosis, read from a run's commits and telemetry, however far the run got."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.records import read_if_there
from cluster.storage.store import Store
from eval.diagnosis.evidence import STEP_FIGURES, Arm, Evidence, Measurement, Mining, Training
from eval.figures import numbers, read_intervals, read_slices
from jobs.record.origin import read_config, run_verb, run_words
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind, ModelName, Stage
from training.settings import SYNTHETIC_CAP
from training.telemetry.telemetry import read_lines

Lines = Iterable[Mapping[str, Any]]
COUNTS = {name: name for name in ("queries", "candidates", "queries_short", "queries_empty")} | {
    "suspected": "suspected_false_negatives"
}
"""Count of a `Mining` -> its name in mining.json."""


def read_evidence(store: Store, *, config: tuple[str, ...] | None = None) -> Evidence:
    """All evidence in a run's commits; what is missing is left out.

    Args:
        config: what follows `hardmine run` in the proposed commands; None: as the run says.

    Raises:
        ArtifactError: a commit cannot be read.
    """
    record = RunRecord.read(store)
    settings = _settings(store, record)
    baseline, ingested = record.baseline, record.find(Kind.INGEST)
    return Evidence(
        arms=_arms(store, record),
        primary=str(settings.get("evaluation.primary", "recall@3")),
        baseline=_measurement(baseline) if baseline else None,
        general=[
            measurement_from_figures(f"general-{m.name}", m.general.figures)
            for m in record.models
            if m.general and m.arm != "merged"  # what training made is judged
        ],
        leakage=baseline.leakage if baseline else {},
        settings=settings | _positions(store, record),
        items=int(ingested.figures.get("items", 0)) if ingested else 0,
        verb=run_verb(store),
        config=run_words(store) if config is None else config,
        dev_is_cut=bool(ingested and ingested.figures.get("dev_queries_cut_from_train")),
        mining_advice=_advice(record),
        training_queries=int(ingested.figures.get("splits", {}).get("train", 0)) if ingested else 0,
    )


def training_from_lines(name: str, number: int, lines: Lines) -> Training:
    """A training from its telemetry lines, steps and events mixed as written."""
    kept = list(lines)
    rows, events = [line for line in kept if "event" not in line], [line for line in kept if "event" in line]
    known = [column for column in STEP_FIGURES if any(row.get(column) is not None for row in rows)]
    checks = [event for event in events if event["event"] == "validation" and event.get("recall") is not None]
    return Training(
        name,
        number,
        {column: _column(row.get(column) for row in rows) for column in known},
        _column(event.get("step") for event in checks),
        _column(event["recall"] for event in checks),
    )


def measurement_from_figures(name: str, figures: Mapping[str, Any], *, random: bool = False) -> Measurement:
    """A measurement from the figures of an evaluation (evaluation.json).

    Args:
        random: the model is of the random arm, so its "best" is the last mined round.
    """
    spread = figures.get("scores", {}).get("percentiles", {})
    return Measurement(
        name=name,
        round=int(figures.get("round", -1)),
        queries=int(figures.get("queries", 0)),
        metrics=numbers(figures.get("metrics", {})),
        attainable=numbers(figures.get("attainable") or {}),
        slices=read_slices(figures.get("slices", {})),
        results=numbers(figures.get("results", {})),
        scores={f"{kind}_{name}": float(value) for kind, values in spread.items() for name, value in values.items()},
        against_baseline=read_intervals(figures.get("against_baseline", {})),
        against_previous=read_intervals(figures.get("against_previous", {})),
        against_mined=read_intervals(figures.get("against_best", {})) if random else {},
    )


def mining_from_figures(name: str, number: int, figures: Mapping[str, Any]) -> Mining:
    """A mining from the figures of mining.json."""
    counts = {ours: int(figures.get(theirs, 0)) for ours, theirs in COUNTS.items()}
    return Mining(name, number, hit_rate=float(figures.get("hit_rate", 1.0)), dropped=dict(figures.get("dropped", {})), **counts)


def _measurement(model: MeasuredModel) -> Measurement:
    return measurement_from_figures(str(model.name), model.figures, random=model.arm == "random")


def _arms(store: Store, record: RunRecord) -> list[Arm]:
    """The mined rounds and each random arm; the warm-up alone if there is nothing else."""
    numbers = sorted(
        {
            stage.of.round
            for stage in record.commits
            if isinstance(stage.of, ModelName) and stage.of.round > 0 and not stage.of.share
        }
    )
    under_way = max(numbers, default=0)
    warm = record.measured(ModelName(0))
    start = warm or record.baseline
    arms = [_arm(store, record, "mined", [ModelName(number) for number in range(1, under_way + 1)], start)]
    arms += [_arm(store, record, "random", [ModelName(number, random=True)], start) for number in numbers]
    if not any(arm.trainings for arm in arms):  # only a warm-up so far, which trains on random negatives
        arms = [_arm(store, record, "random", [ModelName(0)], record.baseline)]
    return [arm for arm in arms if arm.trainings]


def _arm(store: Store, record: RunRecord, arm: Any, names: Sequence[ModelName], start: MeasuredModel | None) -> Arm:
    trainings, measurements, minings = [], [], []
    for name in names:
        training = _training(store, record, name)
        if training is None:
            break
        trainings.append(training)
        model = record.measured(name)
        measurements += [_measurement(model)] if model else []
        report = record.find(Kind.REPORT, name) or record.find(Kind.MINE, name) if arm == "mined" else None
        minings += [mining_from_figures(Stage(Kind.MINE, name).name, name.round, report.figures)] if report else []
    return Arm(arm, _measurement(start) if start else None, trainings, measurements, minings)


def _training(store: Store, record: RunRecord, name: ModelName) -> Training | None:
    """None: it has not begun."""
    commit = record.find(Kind.TRAIN, name)
    if commit is None:
        folder = _under_way(store, record, name)
    else:
        folder = next((path.rpartition("/")[0] for path in commit.files if path.endswith("/telemetry.jsonl")), None)
    if folder is None:
        return None
    try:
        return training_from_lines(str(name), name.round, read_lines(store, folder, commit.files if commit else None))
    except DamagedObject:
        raise
    except ArtifactError:
        return Training(str(name), name.round, {})


def _under_way(store: Store, record: RunRecord, name: ModelName) -> str | None:
    """The folder of a training that is not committed yet; None: there is none, or more than one."""
    paths = store.list(Stage(Kind.TRAIN, name).folder)
    folders = {path.rsplit("/", 1)[0] for path in paths if path.endswith("/telemetry.jsonl")}
    return folders.pop() if len(folders) == 1 and record.finish is None else None


def _settings(store: Store, record: RunRecord) -> dict[str, float | str | bool]:
    """The run's settings by their full names, as the newest driver, or else the newest training, was told them."""
    finish = record.find(Kind.FINISH)
    values: dict[str, Any] = dict(finish.inputs.get("config", {})) if finish else {}
    values |= (read_if_there(store, "run.json") or {}).get("config", {})
    told = read_config(store)
    values |= told
    identity = read_if_there(store, "identity.json") or {}
    values["encoder"] = {**identity.get("encoder", {}), **(values.get("encoder") or {})}
    trained = [commit for commit in record.all if "training" in commit.inputs]
    if trained and not told:
        values["training"] = {**(values.get("training") or {}), **trained[-1].inputs["training"]}
    values.setdefault("name", store.root.rstrip("/").rsplit("/", 1)[-1])
    return {"training.label_sources.synthetic.cap": SYNTHETIC_CAP, **dict(_flat(values)), "run": store.root}


def _advice(record: RunRecord) -> tuple[str, ...]:
    """What the report of the last mining would change."""
    reports = [model.report for model in record.rounds if model.report is not None]
    return tuple(reports[-1].figures.get("advice", ())) if reports else ()


def _positions(store: Store, record: RunRecord) -> dict[str, float | str | bool]:
    """How many tokens the base model has positions for, as if that were a setting; {}: it does not say."""
    base = record.find(Kind.BASE)
    configs = [path for path in base.files if path.endswith("/config.json")] if base else []
    for path in configs:
        positions = store.read_json(path).get("max_position_embeddings") if store.exists(path) else None
        if isinstance(positions, int) and positions > 0:
            return {"model positions": positions}
    return {}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, float | str | bool]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, float | int | str | bool):
            yield f"{above}{key}", value


def _column(values: Iterable[Any]) -> Any:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
