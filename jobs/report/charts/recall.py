"""Recall over the steps of training: validations after each epoch, and the dev figure of every model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics import metric_name
from jobs.report.charts.chart import COLOURS, DASHES, LINES, Chart, category, number, spec
from jobs.report.charts.curves import ARMS, round_starts, steps_axis, trained_arms

Json = dict[str, Any]


def recall_chart(report: Json) -> Chart | None:
    """Validation recall over the steps, with the dev figure of every round."""
    name = metric_name(report["primary"])
    lines, points = _validations(report), _dev_figures(report, name)
    if not lines and len(points) < 2:
        return None
    look = (
        f"Small points: recall on a validation sample after each epoch, on fewer items, so it is higher. Large diamonds: "
        f"{name} on all items, which decides. Both should rise together; a gain on the sample alone does not carry over."
    )
    table = [
        [row["model"], row["what"], f"{row['at']:,.0f}", number(row["value"])]
        for row in sorted([*lines, *points], key=lambda row: (row["what"], row["at"]))
    ]
    said = ", ".join(f"{row['model']} {row['value']:.3f}" for row in points)
    return Chart(
        "recall",
        "Recall",
        look,
        spec(
            f"Recall over the steps; {name} on dev: {said}.",
            height=220,
            layer=_layers(report, lines, points),
            data={"name": "steps"},
        ),
        ("model", "measured", "step", "recall"),
        table,
    )


def _validations(report: Json) -> list[Json]:
    return [
        {"arm": training["arm"], "model": training["label"], "at": training["start"] + step, "value": value, "what": "validation"}
        for training in report["training"]
        for step, value in zip(training["validation"]["step"], training["validation"]["recall"], strict=True)
    ]


def _dev_figures(report: Json, name: str) -> list[Json]:
    ends = {training["name"]: training["start"] + training["steps"] for training in report["training"]}
    return [
        {
            "arm": model["arm"],
            "model": model["label"],
            "at": ends.get(model["name"], 0),
            "value": model["metrics"][report["primary"]],
            "what": f"dev {name}",
        }
        for model in report["models"]
        if model["metrics"].get(report["primary"]) is not None and model["arm"] != "merged"
    ]


def _layers(report: Json, lines: Sequence[Json], points: Sequence[Json]) -> list[Json]:
    """The validations of each training, a thin line through the mined models' dev figures, and the figures themselves."""
    x = steps_axis()
    y = {"field": "value", "type": "quantitative", "title": "recall", "scale": {"zero": False}, "axis": {"minExtent": 42}}
    legend = LINES | {"values": trained_arms(report)}
    colour, dash = (category("arm", {arm: look[arm] for arm in (*ARMS, "baseline")}, legend=legend) for look in (COLOURS, DASHES))
    tooltip = [
        {"field": "model"},
        {"field": "what", "title": "measured"},
        {"field": "at", "title": "step", "format": ",.0f"},
        {"field": "value", "format": ".3f"},
    ]
    return [
        *round_starts(report),
        {
            "data": {"values": lines},
            "mark": {"type": "line", "point": {"size": 30}},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash, "detail": {"field": "model"}, "tooltip": tooltip},
        },
        {
            "data": {"values": [point for point in points if point["arm"] != "random"]},
            "mark": {"type": "line", "color": "var(--line)", "strokeWidth": 1, "aria": False},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": points},
            "mark": {"type": "point", "filled": True, "size": 150, "shape": "diamond", "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
    ]
