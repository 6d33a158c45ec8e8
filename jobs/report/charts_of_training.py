"""Charts about what training did: loss and recall together, and the geometry of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics import metric_name
from jobs.report.chart import COLOURS, DASHES, LINES, Chart, category, number, share, spec, thinned

Json = dict[str, Any]

ARMS = ("warm-up", "mined", "random")
KINDS = {"hard": "var(--hard)", "random": "var(--random)", "in-batch": "var(--batch)", "cross-rank": "var(--cross)"}
"""Kind of negative -> colour, from the bottom of the stack."""
SCORES = {"positive": ("var(--positive)", [1, 0]), "hard": ("var(--hard)", [6, 3]), "random": ("var(--random)", [2, 2])}
SMOOTHING = 40
"""A curve is drawn as a running mean over a twentieth of its points; the points themselves stand thin behind it."""
HOVER = 50
"""Points of one training that answer to the pointer."""
GEOMETRY = (
    (
        "effective_negatives",
        "Effective negatives",
        "How many negatives share the gradient (exp of the entropy of their weights). Towards 1: a single negative drives every "
        "step; a number near all negatives with a low loss: none of them is hard.",
        ".1f",
    ),
    (
        "dead_negatives",
        "Share of dead negatives",
        "Negatives with a weight below 0.0001: they cost time and teach nothing. Random negatives die first.",
        ".0%",
    ),
    (
        "hardest_weight",
        "Weight of the hardest negative",
        "The share of all negatives' weight that the hardest one has. Near 1: one item per query decides, often a false "
        "negative; τ may be too low.",
        ".2f",
    ),
    (
        "positive_probability",
        "Probability of the positive",
        "What the softmax gives the right item. Near 1 nothing is left to learn from these negatives.",
        ".2f",
    ),
)
"""(telemetry column, title, what to look for, number format)."""


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


def loss_chart(report: Json) -> Chart | None:
    """Training loss of both arms over the steps."""
    if not _any(report, "loss"):
        return None
    look = (
        "The loss alone says little: with random negatives it falls because they have become easy. Read it with the "
        "recall below, at the same steps: loss down and recall flat means the gradient is gone."
    )
    layers = [*_rounds(report), *_lines(report, "loss", "training loss", ".3f", log=_steep(report, "loss"))]
    return Chart(
        "loss",
        "Training loss",
        look,
        spec(_described(report, "loss", "Training loss"), height=220, data={"name": "steps"}, layer=layers),
        *_table(report, ("loss",), ("loss",)),
    )


def recall_chart(report: Json) -> Chart | None:
    """Validation recall over the steps, with the dev figure of every round."""
    lines = [
        {"arm": training["arm"], "model": training["label"], "at": training["start"] + step, "value": value, "what": "validation"}
        for training in report["training"]
        for step, value in zip(training["validation"]["step"], training["validation"]["recall"], strict=True)
    ]
    ends = {training["name"]: training["start"] + training["steps"] for training in report["training"]}
    name = metric_name(report["primary"])
    points = [
        {
            "arm": model["arm"],
            "model": model["label"],
            "at": ends.get(model["name"], 0),
            "value": model["metrics"][report["primary"]],
            "what": f"dev {name}",
        }
        for model in report["models"]
        if model["metrics"].get(report["primary"]) is not None
    ]
    if not lines and len(points) < 2:
        return None
    x = _steps()
    y = {"field": "value", "type": "quantitative", "title": "recall", "scale": {"zero": False}, "axis": {"minExtent": 42}}
    colour = category("arm", {arm: COLOURS[arm] for arm in (*ARMS, "baseline")}, legend=LINES | {"values": _arms(report)})
    tooltip = [
        {"field": "model"},
        {"field": "what", "title": "measured"},
        {"field": "at", "title": "step", "format": ",.0f"},
        {"field": "value", "format": ".3f"},
    ]
    dash = category("arm", {arm: DASHES[arm] for arm in (*ARMS, "baseline")}, legend=LINES | {"values": _arms(report)})
    layers = [
        *_rounds(report),
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
        spec(f"Recall over the steps; {name} on dev: {said}.", height=220, layer=layers, data={"name": "steps"}),
        ("model", "measured", "step", "recall"),
        table,
    )


def share_charts(report: Json) -> list[Chart]:
    """What share of the gradient each kind of negative carries, a chart per arm."""
    columns = {kind: f"gradient_share_{kind.replace('-', '_')}" for kind in KINDS}
    present = {kind: column for kind, column in columns.items() if _any(report, column)}
    charts = []
    for arm, title in (("mined", "mined negatives"), ("random", "random negatives only")):
        mine = [training for training in report["training"] if training["arm"] in (arm, "warm-up")]
        if not present or not [training for training in mine if training["arm"] == arm and training["curves"]]:
            continue
        colours = {kind: KINDS[kind] for kind in present}
        chart = spec(
            _described(report, "gradient_share_hard", f"Share of the gradient that hard negatives carry, {title}", arm),
            height=210,
            data={"name": "steps"},
            transform=[
                {"filter": f"datum.arm == '{arm}' || datum.arm == 'warm-up'"},
                {"fold": list(present.values()), "as": ["column", "share"]},
                {"calculate": "replace(slice(datum.column, 15), '_', '-')", "as": "kind"},
                {"calculate": f"indexof({list(present)}, datum.kind)", "as": "order"},
            ],
            layer=[
                {
                    "mark": {"type": "area", "line": False, "opacity": 0.85},
                    "encoding": {
                        "x": _steps(),
                        "y": {
                            "field": "share",
                            "type": "quantitative",
                            "stack": "zero",
                            "title": "share of the gradient",
                            "axis": {"format": "%", "tickCount": 5},
                            "scale": {"domain": [0, 1]},
                        },
                        "order": {"field": "order"},
                        "color": category("kind", colours, legend={"offset": 20}),
                    },
                },
                *_rounds(report, (arm, "warm-up")),
            ],
        )
        look = (
            "Hard negatives should carry a good part of it. If in-batch and random ones carry nearly all, mining found "
            "nothing that the batch did not have."
            if arm == "mined"
            else "Without mined negatives the other items of the batch carry the gradient, and shrink as they become easy."
        )
        charts.append(
            Chart(
                f"share-{arm}",
                f"Who carries the gradient: {title}",
                look,
                chart,
                *_table(report, tuple(present.values()), tuple(present), arms=(arm, "warm-up")),
            )
        )
    return charts


def geometry_charts(report: Json) -> list[Chart]:
    """Effective and dead negatives, the hardest one's weight, the positive's probability: both arms in each."""
    charts = []
    for column, title, look, form in GEOMETRY:
        if _any(report, column):
            chart = spec(
                _described(report, column, title),
                height=180,
                data={"name": "steps"},
                layer=[*_rounds(report, labels=False), *_lines(report, column, None, form, log=_steep(report, column))],
            )
            charts.append(Chart(column.replace("_", "-"), title, look, chart, *_table(report, (column,), (title.lower(),))))
    return charts


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


def _steps() -> Json:
    return {"field": "at", "type": "quantitative", "title": "optimizer steps", "scale": {"nice": False}, "axis": {"tickCount": 8}}


def _lines(report: Json, column: str, title: str | None, form: str, *, log: bool = False) -> list[Json]:
    """A line per training, and points that answer to the pointer."""
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    named = {"title": f"{title or ''} (log scale)".strip() if log else title}
    y = (
        {"field": column, "type": "quantitative", "scale": scale}
        | named
        | {"axis": {"minExtent": 42, "format": "%" if "%" in form else ",~r", "tickCount": 6}}
    )
    colour = category("arm", {arm: COLOURS[arm] for arm in _arms(report)}, legend=LINES)
    dash = category("arm", {arm: DASHES[arm] for arm in _arms(report)}, legend=LINES)
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
            "encoding": {"x": _steps(), "y": y, "color": colour, "detail": {"field": "model"}},
        },
        {
            "transform": [smooth],
            "mark": {"type": "line"},
            "encoding": {
                "x": _steps(),
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
                "x": _steps(),
                "y": y,
                "color": colour,
                "tooltip": tooltip,
                "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0},
            },
        },
    ]


def _rounds(report: Json, arms: Sequence[str] = ("warm-up", "mined"), *, labels: bool = True) -> list[Json]:
    """Where each training starts, with its name."""
    starts = [{"at": training["start"], "model": training["label"]} for training in report["training"] if training["arm"] in arms]
    rule = {
        "data": {"values": starts},
        "mark": {"type": "rule", "color": "var(--line)", "strokeDash": [1, 3], "aria": False},
        "encoding": {"x": _steps()},
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
        "encoding": {"x": _steps(), "text": {"field": "model"}},
    }
    return [rule, text] if labels else [rule]


def _arms(report: Json) -> list[str]:
    """The lines of models that were trained."""
    return [arm for arm in ARMS if any(training["arm"] == arm for training in report["training"])]


def _steep(report: Json, column: str) -> bool:
    """Whether a curve spans so much that all but its beginning would lie flat on the axis."""
    values = sorted(value for training in report["training"] for value in training["curves"].get(column, ()) if value is not None)
    return bool(values) and values[0] > 0 and "share" not in column and values[-1] > 6 * values[len(values) // 2] > 0


def _any(report: Json, column: str) -> bool:
    """Whether a curve has a figure to show; a kind of negative that never carries anything has none."""
    values = (value for training in report["training"] for value in training["curves"].get(column, ()))
    return any(value is not None and (value or "share" not in column) for value in values)


def _described(report: Json, column: str, title: str, arm: str | None = None) -> str:
    """ "Training loss: warm-up 2.1 to 0.7, round 1 0.6 to 0.5."."""
    parts = []
    for training in report["training"]:
        values = [value for value in training["curves"].get(column, ()) if value is not None]
        if values and arm in (None, training["arm"]):
            parts.append(f"{training['label']} {values[0]:.3g} to {values[-1]:.3g}")
    return f"{title}: {', '.join(parts)}."


def _table(
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
