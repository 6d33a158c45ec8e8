"""The figures that a gate reads: from a run's commits, and the latency that is measured now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.tables import read_parts
from eval.figures import numbers, read_interval, read_slices
from eval.gate import GateFigures
from eval.gate_settings import GateSettings
from eval.latency import Latency
from eval.metrics import LOWER_IS_BETTER
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from jobs.finished.finished_run import FinishedRun
from jobs.finished.gate.latency import measure_latency
from jobs.finished.gate.subject import Subject

OLD = "the run was evaluated by a version of hardmine that did not write them; run the same `hardmine run` again with this one"
NO_BASE = "the off-the-shelf model is not part of the run, so there is no time to compare with"


def gather(
    run: FinishedRun, subject: Subject, evaluation: EvaluationSettings, *, latency: bool
) -> tuple[GateFigures, dict[str, Any] | None]:
    """(figures for the checks, what the latency was measured on; None: it was not).

    Args:
        latency: measure it.

    Raises:
        ConfigError: evaluation.gate.metrics names a metric that was not measured.
    """
    found, told, missing = _latency(run, subject, evaluation, latency)
    evaluated = [measured.evaluation.figures for measured in (subject.model, subject.baseline)]
    results = [figures.get("results") for figures in evaluated]
    if None in results:
        missing["results"] = OLD
    if "slices" not in evaluated[0]:
        missing["slices"] = OLD
    general, why = _general(run, subject, evaluation.primary)
    missing |= {"general": why} if why else {}
    return GateFigures(
        primary=evaluation.primary,
        metrics=_metrics(run, subject, evaluation),
        gains=_gains(run, subject, evaluation),
        results=numbers(results[0] or {}),
        baseline_results=numbers(results[1] or {}),
        slices=read_slices(evaluated[0].get("slices", {})),
        general=general,
        latency=found,
        missing=missing,
        is_baseline=subject.is_baseline,
    ), told


def _metrics(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings) -> dict[str, Interval]:
    """The means that have a threshold, with intervals drawn like those of the evaluation."""
    gate = evaluation.gate
    wanted = {"recall@3": gate.min_recall_3, "ndcg@10": gate.min_ndcg_10, "bad_top1": gate.max_bad_top1} | {
        name: one.max if one.min is None else one.min for name, one in gate.metrics.items()
    }
    table = read_parts(run.store, subject.model.evaluation.parts("per_query"))
    there = table.column_names[1:]
    _refuse_unknown(gate, there)
    found = {}
    for name, threshold in wanted.items():
        if threshold is not None and name in there:
            values = table[name].to_numpy()
            found[name] = paired_bootstrap(
                values, np.zeros_like(values), resamples=evaluation.resamples, confidence=evaluation.confidence
            )
    return found


def _refuse_unknown(gate: GateSettings, there: list[str]) -> None:
    unknown = [name for name in gate.metrics if name not in there]
    if unknown:
        raise ConfigError(
            f"evaluation.gate.metrics names {unknown[0]!r}, which the run did not measure; it has {', '.join(there)}"
        )


def _gains(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings) -> dict[str, Interval]:
    """What the metrics with such a threshold are better by: as the evaluation says, or drawn like that."""
    gate = evaluation.gate
    if subject.is_baseline:
        return {}
    wanted = {evaluation.primary: gate.min_gain} | {
        name: one.min_gain for name, one in gate.metrics.items() if one.min_gain is not None
    }
    compared = subject.model.evaluation.figures.get("against_baseline", {})
    found = {}
    for name in [name for name, threshold in wanted.items() if threshold is not None]:
        if name in compared:
            change = read_interval(compared[name])
        else:
            now, was = (
                read_parts(run.store, one.evaluation.parts("per_query"), [name])[name].to_numpy()
                for one in (subject.model, subject.baseline)
            )
            change = paired_bootstrap(now, was, resamples=evaluation.resamples, confidence=evaluation.confidence)
        found[name] = Interval(-change.mean, -change.high, -change.low, change.queries) if name in LOWER_IS_BETTER else change
    return found


def _latency(
    run: FinishedRun, subject: Subject, evaluation: EvaluationSettings, wanted: bool
) -> tuple[Latency | None, dict[str, Any] | None, dict[str, str]]:
    gate = evaluation.gate
    if subject.is_baseline or (gate.max_added_ms is None and gate.max_added_p95 is None):
        return None, None, {}
    if not wanted:
        return None, None, {"latency": "--no-latency was given"}
    rows = read_parts(run.store, subject.model.evaluation.parts("per_query"), ["query_row"])["query_row"].to_numpy()
    found, told = measure_latency(run, subject.round, rows, pairs=gate.latency_queries, confidence=evaluation.confidence)
    return found, told, {} if found.p95_increase else {"latency:p95": NO_BASE}


def _general(run: FinishedRun, subject: Subject, primary: str) -> tuple[Interval | None, str | None]:
    """(change of the primary figure on the general set, why it is not known); both None: there is no general set."""
    if not run.setting("evaluation", "general", None) or subject.is_baseline:
        return None, None
    row: Mapping[str, Any] = next((row for row in run.summary["rounds"] if row["round"] == subject.round), {})
    change = ((row.get("general") or {}).get("against_baseline") or {}).get(primary)
    if change is None:
        return None, f"{primary} of round {subject.round} was not measured on the general set; run the same `hardmine run` again"
    return read_interval(change), None
