"""Charts about what came out: uplift per round, changes query by query, slices, time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics import LOWER_IS_BETTER, metric_name
from jobs.report.answer import interval_text, meaning, p_text, state
from jobs.report.chart import COLOURS, HALO, SHAPES, STATES, Chart, category, number, spec, zero

Json = dict[str, Any]

UPLIFTS = ("recall@3", "recall@10", "ndcg@10", "bad_top1")
"""Metrics with a chart of their uplift beside the primary one."""
MOST_SLICES = 24
STAGES = {
    "train": "var(--hard)",
    "embed": "var(--batch)",
    "search": "var(--positive)",
    "mine": "var(--cross)",
    "evaluate": "var(--random)",
    "overhead": "var(--warm)",
}


def uplift_charts(report: Json) -> list[Chart]:
    """Uplift over the off-the-shelf model with its interval, round by round: the primary metric, then some others."""
    metrics = dict.fromkeys((report["primary"], *UPLIFTS))
    charts = [_uplift(report, metric) for metric in metrics]
    return [chart for chart in charts if chart][:4]


def _uplift(report: Json, metric: str) -> Chart | None:
    rows = []
    for model in report["models"]:
        found = model["against_baseline"].get(metric)
        if model["name"] == "baseline" or found:
            found = found or {"mean": 0.0, "low": 0.0, "high": 0.0}
            rows.append(
                {"model": model["label"], "arm": model["arm"], "value": model["metrics"].get(metric)}
                | {end: 100 * found[end] for end in ("mean", "low", "high")}
                | {"judged": "start" if model["name"] == "baseline" else STATES[state(found, metric)][0]}
            )
    if len(rows) < 2:
        return None
    name = metric_name(metric)
    tooltip = [
        {"field": "model", "title": "model"},
        {"field": "value", "title": name, "format": ".3f"},
        *(
            {"field": end, "title": title, "format": "+.1f"}
            for end, title in (("mean", "uplift, points"), ("low", "interval from"), ("high", "to"))
        ),
        {"field": "judged", "title": "verdict"},
    ]
    x = {
        "field": "model",
        "type": "nominal",
        "sort": [row["model"] for row in rows],
        "title": None,
        "axis": {"labelAngle": 0, "labelExpr": "split(datum.label, ' ')"},
    }
    colour, shape = category("arm", COLOURS, legend=False), category("arm", SHAPES, legend=False)
    y = {"type": "quantitative", "title": "points over off the shelf"}
    last = f"datum.model == '{rows[-1]['model']}'"
    layers = [
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
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": x, "y": y | {"field": "mean"}, "color": colour, "shape": shape, "tooltip": tooltip},
        },
        *(
            {
                "transform": [{"filter": "datum.arm != 'baseline'"}],
                "mark": {
                    "type": "text",
                    "align": {"expr": f"{last} ? 'right' : 'left'"},
                    "dx": {"expr": f"{last} ? -7 : 7"},
                    "dy": -9,
                    "aria": False,
                }
                | look,
                "encoding": {"x": x, "y": y | {"field": "mean"}, "text": {"field": "mean", "format": "+.1f"}},
            }
            for look in (HALO, {})
        ),
    ]
    better = "Points below the line are gains." if metric in LOWER_IS_BETTER else ""
    look = (
        f"{name}: {meaning(metric)}. {better} The bar is the {report['confidence']:.0%} interval: where it touches the "
        "line at 0, chance alone could have made the difference."
    )
    said = "; ".join(f"{row['model']} {row['mean']:+.1f}" for row in rows[1:])
    table = [
        [
            row["model"],
            number(row["value"]),
            interval_text({end: row[end] / 100 for end in ("mean", "low", "high")}) if row["arm"] != "baseline" else "–",
            row["judged"],
        ]
        for row in rows
    ]
    return Chart(
        f"uplift-{metric.replace('@', '-')}",
        f"{name} over the model you started from",
        " ".join(look.split()),
        spec(
            f"Uplift of {name} in points over the off-the-shelf model: {said}.", height=230, data={"values": rows}, layer=layers
        ),
        ("model", name, "uplift and interval", "verdict"),
        table,
    )


def changes_chart(report: Json) -> Chart | None:
    """How many queries got better and worse, by how much."""
    changes = report["changes"]
    if not changes or not changes["better"] + changes["worse"]:
        return None
    name = metric_name(changes["metric"])
    rows = [
        row | {"state": STATES["worse" if row["high"] <= 0 else "better"][0]}
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
            "tooltip": [
                {"field": "low", "title": "from", "format": "+.2f"},
                {"field": "high", "title": "to", "format": "+.2f"},
                {"field": "queries", "format": ","},
            ],
        },
    )
    look = (
        f"{changes['better']:,} of {changes['queries']:,} queries got better, {changes['worse']:,} got worse, "
        f"{changes['same']:,} stayed as they were (not drawn). A mean can hide a group that lost: read the losers below."
    )
    table = [
        [f"{row['low']:+.1f} to {row['high']:+.1f}" if row["low"] != row["high"] else "no change", f"{row['queries']:,}"]
        for row in changes["histogram"]
    ]
    return Chart("changes", "How many queries changed, and how much", look, chart, ("change", "queries"), table)


def slices_chart(report: Json) -> Chart | None:
    """The largest slices with their uplift."""
    found = [row for row in report["slices"] if row["against_baseline"]]
    if not found:
        return None
    metric = report["primary"]
    rows = [
        {
            "slice": f"{row['column']}: {row['value']}",
            "queries": row["queries"],
            "value": row["metrics"].get(metric),
            "state": STATES[state(row["against_baseline"], metric)][0],
        }
        | {end: 100 * row["against_baseline"][end] for end in ("mean", "low", "high")}
        for row in sorted(found, key=lambda row: -row["queries"])[:MOST_SLICES]
    ]
    y = {"field": "slice", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 150, "domain": False}}
    # the symbol says the rest; three of them stand beside the names of the groups on a phone, too
    legend: Json = {"symbolOpacity": 1, "labelExpr": "slice(datum.label, 2)", "columnPadding": 6, "symbolSize": 60}
    colours = category("state", {words: colour for words, colour, _ in STATES.values()}, legend=legend)
    shapes = category("state", {words: shape for words, _, shape in STATES.values()}, legend=legend)
    tooltip = [
        {"field": "slice"},
        {"field": "queries", "format": ","},
        {"field": "value", "title": metric_name(metric), "format": ".3f"},
        *(
            {"field": end, "title": title, "format": "+.1f"}
            for end, title in (("mean", "uplift, points"), ("low", "interval from"), ("high", "to"))
        ),
        {"field": "state", "title": "verdict"},
    ]
    layers = [
        zero("x"),
        {
            "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.6, "aria": False},
            "encoding": {
                "y": y,
                "x": {"field": "low", "type": "quantitative", "title": "uplift, points", "axis": {"tickCount": 8}},
                "x2": {"field": "high"},
                "color": colours,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {
                "y": y,
                "x": {"field": "mean", "type": "quantitative"},
                "color": colours,
                "shape": shapes,
                "tooltip": tooltip,
            },
        },
    ]
    look = (
        "Each row is a group of queries. A triangle is a difference that stands after the correction for the number of "
        "groups; a dot is one that chance could have made. Small groups have long bars."
    )
    counts = {key: sum(row["state"] == STATES[key][0] for row in rows) for key in STATES}
    said = f"Uplift by group of queries: {counts['better']} better, {counts['worse']} worse, {counts['open']} not proven."
    table = [
        [
            row["slice"],
            f"{row['queries']:,}",
            number(row["value"]),
            interval_text({end: row[end] / 100 for end in ("mean", "low", "high")}),
            row["state"],
        ]
        for row in rows
    ]
    return Chart(
        "slices",
        f"Uplift of {metric_name(metric)} by group",
        look,
        spec(said, height=24 * len(rows), data={"values": rows}, layer=layers),
        ("group", "queries", metric_name(metric), "uplift", "verdict"),
        table,
    )


def slice_rows(report: Json) -> list[list[Any]]:
    """Every slice as a row of the sortable table."""
    metric, rows = report["primary"], []
    for row in report["slices"]:
        found = row["against_baseline"]
        p = (found or {}).get("p_adjusted")
        rows.append(
            [
                row["column"],
                row["value"],
                f"{row['queries']:,}",
                number(row["metrics"].get(metric)),
                interval_text(found) if found else "–",
                p_text(p).removeprefix("= ") if p is not None else "–",
                STATES[state(found, metric)][0] if found else "–",
            ]
        )
    return rows


def time_chart(report: Json) -> Chart | None:
    """Seconds of each round by kind of work."""
    rows = [
        {"model": model["label"], "stage": stage, "seconds": seconds, "order": place}
        for model in report["models"]
        for place, stage in enumerate(STAGES)
        if (seconds := (model["seconds"] or {}).get(stage))
    ]
    if not rows:
        return None
    labels = list(dict.fromkeys(row["model"] for row in rows))
    chart = spec(
        f"Seconds per round by kind of work: {_said(rows, labels)}.",
        height=34 * len(labels),
        data={"values": rows},
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "y": {"field": "model", "type": "nominal", "sort": labels, "title": None, "axis": {"domain": False}},
            "x": {"field": "seconds", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 8}},
            "order": {"field": "order"},
            "color": category("stage", STAGES),
            "tooltip": [{"field": "model"}, {"field": "stage"}, {"field": "seconds", "format": ",.1f"}],
        },
    )
    table = [[label, *(number(_sum(rows, label, stage), 1) for stage in STAGES)] for label in labels]
    look = (
        "Overhead is start-up of workers and writing of results. Where it is most of a bar the data is small, and a longer "
        "training costs little more."
    )
    return Chart("time", "Where the time went", look, chart, ("round", *STAGES), table)


def _sum(rows: Sequence[Json], label: str, stage: str) -> float:
    return float(sum(row["seconds"] for row in rows if row["model"] == label and row["stage"] == stage))


def _said(rows: Sequence[Json], labels: Sequence[str]) -> str:
    return ", ".join(f"{label} {sum(row['seconds'] for row in rows if row['model'] == label):,.0f}" for label in labels)
