"""Charts as pictures, and the library that makes them answer to the pointer. Needs no network.

The picture is in the page from the start, so that a page which is printed, captured or opened without JavaScript has its
charts; the script draws them anew as wide as the window.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from html import escape
from typing import Any

from jobs.report.charts.chart import CONFIG, Chart, own_data

Json = dict[str, Any]

WIDE, NARROW = 980, 460
"""Pixels of a chart that has a row for itself, and of one that shares it."""
IN_A_ROW = frozenset({"loss", "recall", "slices", "changes", "time", "race"})
"""Charts with a row for themselves."""
PADDING = {"left": 16, "right": 8, "top": 5, "bottom": 5}
"""Room for labels that are wider in the browser's font than they were measured here."""
NOISE = re.compile(r' (?:xmlns(?::\w+)?|version|class|role|aria-[a-z]+|pointer-events|font-family|clip-path)="[^"]*"')
"""Attributes that the picture does not need: the page has its font, and the picture one description."""
DECIMALS = re.compile(r"(\.\d)\d+")


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`; takes a few seconds."""
    import vl_convert

    # with a backslash, JavaScript reads the same text, but HTML does not end the script element
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub requires an argument that it does not need
    return str(bundle).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def picture(chart: Chart, datasets: Json) -> str:
    """A chart as an SVG element. Colours stay CSS variables, so it follows the page's.

    Args:
        datasets: {"columns", "rows"} of the tables that specifications name.
    """
    spec = _still(chart.spec) | {"width": WIDE if chart.id in IN_A_ROW else NARROW, "padding": PADDING}
    svg = _svg(json.dumps(spec | own_data(spec, datasets)))
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(chart.spec["description"])}"', 1)


@lru_cache(maxsize=128)
def _svg(spec: str) -> str:
    """Drawn once: of a page that is written anew, and in a notebook, most charts are as they were."""
    import vl_convert

    svg = re.sub(r"<defs>.*?</defs>", "", str(vl_convert.vegalite_to_svg(spec, config=CONFIG)), flags=re.DOTALL)
    return re.sub(r'\b(d|transform)="[^"]*"', lambda found: DECIMALS.sub(r"\1", found[0]), NOISE.sub("", svg))


def _still(spec: Json) -> Json:
    """Without the points that only answer to the pointer."""
    if "layer" not in spec:
        return dict(spec)
    return spec | {"layer": [layer for layer in spec["layer"] if "params" not in layer]}
