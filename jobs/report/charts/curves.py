"""What charts over the steps of training share: the axis, a line per training, where each begins, the table below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.report.charts.chart import COLOURS, DASHES, LINES, category, number, share, thinned

Json = dict[str, Any]

ARMS = ("warm-up", "mined", "random")
SMOOTHING = 40
"""A curve is drawn as a running mean over a twentieth of its points; the points themselves stand thin behind it."""
HOVER = 50
"""Points of one training that answer to the pointer."""


def step_rows(report: Json) -> Json:
    """{"columns", "rows"}: every point of every training's curves, `at` counting from the start of its line of models."""
    names = sorted({name for training in report["training"] for name in training["curves"]} - {"step"})
    rows = []
    for training in report["training"]:
        curves = training["curves"]
        size = len(curves.get("step", ()))
        every = max(1, round(size / HOVER))
        for place in range(size):
            rows.append(
                [
                    training["arm"],
                    training["label"],
                    training["start"] + curves["step"][place],
                    int(place % every == 0 or place == size - 1),
                    *(_short(curves[name][place]) if name in curves else None for name in names),
                ]
            )
    return {"columns": ["arm", "model", "at", "hover", *names], "rows": rows}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def steps_axis() -> Json:
    """Optimizer steps, from the start of the line of models."""
    return {"field": "at", "type": "quantitative", "title": "optimizer steps", "scale": {"nice": False}, "axis": {"tickCount": 8}}


def step_lines(report: Json, column: str, title: str | None, form: str, *, log: bool = False) -> list[Json]:
    """A line per training, and points that answer to the pointer."""
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    named = {"title": f"{title or ''} (log scale)".strip() if log else title}
    y = (
        {"field": column, "type": "quantitative", "scale": scale}
        | named
        | {"axis": {"minExtent": 42, "format": "%" if "%" in form else ",~r", "tickCount": 6}}
    )
    colour = category("arm", {arm: COLOURS[arm] for arm in trained_arms(report)}, legend=LINES)
    dash = category("arm", {arm: DASHES[arm] for arm in trained_arms(report)}, legend=LINES)
    tooltip = [
        {"field": "model"},
        {"field": "at", "title": "step", "format": ",.0f"},
        {"field": column, "format": form, "title": column.replace("_", " ")},
    ]
    hover = {"name": "hover", "select": {"type": "point", "nearest": True, "on": "pointermove", "clear": "pointerout"}}
    each = max(len(training["curves"].get("step", ())) for training in report["training"]) // SMOOTHING
    smooth = {"window": [{"op": "mean", "field": column, "as": "smooth"}], "groupby": ["model"], "frame": [-each, each]}
    return [
        {
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.28, "aria": False},
            "encoding": {"x": steps_axis(), "y": y, "color": colour, "detail": {"field": "model"}},
        },
        {
            "transform": [smooth],
            "mark": {"type": "line"},
            "encoding": {
                "x": steps_axis(),
                "y": y | {"field": "smooth"},
                "color": colour,
                "strokeDash": dash,
                "detail": {"field": "model"},
            },
        },
        {
            "transform": [{"filter": "datum.hover"}],
            "params": [hover],
            "mark": {"type": "point", "filled": True, "size": 60, "aria": False},
            "encoding": {
                "x": steps_axis(),
                "y": y,
                "color": colour,
                "tooltip": tooltip,
                "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0},
            },
        },
    ]


def round_starts(report: Json, arms: Sequence[str] = ("warm-up", "mined"), *, labels: bool = True) -> list[Json]:
    """Where each training starts, with its name."""
    starts = [{"at": training["start"], "model": training["label"]} for training in report["training"] if training["arm"] in arms]
    rule = {
        "data": {"values": starts},
        "mark": {"type": "rule", "color": "var(--line)", "strokeDash": [1, 3], "aria": False},
        "encoding": {"x": steps_axis()},
    }
    text = {
        "data": {"values": starts},
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "top",
            "dx": 4,
            "y": -14,
            "color": "var(--muted)",
            "fontSize": 11,
            "aria": False,
        },
        "encoding": {"x": steps_axis(), "text": {"field": "model"}},
    }
    return [rule, text] if labels else [rule]


def trained_arms(report: Json) -> list[str]:
    """The lines of models that were trained."""
    return [arm for arm in ARMS if any(training["arm"] == arm for training in report["training"])]


def steep(report: Json, column: str) -> bool:
    """Whether a curve spans so much that all but its beginning would lie flat on the axis."""
    values = sorted(value for training in report["training"] for value in training["curves"].get(column, ()) if value is not None)
    return bool(values) and values[0] > 0 and "share" not in column and values[-1] > 6 * values[len(values) // 2] > 0


def has_figures(report: Json, column: str) -> bool:
    """Whether a curve has a figure to show; a kind of negative that never carries anything has none."""
    values = (value for training in report["training"] for value in training["curves"].get(column, ()))
    return any(value is not None and (value or "share" not in column) for value in values)


def described(report: Json, column: str, title: str, arm: str | None = None) -> str:
    """ "Training loss: warm-up 2.1 to 0.7, round 1 0.6 to 0.5."."""
    parts = []
    for training in report["training"]:
        values = [value for value in training["curves"].get(column, ()) if value is not None]
        if values and arm in (None, training["arm"]):
            parts.append(f"{training['label']} {values[0]:.3g} to {values[-1]:.3g}")
    return f"{title}: {', '.join(parts)}."


def curve_table(
    report: Json, columns: Sequence[str], heads: Sequence[str], arms: Sequence[str] = ARMS
) -> tuple[tuple[str, ...], list[list[Any]]]:
    """(heads, rows) of curves: some evenly spaced points of each training."""
    rows: list[list[Any]] = []
    each = max(6, 24 // max(1, len(report["training"])))
    for training in report["training"]:
        curves = training["curves"]
        if training["arm"] in arms and any(column in curves for column in columns):
            for place in thinned(range(len(curves["step"])), each):
                rows.append(
                    [
                        training["label"],
                        f"{training['start'] + curves['step'][place]:,.0f}",
                        *(_cell(column, curves[column][place]) if column in curves else "–" for column in columns),
                    ]
                )
    return ("model", "step", *heads), rows


def _cell(column: str, value: float | None) -> str:
    return share(value) if column.startswith("gradient_share") or column == "dead_negatives" else number(value)
