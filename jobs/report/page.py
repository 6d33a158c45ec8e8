"""A report as one HTML file: template, style, script, chart library and JSON. It loads nothing else."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.metrics import metric_name
from jobs.record.reranking import speed_sentence
from jobs.record.version import hardmine_version
from jobs.report.answer import answer, interval_text, points
from jobs.report.charts.chart import CONFIG, Chart
from jobs.report.charts.curves import step_rows
from jobs.report.charts.drawing import chart_library, picture
from jobs.report.charts.mining import heat_rows, waterfall_chart
from jobs.report.charts.recall import recall_chart
from jobs.report.charts.scores import score_charts
from jobs.report.charts.seconds import time_chart
from jobs.report.charts.slices import slices_chart
from jobs.report.charts.training import geometry_charts, loss_chart, share_charts
from jobs.report.charts.uplift import changes_chart, uplift_charts
from jobs.report.tables import all_tables, cost_sentence

Json = dict[str, Any]
Figures = Mapping[str, Chart | list[Chart] | None]

TEMPLATES = Path(__file__).parent / "templates"
NUMBERS = "0123456789+−-<–"
"""First characters of a number in a table."""
SECTIONS = (
    ("answer", "Answer"),
    ("uplift", "Gain"),
    ("reranking", "Re-ranker"),
    ("decision", "Gate and diagnosis"),
    ("training", "Loss and recall"),
    ("geometry", "Gradient"),
    ("mining", "Mining"),
    ("slices", "Slices"),
    ("queries", "Winners and losers"),
    ("cost", "Time"),
    ("setup", "Setup"),
)


def render_run(report: Json) -> str:
    """report.html of one run.

    Args:
        report: of `gather`.
    """
    figures = _figures(report)
    heats = [heat | {"label": mining["label"]} for mining in report["minings"][-1:] if (heat := heat_rows(mining["confusion"]))]
    tables = all_tables(report)
    absent = {
        "reranking": not report["reranker"],
        "decision": not (report["gate"] or report["diagnosis"]),
        "training": not (figures["loss"] or figures["recall"]),
        "geometry": not (figures["shares"] or figures["geometry"] or figures["scores"]),
        "mining": not report["minings"],
        "slices": not (report["slices"] or tables["results"] or tables["leakage"]),
        "queries": not report["changes"],
    }
    split = next((model["split"] for model in report["models"]), "dev")
    return render(
        "report.html",
        report,
        figures,
        datasets={"steps": step_rows(report)},
        sections=[pair for pair in SECTIONS if not absent.get(pair[0])],
        answer=answer(report) | {"split": split},
        tables=tables,
        heats=heats,
        metric=metric_name(report["primary"]),
        cost=cost_sentence(report),
        reranking_speed=speed_sentence(report["reranker"]) if report["reranker"] else "",
        glossary=glossary(report),
    )


def run_charts(report: Json) -> list[Chart]:
    """Every chart of the page of one run, in its order."""
    return _flat(_figures(report))


def _figures(report: Json) -> Figures:
    """Place on the page -> its charts."""
    return {
        "uplift": uplift_charts(report),
        "loss": loss_chart(report),
        "recall": recall_chart(report),
        "shares": share_charts(report),
        "geometry": geometry_charts(report),
        "scores": score_charts(report),
        "waterfalls": [chart for mining in report["minings"] if (chart := waterfall_chart(mining))],
        "slices": slices_chart(report),
        "changes": changes_chart(report),
        "time": time_chart(report),
    }


def _flat(figures: Figures) -> list[Chart]:
    return [chart for figure in figures.values() for chart in (figure if isinstance(figure, list) else [figure]) if chart]


def glossary(report: Json) -> str:
    """The models of the run in a sentence each."""
    arms = {model["arm"] for model in report["models"]}
    said = {
        "warm-up": "The warm-up is trained on random negatives before anything is mined.",
        "mined": "Round n is trained on what was mined with the model before it.",
        "merged": "Merged n % is an average of the weights: n % of the best round's model, the rest of the one that the run "
        "started from.",
        "random": "Random only starts where the first mined round starts and makes as many steps as all of them, with random "
        "negatives: what mining adds is the difference. It is there for comparison and never kept.",
    }
    return " ".join(text for arm, text in said.items() if arm in arms)


@functools.cache
def _templates() -> Any:
    """The templates, compiled once. Every text is escaped, because titles and queries may hold anything."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "interval": interval_text,
        "day": _day,
        "numeric": _numeric,
        "figure": _figure,
        "check_sentence": check_sentence,
        "change": lambda value: f"{value:+.2f}".replace("-", "−"),
    }
    return environment


def render(template: str, report: Json, figures: Figures, *, datasets: Json, **values: Any) -> str:
    """Fill a template."""
    from markupsafe import Markup

    drawn = {"config": CONFIG, "datasets": datasets, "specs": {chart.id: chart.spec for chart in _flat(figures)}}
    inline = {name: Markup((TEMPLATES / f"report.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return str(
        _templates()
        .get_template(template)
        .render(
            report=report,
            figures=figures,
            charts=drawn,
            pictures={chart.id: Markup(picture(chart, datasets)) for chart in _flat(figures)},
            bundle=Markup(chart_library()),
            version=hardmine_version(),
            points=points,
            **inline,
            **values,
        )
    )


OUTCOME = re.compile(r"\): (not passed|passed|inconclusive)(, (?:as|but))?")
"""In the sentence of a check, behind its threshold."""


def check_sentence(check: Json) -> Any:
    """What a check of the gate says beside a badge that has its outcome already, with commands as code."""
    from markupsafe import Markup

    text = str(check["why"] or OUTCOME.sub(lambda found: ");" if found[2] else ")", str(check["text"])))
    pieces = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(one) if n % 2 else one for n, one in enumerate(pieces))


def _numeric(rows: Sequence[Sequence[Any]]) -> list[bool]:
    """Which columns hold numbers, and so are right-aligned: any but the first in which every cell begins like a number."""
    columns = enumerate(zip(*rows, strict=True))
    return [number > 0 and all(str(cell)[:1] in NUMBERS for cell in column) for number, column in columns]


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _figure(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else "–" if value is None else str(value)
