"""Uplift by group of queries: the largest as a chart, all of them as rows."""

from __future__ import annotations

from typing import Any

from eval.metrics import metric_name
from jobs.report.answer import interval_text, p_text, state
from jobs.report.charts.chart import STATES, UPLIFT_TOOLTIP, Chart, category, number, spec, zero
from jobs.stages.evaluate.slice_columns import SEEN

Json = dict[str, Any]

MOST_SLICES = 24


def slices_chart(report: Json) -> Chart | None:
    """The largest slices with their uplift."""
    compared = [row for row in report["slices"] if row["against_baseline"]]
    if not compared:
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
        for row in sorted(compared, key=lambda row: -row["queries"])[:MOST_SLICES]
    ]
    look = (
        "Each row is a group of queries. A triangle is a difference that stands after the correction for the number of "
        "groups; a dot is one that chance could have made, even where its bar does not touch 0. Small groups have long bars."
    )
    if len(rows) < len(compared):
        look += f" Drawn are the {len(rows)} largest of {len(compared)} groups; the table of all groups has the others."
    if any(row["column"] == SEEN for row in report["slices"]):
        look += (
            f" {SEEN}: whether a relevant item of the query is relevant to a training query, too. A gain on these queries alone "
            "is memory of items, not a better search."
        )
    counts = {key: sum(row["state"] == STATES[key][0] for row in rows) for key in STATES}
    said = f"Gain by group of queries: {counts['better']} better, {counts['worse']} worse, {counts['open']} not proven."
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
        f"{metric_name(metric)}: gain over off the shelf by group",
        look,
        spec(said, height=24 * len(rows), data={"values": rows}, layer=_layers(metric)),
        ("group", "queries", metric_name(metric), "gain", "against off the shelf"),
        table,
    )


def _layers(metric: str) -> list[Json]:
    """The line at 0, each slice's interval, and its mean."""
    y = {"field": "slice", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 150, "domain": False}}
    # the symbol says the rest; three of them stand beside the names of the groups on a phone, too
    legend: Json = {"symbolOpacity": 1, "labelExpr": "slice(datum.label, 2)", "columnPadding": 6, "symbolSize": 60}
    colours = category("state", {words: colour for words, colour, _ in STATES.values()}, legend=legend)
    shapes = category("state", {words: shape for words, _, shape in STATES.values()}, legend=legend)
    tooltip = [
        {"field": "slice"},
        {"field": "queries", "format": ","},
        {"field": "value", "title": metric_name(metric), "format": ".3f"},
        *UPLIFT_TOOLTIP,
        {"field": "state", "title": "against off the shelf"},
    ]
    return [
        zero("x"),
        {
            "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.6, "aria": False},
            "encoding": {
                "y": y,
                "x": {
                    "field": "low",
                    "type": "quantitative",
                    "title": "gain over off the shelf, points",
                    "axis": {"tickCount": 8},
                },
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


def slice_rows(report: Json) -> list[list[Any]]:
    """Every slice as a row of the sortable table."""
    metric, rows = report["primary"], []
    for row in report["slices"]:
        change = row["against_baseline"]
        p = (change or {}).get("p_adjusted")
        rows.append(
            [
                row["column"],
                row["value"],
                f"{row['queries']:,}",
                number(row["metrics"].get(metric)),
                interval_text(change) if change else "–",
                p_text(p).removeprefix("= ") if p is not None else "–",
                STATES[state(change, metric)][0] if change else "–",
            ]
        )
    return rows
