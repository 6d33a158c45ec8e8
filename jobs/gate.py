"""`hardmine gate`: may the model that a run kept be shipped? From commits and a measured latency to checks and a list.

Leaves gate.json in the run's folder. Starts no Ray and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.commits import Commit
from cluster.errors import ArtifactError, ConfigError
from cluster.storage import Store
from cluster.tables import read_parts
from eval.diagnosis.evidence import Slice
from eval.gate import GateFigures, make_checks, passed, verdict
from eval.gate_settings import GateSettings
from eval.latency import Latency
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from jobs.before_after import LOWER_IS_BETTER, before_after, changed_queries
from jobs.config import put_override
from jobs.config_errors import explain
from jobs.finished_run import BASELINE, FinishedRun, open_finished
from jobs.latency import measure_latency

SECTION = "evaluation.gate."
OLD = "the run was evaluated by a version of hardmine that did not write them; run the same `hardmine run` again with this one"


@dataclass(frozen=True)
class Measured:
    """One model's commits on one split."""

    evaluation: Commit
    hits: Commit


@dataclass(frozen=True)
class Subject:
    """What is judged, against what."""

    round: int
    split: str
    model: Measured
    baseline: Measured
    notes: tuple[str, ...] = ()

    @property
    def is_baseline(self) -> bool:
        """The off-the-shelf model itself."""
        return self.round == BASELINE


class _Overridden(BaseModel):
    """The part of a configuration that a gate reads, for messages with whole keys."""

    model_config = ConfigDict(extra="forbid")

    evaluation: EvaluationSettings


def gate(store: Store, overrides: Sequence[str] = (), *, number: int | None = None, latency: bool = True) -> dict[str, Any]:
    """Judge a finished run; returns what gate.json holds.

    Args:
        overrides: evaluation.gate.key=value, over what the run's run.json says.
        number: the round to judge, -1 the off-the-shelf model; None: the one that was kept.
        latency: measure how long a query takes.

    Raises:
        ConfigError: no finished run, no such round, or a setting or metric that does not exist.
        ArtifactError: something of the run is missing or damaged.
    """
    run = open_finished(store)
    evaluation = read_settings(run, overrides)
    settings = evaluation.gate
    subject = choose(run, number)
    metrics, gains = _figures(run, subject, evaluation)
    found, told, missing = _latency(run, subject, evaluation, latency)
    results = [measured.evaluation.figures.get("results") for measured in (subject.model, subject.baseline)]
    slices = subject.model.evaluation.figures.get("slices")
    if None in results:
        missing["results"] = OLD
    if slices is None:
        missing["slices"] = OLD
    general, why = _general(run, subject, evaluation.primary)
    missing |= {"general": why} if why else {}
    checks = make_checks(settings, GateFigures(
        primary=evaluation.primary, metrics=metrics, gains=gains, results=known(results[0]), baseline_results=known(results[1]),
        slices=read_slices(slices or {}), general=general, latency=found, missing=missing, is_baseline=subject.is_baseline,
        nothing_new=subject.is_baseline and number is None))
    worse = _worse(run, subject, evaluation.primary, settings.worst)
    result = {"passed": passed(checks), "verdict": verdict(checks), "output": store.root, "round": subject.round,
              "split": subject.split, "primary": evaluation.primary, "confidence": evaluation.confidence,
              "queries": subject.model.evaluation.figures["queries"], "checks": [check.as_json() for check in checks],
              "latency": told, "notes": list(subject.notes)} | worse | {"settings": settings.model_dump(mode="json")}
    store.write_json("gate.json", result)
    return result


def read_settings(run: FinishedRun, overrides: Sequence[str]) -> EvaluationSettings:
    """`[evaluation]` as run.json has it, as far as a gate reads it, with overrides of `[evaluation.gate]`.

    Raises:
        ConfigError: an override is of another section, unknown or wrong.
    """
    names = ("gate", "primary", "confidence", "resamples")
    kept = {name: run.settings["evaluation"][name] for name in names if name in run.settings.get("evaluation", {})}
    values: dict[str, Any] = {"evaluation": kept}
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith(SECTION):
            raise ConfigError(f"expected overrides of the gate's own settings, {SECTION}key=value, found {key!r}; the run is "
                              f"finished: other settings need `hardmine run`. For example {SECTION}min_recall_3=0.5")
        put_override(values, override)
    source = f"{run.store.url('run.json')}{' with overrides from the command line' if overrides else ''}"
    try:
        return _Overridden.model_validate(values).evaluation
    except ValidationError as error:
        raise ConfigError(explain(error, _Overridden, source)) from None


