"""Two runs side by side: `hardmine report A B` asks whether B's model is better than A's.

It compares query by query if both were measured on the same queries of the same data. If not, it shows their figures and
gives no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.storage.records import read_record
from cluster.storage.store import Store
from cluster.tables.tables import I64, read_parts
from eval.metrics import LOWER_IS_BETTER, metric_name
from eval.significance import compare as compare_values
from jobs.finished.before_after import before_after
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind
from jobs.report.answer import answer, certainty, interval_text, p_text, points, state
from jobs.report.changes import SHOWN, change_figures
from jobs.report.charts.chart import STATES, Chart, number
from jobs.report.charts.curves import step_rows
from jobs.report.charts.race import race_chart
from jobs.report.charts.recall import recall_chart
from jobs.report.charts.seconds import time_chart
from jobs.report.charts.training import loss_chart
from jobs.report.charts.uplift import changes_chart, uplift_charts
from jobs.report.gather import FORMAT, gather, plain

Json = dict[str, Any]
F64 = npt.NDArray[np.float64]

KEPT = (
    "name",
    "output",
    "finished",
    "written",
    "reason",
    "model",
    "primary",
    "best",
    "data",
    "confidence",
    "models",
    "training",
    "test",
    "stages",
    "settings",
    "minings",
)
ADDRESSES = ("data.corpus", "data.queries", "data.qrels", "data.folder")
SECTIONS = (
    ("answer", "Answer"),
    ("figures", "Figures"),
    ("training", "Training"),
    ("queries", "Winners and losers"),
    ("setup", "Settings"),
    ("cost", "Time"),
)


def compare(first: Store, second: Store) -> Json:
    """Everything that the comparison shows: {"a", "b": shortened results of `gather`, "metrics", "changes", "why_not", …}.

    Raises:
        ConfigError: there is no run at one of the addresses. ArtifactError: it is damaged.
    """
    runs = {name: gather(store) for name, store in (("a", first), ("b", second))}
    a, b = runs["a"], runs["b"]
    primary = a["primary"]
    result: Json = {
        "format": FORMAT,
        "kind": "compare",
        "primary": primary,
        "confidence": a["confidence"],
        "metrics": {},
        "changes": None,
        "answers": {name: answer(run)["headline"] for name, run in runs.items()},
        "different": different_settings(a, b),
        "why_not": None,
    } | {name: {key: run[key] for key in KEPT} for name, run in runs.items()}
    stores = {"a": first, "b": second}
    records = {name: RunRecord.read(store) for name, store in stores.items()}
    best = {
        name: next((model for model in records[name].models if str(model.name) == run["best"]), None)
        for name, run in runs.items()
    }
    result["why_not"] = _why_not(stores, best)
    if result["why_not"] is None:
        measured = {name: model for name, model in best.items() if model is not None}
        rows, values = _paired(stores, measured)
        compared = compare_values(values["b"], values["a"], alone=[primary], confidence=a["confidence"])
        result["metrics"] = {metric: one.as_json() for metric, one in compared.items()}
        lists = {name: _lists(stores[name], records[name], measured[name]) for name in stores}
        result["changes"] = _changes(lists, rows, values, primary)
    shown: Json = plain(result)
    return shown


def different_settings(a: Json, b: Json) -> list[Json]:
    """{"setting", "a", "b"} of the settings that differ; – if one run has no such setting.

    Settings of both runs come first. Those of one run, and the addresses of the data, which is compared by content, come last.
    """
    of_a, of_b = ({row["setting"]: row["value"] for row in run["settings"]} for run in (a, b))
    names = [name for name in dict.fromkeys([*of_a, *of_b]) if of_a.get(name) != of_b.get(name)]
    names.sort(key=lambda name: name not in of_a or name not in of_b or name in ADDRESSES)
    return [{"setting": name, "a": of_a.get(name, "–"), "b": of_b.get(name, "–")} for name in names]


def _why_not(stores: Mapping[str, Store], measured: Mapping[str, MeasuredModel | None]) -> str | None:
    """Why the two cannot be compared query by query; None: they can."""
    rows = []
    for name, model in measured.items():
        if model is None:
            return f"run {name.upper()} is not measured yet"
        rows.append(read_parts(stores[name], model.evaluation.parts("per_query"), ["query_row"])["query_row"])
    data = [read_record(store, "identity.json").get("data") for store in stores.values()]
    if data[0] != data[1]:
        return "the two runs are on different data"
    return None if rows[0].equals(rows[1]) else "the two runs were measured on different queries"


def _paired(stores: Mapping[str, Store], measured: Mapping[str, MeasuredModel]) -> tuple[I64, dict[str, dict[str, F64]]]:
    """(query rows [Q], metric -> values [Q] of each run), of the metrics that both have."""
    tables = {name: read_parts(stores[name], model.evaluation.parts("per_query")) for name, model in measured.items()}
    both = [name for name in tables["a"].column_names if name in tables["b"].column_names and name != "query_row"]
    values = {name: {metric: table[metric].to_numpy(zero_copy_only=False) for metric in both} for name, table in tables.items()}
    return tables["a"]["query_row"].to_numpy(), values


def _changes(
    lists: Mapping[str, Callable[[I64], list[Json]]], rows: I64, values: Mapping[str, Mapping[str, F64]], primary: str
) -> Json:
    """As `query_changes`, from run A's model to run B's. Args: lists: by run, a function from query rows to first results."""
    change = values["b"][primary] - values["a"][primary]
    known = np.flatnonzero(~np.isnan(change))
    moved = (change[known] * (-1 if primary in LOWER_IS_BETTER else 1)).round(9)
    order = np.argsort(moved, kind="stable")
    lost = order[moved[order] < 0][: SHOWN // 2]
    won = order[::-1][moved[order[::-1]] > 0][: SHOWN // 2]
    shown = np.concatenate([won, lost])
    first = {name: read(rows[known][shown]) for name, read in lists.items()}
    queries = [
        {
            **in_a,
            "after": in_b["after"],
            "change": float(moved[number]),
            "relevant": [one | {"after": other["after"]} for one, other in zip(in_a["relevant"], in_b["relevant"], strict=True)],
        }
        for number, in_a, in_b in zip(shown, first["a"], first["b"], strict=True)
    ]
    return change_figures(primary, moved, winners=queries[: len(won)], losers=queries[len(won) :])


def _lists(store: Store, record: RunRecord, model: MeasuredModel) -> Callable[[I64], list[Json]]:
    ingested = record.find(Kind.INGEST)
    assert ingested is not None
    return lambda rows: before_after(store, ingested, rows, model.hits, model.hits)


def render_comparison(report: Json) -> str:
    """The page of a comparison. Args: report: of `compare`."""
    from jobs.report.page import render
    from jobs.report.tables import cost_sentence

    runs = {name: report[name] for name in ("a", "b")}
    curves = {
        name: [_of_run(chart, name) for chart in (loss_chart(run), recall_chart(run)) if chart] for name, run in runs.items()
    }
    figures = {
        "race": race_chart(runs),
        "changes": changes_chart(report),
        "curves_a": curves["a"],
        "curves_b": curves["b"],
        "uplift_a": [_of_run(chart, "a") for chart in uplift_charts(runs["a"])[:1]],
        "uplift_b": [_of_run(chart, "b") for chart in uplift_charts(runs["b"])[:1]],
        "time_a": [_of_run(chart, "a") for chart in [time_chart(runs["a"])] if chart],
        "time_b": [_of_run(chart, "b") for chart in [time_chart(runs["b"])] if chart],
    }
    absent = {"training": not any(curves.values()), "queries": not report["changes"]}
    return render(
        "compare.html",
        report,
        figures,
        datasets={f"{name}-steps": step_rows(run) for name, run in runs.items()},
        sections=[pair for pair in SECTIONS if not absent.get(pair[0])],
        answer=comparison_answer(report),
        metric=metric_name(report["primary"]),
        rows=metric_rows(report),
        costs={name: cost_sentence(run) for name, run in runs.items()},
    )


def comparison_answer(report: Json) -> Json:
    """{"state", "headline", "certainty"}: is run B's model better than run A's?"""
    primary = report["primary"]
    old, new = (_kept_figures(report[name]).get(primary) for name in ("a", "b"))
    name = metric_name(primary)
    if old is None or new is None:
        return {"state": "open", "headline": "At least one of the two runs is not measured yet.", "certainty": ""}
    figures = f"{name} {old:.3f} → {new:.3f}, {points(new - old)} points"
    if report["why_not"]:
        return {
            "state": "open",
            "headline": f"No verdict: {report['why_not']}.",
            "certainty": f"Each on its own queries: {figures}. Figures of different queries cannot be compared.",
        }
    interval = report["metrics"][primary]
    change = state(interval, primary)
    if not report["changes"]["better"] + report["changes"]["worse"]:
        return {"state": "open", "headline": f"No difference: {name} is the same for every query.", "certainty": ""}
    headline = {
        "better": f"B is better: {figures}.",
        "worse": f"B is worse: {figures}.",
        "open": f"Not proven which is better: {figures}, which may be chance.",
    }[change]
    return {"state": change, "headline": headline, "certainty": certainty(report, interval, "queries of both")}


def metric_rows(report: Json) -> list[list[Any]]:
    """A row per metric: both figures, the difference with its interval, p, and the verdict."""
    rows = []
    figures = [_kept_figures(report[name]) for name in ("a", "b")]
    for metric in figures[0]:
        if metric in figures[1]:
            interval = report["metrics"].get(metric)
            rows.append(
                [
                    metric_name(metric),
                    number(figures[0][metric]),
                    number(figures[1][metric]),
                    interval_text(interval) if interval else "–",
                    p_text(interval["p_adjusted"]).removeprefix("= ") if interval else "–",
                    _verdict(interval, metric),
                ]
            )
    return rows


def _verdict(interval: Json | None, metric: str) -> str:
    """Better, worse or not proven; "no difference" where every query has the same figure."""
    if not interval:
        return "no test"
    same = interval["mean"] == interval["low"] == interval["high"] == 0
    return "no difference" if same else STATES[state(interval, metric)][0]


def _kept_figures(run: Json) -> Json:
    return next((model["metrics"] for model in run["models"] if model["name"] == run["best"]), {})


def _of_run(chart: Chart, name: str) -> Chart:
    """A chart with its run in its id, title and data, because both runs are on one page."""
    data = chart.spec["data"]
    named = {"data": {"name": f"{name}-steps"}} if data == {"name": "steps"} else {}
    return replace(chart, id=f"{name}-{chart.id}", title=f"{name.upper()}: {chart.title}", spec=chart.spec | named)
