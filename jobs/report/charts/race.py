"""The rounds of two runs over their steps: which one learns faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.metrics import metric_name
from jobs.report.charts.chart import LINES, Chart, category, number, spec

Json = dict[str, Any]


def race_chart(runs: Mapping[str, Json]) -> Chart | None:
    """The primary figure of every round of both runs, over the steps."""
    primary, rows = runs["a"]["primary"], []
    for name, run in runs.items():
        ends = {training["name"]: training["start"] + training["steps"] for training in run["training"]}
        rows += [
            {
                "run": f"{name.upper()}: {run['name']}",
                "model": model["label"],
                "at": ends.get(model["name"], 0),
                "value": model["metrics"].get(primary),
            }
            for model in run["models"]
            if model["arm"] not in ("merged", "random")
        ]
    if len(rows) < 3:
        return None
    names = list(dict.fromkeys(row["run"] for row in rows))
    looks = {"color": ("var(--random)", "var(--hard)"), "strokeDash": ([6, 4], [1, 0]), "shape": ("diamond", "circle")}
    encoding: Json = {
        "x": {"field": "at", "type": "quantitative", "title": "optimizer steps"},
        "y": {"field": "value", "type": "quantitative", "title": metric_name(primary), "scale": {"zero": False}},
        "tooltip": [{"field": "run"}, {"field": "model"}, {"field": "at", "title": "step"}, {"field": "value", "format": ".3f"}],
    }
    styled = {
        channel: category("run", dict(zip(names, values, strict=False)), legend=LINES if channel != "shape" else False)
        for channel, values in looks.items()
    }
    chart = spec(
        f"{metric_name(primary)} of both runs over the steps.",
        height=240,
        data={"values": rows},
        layer=[
            {"mark": {"type": "line"}, "encoding": encoding | {key: styled[key] for key in ("color", "strokeDash")}},
            {
                "mark": {"type": "point", "filled": True, "size": 90},
                "encoding": encoding | {key: styled[key] for key in ("color", "shape")},
            },
        ],
    )
    return Chart(
        "race",
        f"{metric_name(primary)} of both runs",
        "Each point is a round, measured on dev among all items. A run that is "
        "ahead at the same step learns faster; a longer run does not.",
        chart,
        ("run", "model", "step", metric_name(primary)),
        [[row["run"], row["model"], f"{row['at']:,.0f}", number(row["value"])] for row in rows],
    )