def choose(run: FinishedRun, number: int | None) -> Subject:
    """The round and the split to judge: the kept model, on the test split where the run looked at it.

    Raises:
        ConfigError: no such round.
    """
    best = run.best_round
    wanted = best if number is None else number
    measured = [BASELINE, *(int(row["round"]) for row in run.summary["rounds"])]
    if wanted not in measured:
        raise ConfigError(f"--round {wanted}: expected a round of this run, found {', '.join(map(str, measured))} (-1 is the "
                          f"off-the-shelf model); leave --round out for the round that was kept, {best}")
    tested = bool(run.summary.get("test"))
    if tested and wanted in (best, BASELINE):
        model = "test-best" if wanted == best else "test-baseline"
        return Subject(wanted, "test", _measured(run, model), _measured(run, "test-baseline"))
    names = ["baseline" if one == BASELINE else f"round-{one:02d}" for one in (wanted, BASELINE)]
    note = (f"judged on the dev split, as the run looked at the test split with round {best} only" if tested else
            "judged on the dev split, which also chose the round, so these figures flatter it a little; evaluation.split = "
            "\"test\" adds a look at the test split")
    return Subject(wanted, "dev", _measured(run, names[0]), _measured(run, names[1]), (note,))


def _measured(run: FinishedRun, name: str) -> Measured:
    found = Measured(run.commit(f"{name}-evaluate"), run.commit(f"{name}-hits"))
    if found.evaluation.inputs["hits"] != found.hits.key:
        raise ArtifactError(f"expected commit {name}-evaluate to be of the hits that are there, found others: another "
                            f"configuration was begun in {run.store.root}; let `hardmine run` finish, then ask again")
    return found


def _figures(run: FinishedRun, subject: Subject,
             evaluation: EvaluationSettings) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """(means, gains over the off-the-shelf model) of the metrics that have thresholds, with the run's own intervals."""
    tables = [read_parts(run.store, one.evaluation.parts("per_query")) for one in (subject.model, subject.baseline)]
    there = tables[0].column_names[1:]
    unknown = [name for name in evaluation.gate.metrics if name not in there]
    if unknown:
        raise ConfigError(f"evaluation.gate.metrics names {unknown[0]!r}, which the run did not measure; it has "
                          f"{', '.join(there)}")
    metrics, gains = {}, {}
    draw = partial(paired_bootstrap, resamples=evaluation.resamples, confidence=evaluation.confidence)
    for name in dict.fromkeys([evaluation.primary, "recall@3", "ndcg@10", "bad_top1", *evaluation.gate.metrics]):
        if name not in there:
            continue
        now, was = (table[name].to_numpy() for table in tables)
        metrics[name] = draw(now, np.zeros_like(now))
        if not subject.is_baseline:
            gains[name] = draw(was, now) if name in LOWER_IS_BETTER else draw(now, was)
    return metrics, gains


def _latency(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings,
             wanted: bool) -> tuple[Latency | None, dict[str, Any] | None, dict[str, str]]:
    settings = evaluation.gate
    if subject.is_baseline or (settings.max_added_ms is None and settings.max_added_p95 is None):
        return None, None, {}
    if not wanted:
        return None, None, {"latency": "--no-latency was given"}
    rows = read_parts(run.store, subject.model.evaluation.parts("per_query"), ["query_row"])["query_row"].to_numpy()
    found, told = measure_latency(run, subject.round, rows, pairs=settings.latency_queries, confidence=evaluation.confidence)
    missing = {} if found.p95_increase else {"latency:p95": "the off-the-shelf model is not part of the run, so there is no time "
                                                            "to compare with"}
    return found, told, missing


def known(figures: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers among some figures."""
    return {name: float(value) for name, value in (figures or {}).items() if isinstance(value, int | float)}


def read_slices(columns: Mapping[str, Any]) -> list[Slice]:
    """The slices of an evaluation's figures; of those without a comparison too."""
    found = []
    for column, block in columns.items():
        for one in block["slices"]:
            change = one.get("against_baseline")
            interval = Interval(change["mean"], change["low"], change["high"], one["queries"]) if change else None
            found.append(Slice(column, str(one["value"]), int(one["queries"]), known(one["metrics"]), interval,
                               bool(change and change.get("significant"))))
    return found


def _general(run: FinishedRun, subject: Subject, primary: str) -> tuple[Interval | None, str | None]:
    """(change of the primary figure on the general set, why it is not known); both None: there is no general set."""
    if not run.setting("evaluation", "general", None):
        return None, None
    name = f"round-{subject.round:02d}-general"
    if name not in run.commits:
        return None, f"there is no commit {name}"
    change = (run.commits[name].figures.get("against_baseline") or {}).get(primary)
    if change is None:
        return None, f"commit {name} does not compare {primary} with the off-the-shelf model"
    return Interval(change["mean"], change["low"], change["high"], change["queries"]), None


def _worse(run: FinishedRun, subject: Subject, primary: str, count: int) -> dict[str, Any]:
    """How many queries changed, and those that lost most with their first hits under both models."""
    if subject.is_baseline:
        return {"better_total": 0, "worse_total": 0, "worse": []}
    rows, change = changed_queries(run.store, subject.baseline.evaluation, subject.model.evaluation, primary)
    lost = int((change < 0).sum())
    shown = min(lost, count)
    sides = before_after(run.store, run.commit("ingest"), rows[:shown], subject.baseline.hits, subject.model.hits)
    return {"better_total": int((change > 0).sum()), "worse_total": lost,
            "worse": [{"change": round(float(value), 6)} | side for value, side in zip(change[:shown], sides, strict=True)]}
