"""Charts about what training did: its loss, who carries the gradient, and the gradient's geometry."""

from __future__ import annotations

from typing import Any

from jobs.report.charts.chart import Chart, category, spec
from jobs.report.charts.curves import curve_table, described, has_figures, round_starts, steep, step_lines, steps_axis

Json = dict[str, Any]

KINDS = {"hard": "var(--hard)", "random": "var(--random)", "in-batch": "var(--batch)", "cross-rank": "var(--cross)"}
"""Kind of negative -> colour, from the bottom of the stack."""
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


def loss_chart(report: Json) -> Chart | None:
    """Training loss of both arms over the steps."""
    if not has_figures(report, "loss"):
        return None
    look = (
        "The loss alone says little: with random negatives it falls because they have become easy. Read it with the "
        "recall below, at the same steps: loss down and recall flat means the gradient is gone."
    )
    layers = [*round_starts(report), *step_lines(report, "loss", "training loss", ".3f", log=steep(report, "loss"))]
    return Chart(
        "loss",
        "Training loss",
        look,
        spec(described(report, "loss", "Training loss"), height=220, data={"name": "steps"}, layer=layers),
        *curve_table(report, ("loss",), ("loss",)),
    )


def share_charts(report: Json) -> list[Chart]:
    """What share of the gradient each kind of negative carries, a chart per arm."""
    columns = {kind: f"gradient_share_{kind.replace('-', '_')}" for kind in KINDS}
    present = {kind: column for kind, column in columns.items() if has_figures(report, column)}
    charts = []
    for arm, title in (("mined", "mined negatives"), ("random", "random negatives only")):
        mine = [training for training in report["training"] if training["arm"] in (arm, "warm-up")]
        if not present or not [training for training in mine if training["arm"] == arm and training["curves"]]:
            continue
        colours = {kind: KINDS[kind] for kind in present}
        chart = spec(
            described(report, "gradient_share_hard", f"Share of the gradient that hard negatives carry, {title}", arm),
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
                        "x": steps_axis(),
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
                *round_starts(report, (arm, "warm-up")),
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
                *curve_table(report, tuple(present.values()), tuple(present), arms=(arm, "warm-up")),
            )
        )
    return charts


def geometry_charts(report: Json) -> list[Chart]:
    """Effective and dead negatives, the hardest one's weight, the positive's probability: both arms in each."""
    charts = []
    for column, title, look, form in GEOMETRY:
        if has_figures(report, column):
            chart = spec(
                described(report, column, title),
                height=180,
                data={"name": "steps"},
                layer=[*round_starts(report, labels=False), *step_lines(report, column, None, form, log=steep(report, column))],
            )
            charts.append(Chart(column.replace("_", "-"), title, look, chart, *curve_table(report, (column,), (title.lower(),))))
    return charts
