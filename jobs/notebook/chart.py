"""A chart of the report as an object that a notebook displays: a drawing, which needs neither a script nor a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa

from jobs.report.charts.chart import CONFIG, Chart, own_data
from jobs.report.page import TEMPLATES

Json = dict[str, Any]
WIDTH = 640


@dataclass(frozen=True)
class RunChart:
    """One figure of a run. A notebook shows it when it is the last value of a cell."""

    title: str
    look: str
    """What to look for."""
    spec: Json = field(repr=False)
    """Vega-Lite, with its data and colours: `altair.Chart.from_dict(chart.spec)` takes it."""
    table: pa.Table = field(repr=False)
    """The same figures as a table of texts."""

    def svg(self) -> str:
        """The drawing."""
        import vl_convert

        return str(vl_convert.vegalite_to_svg(self.spec))

    def _repr_svg_(self) -> str:
        return self.svg()


def drawn(chart: Chart, datasets: Mapping[str, Json]) -> RunChart:
    """A chart of the page on its own, in the page's light colours.

    Args:
        datasets: {"columns", "rows"} of the data that charts share, by name.
    """
    spec = chart.spec | {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "width": WIDTH, "config": CONFIG}
    spec["title"] = {"text": chart.title, "anchor": "start", "fontSize": 14, "offset": 24}
    spec |= own_data(spec, datasets)
    spec["background"] = "var(--sheet)"
    columns = {name: [str(row[number]) for row in chart.rows] for number, name in enumerate(chart.columns)}
    return RunChart(chart.title, chart.look, _coloured(spec), pa.table(columns))


def _coloured(value: Any) -> Any:
    """A specification with colours in place of the page's variables."""
    if isinstance(value, dict):
        return {key: _coloured(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_coloured(item) for item in value]
    return re.sub(r"var\(--(\w+)\)", lambda name: _colours()[name[1]], value) if isinstance(value, str) else value


@cache
def _colours() -> dict[str, str]:
    """Variable of the style sheet -> its colour on a light page."""
    return dict(re.findall(r"--(\w+): light-dark\((#\w+),", (TEMPLATES / "report.css").read_text(encoding="utf-8")))
