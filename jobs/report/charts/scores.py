"""Cosines of positives, hard negatives and random items, before training and after."""

from __future__ import annotations

from typing import Any

from jobs.report.charts.chart import LINES, Chart, category, number, spec

Json = dict[str, Any]

SCORES = {"positive": ("var(--positive)", [1, 0]), "hard": ("var(--hard)", [6, 3]), "random": ("var(--random)", [2, 2])}


def score_charts(report: Json) -> list[Chart]:
    """Cosines of positives, of hard negatives and of random items: before training and after, on the same axes."""
    found = {when: scores for when, scores in report["scores"].items() if scores}
    tops = [count / max(1, sum(scores[kind])) for scores in found.values() for kind in SCORES for count in scores[kind]]
    used = [
        edge
        for scores in found.values()
        for kind in SCORES
        for place, count in enumerate(scores[kind])
        if count
        for edge in scores["edges"][place : place + 2]
    ]
    if not used:
        return []
    if report["best"] == "baseline":
        found.pop("after", None)
    charts = []
    for when, scores in found.items():
        title = {"before": "Scores before training", "after": "Scores of the kept model"}[when]
        percentiles = scores.get("percentiles") or {}
        charts.append(
            Chart(
                f"scores-{when}",
                title,
                _score_look(when, percentiles),
                _score_spec(scores, title, max(tops), (min(used), max(used))),
                ("kind", "5 %", "25 %", "half", "75 %", "95 %"),
                [
                    [kind, *(number(percentiles.get(kind, {}).get(p)) for p in ("p5", "p25", "p50", "p75", "p95"))]
                    for kind in SCORES
                ],
            )
        )
    return charts


def _score_spec(scores: Json, title: str, top: float, ends: tuple[float, float]) -> Json:
    rows = [
        {"kind": kind, "low": low, "high": high, "score": (low + high) / 2, "share": count / max(1, sum(scores[kind]))}
        for kind in SCORES
        for low, high, count in zip(scores["edges"][:-1], scores["edges"][1:], scores[kind], strict=True)
        if ends[0] <= low and high <= ends[1]
    ]
    x = {"field": "score", "type": "quantitative", "title": "cosine of query and item", "scale": {"domain": list(ends)}}
    y = {
        "field": "share",
        "type": "quantitative",
        "title": "share",
        "axis": {"format": "%", "tickCount": 5},
        "stack": None,
        "scale": {"domain": [0, top]},
    }
    colour, dash = (
        category("kind", {kind: look[place] for kind, look in SCORES.items()}, legend=LINES | {"offset": 8}) for place in (0, 1)
    )
    tooltip = [
        {"field": "kind"},
        {"field": "low", "format": ".2f", "title": "from"},
        {"field": "high", "format": ".2f", "title": "to"},
        {"field": "share", "format": ".1%"},
    ]
    medians = {kind: (scores.get("percentiles") or {}).get(kind, {}).get("p50") for kind in SCORES}
    said = ", ".join(f"{kind} {value:.2f}" for kind, value in medians.items() if value is not None)
    return spec(
        f"{title}: distribution of cosines{', half of them below: ' + said if said else ''}.",
        height=210,
        data={"values": rows},
        layer=[
            {
                "mark": {"type": "area", "opacity": 0.13, "interpolate": "monotone", "aria": False},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "mark": {"type": "line", "interpolate": "monotone"},
                "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
            },
            {
                "mark": {"type": "point", "opacity": 0, "size": 90, "aria": False},
                "encoding": {"x": x, "y": y, "tooltip": tooltip},
            },
        ],
    )


def _score_look(when: str, percentiles: Json) -> str:
    if when == "before":
        return (
            "Positives: a query with its relevant items. Hard: its ten nearest items that are not relevant. Random: ten "
            "items drawn anywhere. Where positives and hard ones overlap, the model cannot tell them apart."
        )
    middle = {kind: percentiles.get(kind, {}).get("p50") for kind in ("positive", "hard")}
    gap = ""
    if None not in middle.values():
        apart = middle["positive"] - middle["hard"]
        place = f"{abs(apart):.2f} {'right' if apart > 0 else 'left'} of" if abs(apart) >= 0.005 else "just at"
        gap = f"The middle of the positives now lies {place} that of the hard ones. "
    return (
        f"{gap}Good training moves positives to the right of the hard ones; random items far to the left were never the problem."
    )
