"""The waterfall of one mining, and its confusion table for a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.report.charts.chart import Chart, category, share, spec

Json = dict[str, Any]

PARTS = {"found": "var(--warm)", "dropped": "var(--random)", "left": "var(--hard)"}
MOST_VALUES = 14
"""Rows and columns of the heat map."""


def waterfall_chart(mining: Json) -> Chart | None:
    """From the candidates, over what each filter dropped, to what is left."""
    steps = mining["waterfall"]
    if not steps or not steps[0]["count"]:
        return None
    rows = _falling(steps)
    idle = [step["step"].removeprefix("− ") for step in steps[1:-1] if not step["count"]]
    look = (
        "A candidate counts for the first filter that drops it. A long bar of one filter means it decides alone: read a "
        "few samples before you loosen it." + (f" Dropped nothing: {', '.join(idle)}." if idle else "")
    )
    chart = spec(
        f"Of {steps[0]['count']:,} candidates {steps[-1]['count']:,} are left ({steps[-1]['share']:.1%}).",
        height=30 * len(rows),
        data={"values": rows},
        layer=_bars([row["step"] for row in rows], steps[0]["count"]),
    )
    table = [[step["step"], f"{step['count']:,}", share(step["share"])] for step in steps]
    return Chart(
        f"waterfall-{mining['name']}",
        f"Where the candidates went: {mining['label']}",
        look,
        chart,
        ("step", "candidates", "share"),
        table,
    )


def _falling(steps: Sequence[Json]) -> list[Json]:
    """One bar per step, each beginning where the one before it ends; filters that dropped nothing are left out."""
    rows, at = [], steps[0]["count"]
    for place, step in enumerate(steps):
        kind = "found" if place == 0 else "left" if place == len(steps) - 1 else "dropped"
        if kind == "dropped" and not step["count"]:
            continue
        low = at - step["count"] if kind == "dropped" else 0
        rows.append(
            {
                "step": step["step"].removeprefix("− "),
                "kind": kind,
                "low": low,
                "high": at if kind == "dropped" else step["count"],
                "count": step["count"],
                "share": step["share"],
                "order": place,
                "text": f"{step['count']:,}",
            }
        )
        at = low if kind == "dropped" else at
    return rows


def _bars(names: Sequence[str], candidates: int) -> list[Json]:
    """The bars, and the number behind each; the axis leaves room for that of the longest."""
    axis = {"labelLimit": 130, "domain": False}
    y = {"field": "step", "type": "nominal", "sort": list(names), "title": None, "axis": axis}
    x = {"field": "low", "type": "quantitative", "title": "candidates", "axis": {"format": "~s", "tickCount": 5}}
    return [
        {
            "mark": {"type": "bar", "height": {"band": 0.72}},
            "encoding": {
                "y": y,
                "x": x | {"scale": {"domain": [0, 1.3 * candidates], "nice": False}},
                "x2": {"field": "high"},
                "color": category("kind", PARTS, legend=False),
                "tooltip": [
                    {"field": "step"},
                    {"field": "kind"},
                    {"field": "count", "format": ","},
                    {"field": "share", "format": ".1%"},
                ],
            },
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 5, "aria": False},
            "encoding": {"y": y, "x": {"field": "high", "type": "quantitative"}, "text": {"field": "text"}},
        },
    ]


def heat_rows(confusion: Json | None) -> Json | None:
    """{"column", "values", "rows": [{"value", "total", "cells": [{"share", "count"}]}], "left_out"}, shares of each row."""
    if not confusion or not confusion["values"]:
        return None
    order = sorted(range(len(confusion["values"])), key=lambda place: -sum(confusion["counts"][place]))
    kept = sorted(order[:MOST_VALUES])
    rows = []
    for place in kept:
        counts = confusion["counts"][place]
        total = sum(counts)
        if total:
            rows.append(
                {
                    "value": confusion["values"][place],
                    "total": total,
                    "cells": [{"share": counts[other] / total, "count": counts[other], "same": other == place} for other in kept],
                }
            )
    return {
        "column": confusion["column"],
        "values": [confusion["values"][place] for place in kept],
        "rows": rows,
        "left_out": len(confusion["values"]) - len(kept),
    }
