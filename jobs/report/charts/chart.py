"""A chart of the report: a Vega-Lite specification, what to look for, and a table of the same figures. Pure values.

Colours are CSS variables: only the style sheet of the page knows light, dark and print. Whatever a chart says by colour, it
also says by shape, dash, position or word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

MOST_ROWS = 24
"""Rows of the table below a curve."""

CONFIG: Json = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "top",
        "direction": "horizontal",
        "title": None,
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "symbolSize": 110,
        "symbolStrokeWidth": 2.5,
        "columnPadding": 14,
        "labelLimit": 220,
        "offset": 8,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "line": {"strokeWidth": 2},
    "bar": {"cornerRadius": 2},
}
"""Shared by all charts; the page passes it to Vega-Lite once."""

COLOURS = {
    "mined": "var(--hard)",
    "merged": "var(--hard)",
    "warm-up": "var(--warm)",
    "random": "var(--random)",
    "baseline": "var(--warm)",
}
DASHES = {"mined": [1, 0], "merged": [1, 0], "warm-up": [2, 2], "random": [6, 4], "baseline": [1, 0]}
LINES: Json = {"symbolType": "stroke", "symbolOpacity": 1, "offset": 20}
"""Legend of line charts, above the names of the rounds."""
HALO: Json = {"stroke": "var(--sheet)", "strokeWidth": 4, "color": "var(--sheet)"}
"""Drawn below a text in the colour of the background, so that no line crosses the text."""
SHAPES = {"mined": "circle", "merged": "triangle-up", "warm-up": "square", "random": "diamond", "baseline": "circle"}
STATES = {
    "better": ("▲ better", "var(--better)", "triangle-up"),
    "worse": ("▼ worse", "var(--worse)", "triangle-down"),
    "open": ("● not proven", "var(--open)", "circle"),
}
"""State of a difference -> (words, colour, shape)."""
UPLIFT_TOOLTIP = [
    {"field": end, "title": title, "format": "+.1f"}
    for end, title in (("mean", "gain, points"), ("low", "interval from"), ("high", "to"))
]
"""A difference in points with its interval, as it answers to the pointer."""


@dataclass(frozen=True)
class Chart:
    """One figure of the page."""

    id: str
    title: str
    look: str
    """What to look for, in a sentence or two."""
    spec: Json
    columns: Sequence[str]
    """Column names of the table; the first column names the rows."""
    rows: Sequence[Sequence[Any]] = field(default_factory=list)


def spec(description: str, *, height: Any, **parts: Any) -> Json:
    """A specification as wide as its container; screen readers read `description`."""
    return {"description": description, "width": "container", "height": height, **parts}


def category(name: str, values: dict[str, Any], *, legend: bool | Json = True) -> Json:
    """An encoding of categories by fixed colours, shapes or dashes: {category: its look}."""
    encoding: Json = {"field": name, "type": "nominal", "scale": {"domain": list(values), "range": list(values.values())}}
    return encoding if legend is True else encoding | {"legend": legend or None}


def zero(axis: str) -> Json:
    """A line at 0."""
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": "var(--line)", "strokeWidth": 1.5, "aria": False},
        "encoding": {axis: {"datum": 0}},
    }


def thinned(rows: Sequence[Any], most: int = MOST_ROWS) -> list[Any]:
    """At most `most` of the rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a table; – for None."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent; – for None."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def own_data(spec: Json, datasets: Mapping[str, Json]) -> Json:
    """{"datasets": …} for a specification that names a table of the page, which it needs on its own; else {}.

    Args:
        datasets: {"columns", "rows"} of the tables that charts share, by name.
    """
    name = (spec.get("data") or {}).get("name")
    if name is None:
        return {}
    table = datasets[name]
    return {"datasets": {name: [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]}}
