"""The figures that a gate reads: from a run's commits, and the latency that is measured now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.tables.tables import read_parts
from eval.figures import numbers, read_interval, read_slices
from eval.gate.figures import GateFigures
from eval.gate.latency import Latency
from eval.gate.settings import BARS, GateSettings
from eval.metrics import LOWER_IS_BETTER
from eval.settings import EvaluationSettings
from eval.significance import Comparison, Interval, compare, paired_bootstrap
from jobs.finished.finished_run import FinishedRun
from jobs.finished.gate.latency import measure_latency
from jobs.finished.gate.subject import Subject
from jobs.record.stages import BASELINE, Kind

F64 = npt.NDArray[np.float64]
OLD = "the run was evaluated by a version of hardmine that did not write them; run the same `hardmine run` again with this one"
NO_BASE = "the off-the-shelf model is not part of the run, so there is no time to compare with"


def gather(
    run: FinishedRun, subject: Subject, evaluation: EvaluationSettings, *, without_latency: str | None
) -> tuple[GateFigures, dict[str, Any] | None]:
    """(figures for the checks, what the latency was measured on; None: it was not).

    Args:
        without_latency: why the latency is not measured; None: it is.

    Raises:
        ConfigError: evaluation.gate.metrics names a metric that was not measured.
    """
    measured_latency, timed, missing = _latency(run, subject, evaluation, without_latency)
    evaluated = [measured.evaluation.figures for measured in (subject.model, subject.baseline)]
    results = [figures.get("results") for figures in evaluated]
    if None in results:
        missing["results"] = OLD
    if "slices" not in evaluated[0]:
        missing["slices"] = OLD
    general, why = _general(run, subject, evaluation.primary)
    gains = _gains(run, subject, evaluation)
    missing |= {"general": why} if why else {}
    return GateFigures(
        primary=evaluation.primary,
        metrics=_metrics(run, subject, evaluation),
        gains={name: gain.interval for name, gain in gains.items()},
        not_significant={name: gain.p_adjusted for name, gain in gains.items() if not gain.significant},
        worse=_worse(subject),
        attainable=numbers(evaluated[0].get("attainable") or {}),
        results=numbers(results[0] or {}),
        baseline_results=numbers(results[1] or {}),
        slices=read_slices(evaluated[0].get("slices", {})),
        general=general,
        latency=measured_latency,
        missing=missing,
        is_baseline=subject.is_baseline,
    ), timed


def _metrics(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings) -> dict[str, Interval]:
    """The means that may have a threshold, with intervals drawn like those of the evaluation."""
    table = read_parts(run.store, subject.model.evaluation.parts("per_query"))
    measured = table.column_names[1:]
    _refuse_unknown(evaluation.gate, measured)
    wanted = {evaluation.primary, *BARS[evaluation.gate.bar], *evaluation.gate.metrics}
    figures = {}
    for name in [name for name in measured if name in wanted]:
        values = table[name].to_numpy()
        figures[name] = _compared(values, np.zeros_like(values), evaluation)
    return figures


def _compared(values: F64, others: F64, evaluation: EvaluationSettings) -> Interval:
    """The difference with its interval; of no query, what the checks refuse."""
    if not np.isfinite(values - others).any():
        return Interval(math.nan, math.nan, math.nan, 0)
    return paired_bootstrap(values, others, resamples=evaluation.resamples, confidence=evaluation.confidence)


def _refuse_unknown(gate: GateSettings, measured: list[str]) -> None:
    unknown = [name for name in gate.metrics if name not in measured]
    if unknown:
        raise ConfigError(
            f"evaluation.gate.metrics names {unknown[0]!r}, which the run did not measure; it has {', '.join(measured)}"
        )


def _gains(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings) -> dict[str, Comparison]:
    """What the metrics with such a threshold are better by: as the evaluation says, or compared like that."""
    if subject.is_baseline:
        return {}
    wanted = {evaluation.primary} | {name for name, one in evaluation.gate.metrics.items() if one.min_gain is not None}
    compared = subject.model.change("baseline")
    gains = {}
    for name in wanted:
        if name in compared:
            told = compared[name]
            gain = Comparison(read_interval(told), told["p"], told["p_adjusted"], told["significant"])
        else:
            gain = _compared_now(run, subject, name, evaluation)
        change = gain.interval
        turned = Interval(-change.mean, -change.high, -change.low, change.queries) if name in LOWER_IS_BETTER else change
        gains[name] = replace(gain, interval=turned)
    return gains


def _compared_now(run: FinishedRun, subject: Subject, name: str, evaluation: EvaluationSettings) -> Comparison:
    """A metric that the evaluation did not compare, as it would have."""
    now, was = (
        read_parts(run.store, one.evaluation.parts("per_query"), [name])[name].to_numpy()
        for one in (subject.model, subject.baseline)
    )
    if not np.isfinite(now - was).any():
        return Comparison(Interval(math.nan, math.nan, math.nan, 0), 1.0, 1.0, significant=False)
    resamples, confidence = evaluation.resamples, evaluation.confidence
    return compare({name: now}, {name: was}, alone=[name], resamples=resamples, confidence=confidence)[name]


def _worse(subject: Subject) -> list[str] | None:
    """The metrics that are significantly worse than off the shelf; None: nothing is compared with that."""
    compared = {name: change for name, change in subject.model.change("baseline").items() if isinstance(change, Mapping)}
    if not compared:
        return None
    return [name for name, one in compared.items() if one["significant"] and (one["mean"] < 0) != (name in LOWER_IS_BETTER)]


def _latency(
    run: FinishedRun, subject: Subject, evaluation: EvaluationSettings, without: str | None
) -> tuple[Latency | None, dict[str, Any] | None, dict[str, str]]:
    gate = evaluation.gate
    if subject.is_baseline or (gate.max_added_ms is None and gate.max_added_p95 is None):
        return None, None, {}
    if without is not None:
        return None, None, {"latency": without}
    rows = read_parts(run.store, subject.model.evaluation.parts("per_query"), ["query_row"])["query_row"].to_numpy()
    if not len(rows):
        return None, None, {"latency": "no query was evaluated"}
    if subject.round == BASELINE.round and "prefix" not in run.commit(Kind.BASE).figures:
        return None, None, {"latency": "the data's own vectors are the retriever, whose time is not known here"}
    latency, timed = measure_latency(run, subject.round, rows, confidence=evaluation.confidence)
    if subject.reranking is not None:
        latency, timed = _with_reranker(latency, timed, subject.reranking)
    return latency, timed, {} if latency.p95_increase else {"latency:p95": NO_BASE}


def _with_reranker(latency: Latency, timed: dict[str, Any], table: Mapping[str, Any]) -> tuple[Latency, dict[str, Any]]:
    """The same with the time of re-ranking, as the run measured it, on top. 95th percentiles are added: the worst case."""
    depth = max(table["speed"]["p50_ms"], key=int)
    p50, p95 = (float(table["speed"][name][depth]) for name in ("p50_ms", "p95_ms"))
    added, increase = latency.added_ms, latency.p95_increase
    share = p95 / latency.base_p95 if latency.base_p95 else 0.0
    both = replace(
        latency,
        model_p50=latency.model_p50 + p50,
        model_p95=latency.model_p95 + p95,
        added_ms=replace(added, mean=added.mean + p50, low=added.low + p50, high=added.high + p50),
        p95_increase=increase
        and replace(increase, mean=increase.mean + share, low=increase.low + share, high=increase.high + share),
    )
    what = f"{timed['what']}; and {depth} candidates re-ranked, as the run measured on {table['speed']['where']}"
    return both, timed | {"what": what} | asdict(both)


def _general(run: FinishedRun, subject: Subject, primary: str) -> tuple[Interval | None, str | None]:
    """(change of the primary figure on the general set, why it is not known); both None: there is no general set."""
    if not run.setting("evaluation", "general", None) or subject.is_baseline:
        return None, None
    if subject.reranking is not None:
        return None, "a re-ranker is not measured on the general set"
    row: Mapping[str, Any] = next((row for row in run.summary["rounds"] if row["round"] == subject.round), {})
    change = ((row.get("general") or {}).get("against_baseline") or {}).get(primary)
    if change is None:
        return None, f"{primary} of round {subject.round} was not measured on the general set; run the same `hardmine run` again"
    return read_interval(change), None
