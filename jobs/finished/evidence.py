"""What a diagnosis reads, from what a run left: commits and telemetry, whatever version wrote them and however far it got.

Figures come from commits; of tables only a column per model is read, and only where an older version did not yet write the
comparison that is wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.commits import Commit, Ledger
from cluster.errors import ArtifactError
from cluster.storage import Store
from cluster.tables import read_parts
from eval.diagnosis.evidence import STEP_FIGURES, Arm, Evidence, Measurement, Mining, Training
from eval.figures import numbers, read_intervals, read_slices
from eval.significance import paired_bootstrap
from training.telemetry.telemetry import read_lines

Lines = Iterable[Mapping[str, Any]]
ROUND = re.compile(r"round-(\d+)(-random)?")
COUNTS = {name: name for name in ("queries", "candidates", "queries_short", "queries_empty")} | {
    "suspected": "suspected_false_negatives"
}
"""Count of a `Mining` -> its name in mining.json."""
RESAMPLES = 2_000
"""Of an interval that a commit does not have: it decides whether there is a difference, not its third digit."""


def read_evidence(store: Store, *, config_path: str = "run.toml") -> Evidence:
    """Everything a run's commits tell; whatever is missing is left out.

    Args:
        config_path: stands in the commands that findings propose.

    Raises:
        ArtifactError: a commit cannot be read.
    """
    run = _Run(store, Ledger(store).all())
    settings = _settings(store, run)
    primary = str(settings.get("evaluation.primary", "recall@3"))
    baseline = run.measurement("baseline", primary)
    ingested = run.commit("ingest")
    first = run.commit("baseline-evaluate")
    return Evidence(
        arms=_arms(run, primary, baseline),
        primary=primary,
        baseline=baseline,
        general=_general(run, primary),
        leakage=first.figures.get("leakage", {}) if first else {},
        settings=settings,
        items=int(ingested.figures.get("items", 0)) if ingested else 0,
        config_path=config_path,
    )


def training_from_lines(name: str, number: int, lines: Lines) -> Training:
    """A training from the lines of its telemetry, steps and events mixed as they came."""
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
        random: it is of the random arm, whose "best" is the last mined round.
    """
    spread = figures.get("scores", {}).get("percentiles", {})
    return Measurement(
        name=name,
        round=int(figures.get("round", -1)),
        queries=int(figures.get("queries", 0)),
        metrics=numbers(figures.get("metrics", {})),
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


@dataclass(frozen=True)
class _Run:
    """The commits of a run by name; evaluations only as far as they belong to the newest configuration."""

    store: Store
    commits: Sequence[Commit]

    def commit(self, name: str) -> Commit | None:
        return next((commit for commit in self.commits if commit.name == name), None)

    def evaluation(self, name: str) -> Commit | None:
        """None too where its hits or its baseline have been replaced since: an earlier configuration left it."""
        found, current = self.commit(f"{name}-evaluate"), {commit.key for commit in self.commits}
        wanted = [found.inputs.get(key) for key in ("hits", "baseline")] if found else []
        return found if all(key is None or key in current for key in wanted) else None

    def measurement(self, name: str, primary: str, previous: str | None = None) -> Measurement | None:
        """Args: previous: what the model was trained from, by name."""
        commit = self.evaluation(name)
        if commit is None:
            return None
        figures = dict(commit.figures)
        before = self.evaluation(previous) if previous else None
        if "against_previous" not in figures and before is not None:
            figures["against_previous"] = self._compared(commit, before, primary)
        return measurement_from_figures(name, figures, random=name.endswith("-random"))

    def _compared(self, commit: Commit, before: Commit, primary: str) -> dict[str, Any]:
        """The comparison that an older version did not write."""
        try:
            tables = [read_parts(self.store, found.parts("per_query"), ["query_row", primary]) for found in (commit, before)]
        except (ArtifactError, KeyError):
            return {}
        if not tables[0]["query_row"].equals(tables[1]["query_row"]):
            return {}
        values, known = (table[primary].to_numpy() for table in tables)
        return {primary: vars(paired_bootstrap(values, known, resamples=RESAMPLES))} if len(values) else {}

    def training(self, name: str) -> Training | None:
        """None where it has not begun."""
        commit = self.commit(f"{name}-train")
        number = int(ROUND.fullmatch(name)[1])  # type: ignore[index]
        folder = _folder(commit) if commit else self._under_way(name, number)
        if folder is None:
            return None
        try:
            found = training_from_lines(name, number, read_lines(self.store, folder))
        except ArtifactError:
            found = Training(name, number, {})
        return _with_validation(found, commit) if commit else found

    def _under_way(self, name: str, number: int) -> str | None:
        """The folder of a training that is not committed, if there is just one of them."""
        if name.endswith("-random") and self.commit(f"round-{number:02d}-train") is None:
            return None
        folder, done = f"rounds/{number:02d}/train", {_folder(c) for c in self.commits if c.name.endswith("-train")}
        found = {path.rsplit("/", 1)[0] for path in self.store.list(folder) if path.endswith("/telemetry.jsonl")} - done
        return found.pop() if len(found) == 1 and self.commit("finish") is None else None

    def mining(self, name: str) -> Mining | None:
        commit = self.commit(f"{name}-report") or self.commit(f"{name}-mine")
        number = int(ROUND.fullmatch(name)[1])  # type: ignore[index]
        return mining_from_figures(f"{name}-mine", number, commit.figures) if commit else None

    def last_round(self) -> int:
        """Highest number of any round that left a commit or a folder; -1: none did."""
        names = [commit.name for commit in self.commits if commit.name.startswith("round-")]
        return max((int(found[1]) for name in names if (found := ROUND.match(name))), default=-1)


def _arms(run: _Run, primary: str, baseline: Measurement | None) -> list[Arm]:
    warm = run.measurement("round-00", primary, "baseline")
    last = run.last_round()
    names = [f"round-{number:02d}" for number in range(1, last + 1)]
    mined = _arm(run, primary, "mined", names, warm or baseline, "round-00" if warm else "baseline")
    arms = [mined] if mined.trainings else []
    for name in (f"{name}-random" for name in names):
        arm = _arm(run, primary, "random", [name], warm or baseline, "round-00" if warm else "baseline")
        arms += [arm] if arm.trainings else []
    if not arms:  # only a warm-up so far: it is an arm of random negatives
        arm = _arm(run, primary, "random", ["round-00"], baseline, "baseline")
        arms = [arm] if arm.trainings else []
    return arms


def _arm(run: _Run, primary: str, arm: Any, names: Sequence[str], start: Measurement | None, before: str) -> Arm:
    trainings, measurements, minings = [], [], []
    for name in names:
        training = run.training(name)
        if training is None:
            break
        trainings.append(training)
        measured, mining = run.measurement(name, primary, before), run.mining(name) if arm == "mined" else None
        measurements += [measured] if measured else []
        minings += [mining] if mining else []
        before = name
    return Arm(arm, start, trainings, measurements, minings)


def _general(run: _Run, primary: str) -> list[Measurement]:
    names = ["general-baseline", *(f"general-round-{number:02d}" for number in range(run.last_round() + 1))]
    return [found for name in names if (found := run.measurement(name, primary)) is not None]


def _settings(store: Store, run: _Run) -> dict[str, float | str | bool]:
    """What the run was told. The newest training knows best what it was told; run.json is written at a run's end."""
    finish = run.commit("finish")
    values: dict[str, Any] = dict(finish.inputs.get("config", {})) if finish else {}
    if store.exists("run.json"):
        values |= store.read_json("run.json").get("config", {})
    if store.exists("identity.json"):
        values["encoder"] = {**store.read_json("identity.json").get("encoder", {}), **(values.get("encoder") or {})}
    trained = [commit for commit in run.commits if commit.name.endswith("-train") and "training" in commit.inputs]
    if trained:
        values["training"] = {**(values.get("training") or {}), **trained[-1].inputs["training"]}
    values.setdefault("name", store.root.rstrip("/").rsplit("/", 1)[-1])
    return {**dict(_flat(values)), "run": store.root}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, float | str | bool]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, float | int | str | bool):
            yield f"{above}{key}", value


def _with_validation(training: Training, commit: Commit) -> Training:
    """Older telemetry has no validations; the commit has one for each epoch, all 0 where there was no dev query."""
    known = [float(value) for value in commit.figures.get("validation", [])]
    if len(training.validation_recall) or not any(known):
        return training
    steps = float(commit.figures.get("steps", len(known)))
    at = np.round(np.arange(1, len(known) + 1) * steps / len(known))
    return Training(training.name, training.round, training.steps, at, np.array(known))


def _folder(commit: Commit) -> str | None:
    telemetry = [path for path in commit.files if path.endswith("/telemetry.jsonl")]
    return telemetry[0].rsplit("/", 1)[0] if telemetry else None


def _column(values: Iterable[Any]) -> Any:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
