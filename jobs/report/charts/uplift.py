"""Uplift over the off-the-shelf model: round by round, and query by query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics import LOWER_IS_BETTER, metric_name
from jobs.report.answer import interval_text, meaning, p_text, state
from jobs.report.charts.chart import COLOURS, HALO, SHAPES, STATES, UPLIFT_TOOLTIP, Chart, category, number, spec, zero

Json = dict[str, Any]

UPLIFTS = ("recall@3", "recall@10", "ndcg@10", "bad_top1")
"""Metrics with a chart of their uplift beside the primary one."""


def uplift_charts(report: Json) -> list[Chart]:
    """Uplift over the off-the-shelf model with its interval, round by round: the primary metric, then some others."""
    metrics = dict.fromkeys((report["primary"], *UPLIFTS))
    charts = [_uplift(report, metric) for metric in metrics]
    return [chart for chart in charts if chart][:4]


def _uplift(report: Json, metric: str) -> Chart | None:
    rows = _uplift_rows(report, metric)
    if len(rows) < 2:
        return None
    name = metric_name(metric)
    better = "Points below the line are gains." if metric in LOWER_IS_BETTER else ""
    look = f"{name}: {meaning(metric)}. {better} The bar is the {report['confidence']:.0%} interval. {_proof(rows[1:])}"
    said = "; ".join(f"{row['model']} {row['mean']:+.1f}" for row in rows[1:])
    table = [
        [
            row["model"],
            number(row["value"]),
            interval_text({end: row[end] / 100 for end in ("mean", "low", "high")}).replace(" points", "")
            if row["arm"] != "baseline"
            else "–",
            row["p"],
            row["judged"],
        ]
        for row in rows
    ]
    return Chart(
        f"uplift-{metric.replace('@', '-')}",
        f"{name}: gain over off the shelf",
        " ".join(look.split()),
        spec(
            f"Gain of {name} in points over the off-the-shelf model: {said}.",
            height=230,
            data={"values": rows},
            layer=_uplift_layers(name, [row["model"] for row in rows]),
        ),
        ("model", name, "gain, points", "p, corrected", "against off the shelf"),
        table,
    )


def _proof(rows: Sequence[Json]) -> str:
    """What the verdicts of a chart's models are, and why one may differ from what its bar looks like."""
    open_ones = [row for row in rows if row["open"]]
    if not open_ones:
        return f"{'All differences are' if len(rows) > 1 else 'The difference is'} significant."
    text = f"Hollow: not proven, chance alone could have made the difference ({', '.join(row['model'] for row in open_ones)})."
    if any(row["low"] > 0 or row["high"] < 0 for row in open_ones):
        text += " That holds although a bar does not touch 0: p is corrected for the number of figures."
    return text


def _uplift_rows(report: Json, metric: str) -> list[Json]:
    """Every model that was compared with the baseline, in points; the baseline itself at 0."""
    rows = []
    for model in report["models"]:
        change = model["against_baseline"].get(metric)
        if model["name"] == "baseline" or change:
            change = change or {"mean": 0.0, "low": 0.0, "high": 0.0}
            rows.append(
                {"model": model["label"], "arm": model["arm"], "value": model["metrics"].get(metric)}
                | {end: 100 * change[end] for end in ("mean", "low", "high")}
                | _judged(model, change, metric)
            )
    return rows


def _judged(model: Json, change: Json, metric: str) -> Json:
    """The verdict of one model: its words, its p, and whether nothing is proven."""
    if model["name"] == "baseline":
        return {"judged": "–", "p": "–", "open": False}
    found, p = state(change, metric), change.get("p_adjusted")
    return {"judged": STATES[found][0], "p": "–" if p is None else p_text(p).removeprefix("= "), "open": found == "open"}


def _uplift_layers(name: str, models: Sequence[str]) -> list[Json]:
    """The line at 0, one through the means, each interval, each mean, and its number."""
    tooltip = [
        {"field": "model", "title": "model"},
        {"field": "value", "title": name, "format": ".3f"},
        *UPLIFT_TOOLTIP,
        {"field": "p", "title": "p, corrected"},
        {"field": "judged", "title": "against off the shelf"},
    ]
    x = {
        "field": "model",
        "type": "nominal",
        "sort": list(models),
        "title": None,
        "axis": {"labelAngle": 0, "labelExpr": "split(datum.label, ' ')"},
    }
    colour, shape = category("arm", COLOURS, legend=False), category("arm", SHAPES, legend=False)
    y = {"type": "quantitative", "title": "points over off the shelf"}
    numbers = [  # above the bars, where no line runs and no number meets another
        {
            "transform": [{"filter": "datum.arm != 'baseline'"}],
            "mark": {"type": "text", "dy": -8, "aria": False} | look,
            "encoding": {"x": x, "y": y | {"field": "high"}, "text": {"field": "mean", "format": "+.1f"}},
        }
        for look in (HALO, {})
    ]
    return [
        zero("y"),
        {
            "transform": [{"filter": "datum.arm != 'random'"}],
            "mark": {"type": "line", "color": "var(--line)", "aria": False},
            "encoding": {"x": x, "y": y | {"field": "mean"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.65, "aria": False},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "size": 80, "opacity": 1, "strokeWidth": 2},
            "encoding": {
                "x": x,
                "y": y | {"field": "mean"},
                "stroke": colour,
                "fill": colour | {"condition": {"test": "datum.open", "value": "var(--sheet)"}},
                "shape": shape,
                "tooltip": tooltip,
            },
        },
        *numbers,
    ]


def _bin(row: Json) -> str:
    """A bin of the histogram: it includes the end that is farther from 0."""
    if row["low"] == row["high"]:
        return "no change"
    near, far = (row["low"], row["high"]) if row["low"] >= 0 else (row["high"], row["low"])
    side = "above" if near >= 0 and row["low"] >= 0 else "below"
    return f"{side} {near:+.1f}, to {far:+.1f}".replace("-", "−").replace("+0.0", "0").replace("−0.0", "0")


def changes_chart(report: Json) -> Chart | None:
    """How many queries got better and worse, by how much."""
    changes = report["changes"]
    if not changes or not changes["better"] + changes["worse"]:
        return None
    name = metric_name(changes["metric"])
    rows = [
        row | {"state": STATES["worse" if row["high"] <= 0 else "better"][0], "change": _bin(row)}
        for row in changes["histogram"]
        if row["low"] != row["high"]
    ]
    colours = {STATES[key][0]: STATES[key][1] for key in ("worse", "better")}
    chart = spec(
        f"Queries by change of {name}: {changes['worse']} worse, {changes['same']} the same, {changes['better']} better.",
        height=200,
        data={"values": rows},
        mark={"type": "rect", "stroke": "var(--sheet)"},
        encoding={
            "x": {
                "field": "low",
                "type": "quantitative",
                "title": f"change of {name}",
                "axis": {"format": "+.1f", "tickCount": 8},
                "scale": {"domain": [-1, 1]},
            },
            "x2": {"field": "high"},
            "y": {"field": "queries", "type": "quantitative", "title": "queries"},
            "y2": {"datum": 0},
            "color": category("state", colours),
            "tooltip": [{"field": "change"}, {"field": "queries", "format": ","}],
        },
    )
    look = (
        f"{changes['better']:,} of {changes['queries']:,} queries got better, {changes['worse']:,} got worse, "
        f"{changes['same']:,} stayed as they were (not drawn). A mean can hide a group that lost: read the losers below."
    )
    table = [[_bin(row), f"{row['queries']:,}"] for row in changes["histogram"]]
    return Chart("changes", "How many queries changed, and how much", look, chart, ("change", "queries"), table)
