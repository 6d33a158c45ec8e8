"""Where the time of each round went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.report.charts.chart import Chart, category, number, spec

Json = dict[str, Any]

STAGES = {
    "train": "var(--hard)",
    "embed": "var(--batch)",
    "search": "var(--positive)",
    "mine": "var(--cross)",
    "evaluate": "var(--random)",
    "overhead": "var(--warm)",
}


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
