"""The table of retrievers and re-rankers as texts, for the terminal, the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.metrics import metric_name
from eval.reranking.table import METRICS, NONE

Json = Mapping[str, Any]
REFERENCE, SHIPPED = "reference", " *"


def shown_metrics(table: Json) -> list[str]:
    """The metrics of the table, the primary one first."""
    return [name for name in dict.fromkeys((table["primary"], *METRICS)) if name in table["cells"][0]["metrics"]]


def cell_rows(table: Json) -> list[list[str]]:
    """(retriever, re-ranker, figures …, change of the primary one, p, queries with a tie at the top) of each cell, as texts."""
    return [_row(table, cell) for cell in table["cells"]]


def _row(table: Json, cell: Json) -> list[str]:
    change = cell["against_reference"].get(table["primary"])
    is_reference = all(cell[key] == value for key, value in table["reference"].items())
    is_shipped = all(cell[key] == value for key, value in table["ship"].items())
    points, p = REFERENCE if is_reference else "–", "–"
    if change:
        points = f"{100 * change['mean']:+.1f} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
        p = f"{change['p_adjusted']:.2g}" + ("" if change["significant"] else " (chance?)")
    tied = cell["tied_at_the_top"]
    return [
        cell["retriever"] + (SHIPPED if is_shipped else ""),
        "–" if cell["reranker"] == NONE else cell["reranker"],
        *(_figure(name, cell["metrics"][name]) for name in shown_metrics(table)),
        points,
        p,
        "–" if tied is None else f"{tied:,}",
    ]


def columns(table: Json) -> list[str]:
    """Names of the columns of `cell_rows`."""
    primary = metric_name(table["primary"])
    return ["retriever", "re-ranker", *map(metric_name, shown_metrics(table)), f"{primary}: change", "p", "ties at the top"]


def speed_rows(table: Json) -> list[list[str]]:
    """(candidates, median, 95th percentile, primary figure of the best pair where only they are re-ranked), as texts."""
    speed = table["speed"]
    return [
        [
            depth,
            f"{speed['p50_ms'][depth]:,.1f} ms",
            f"{speed['p95_ms'][depth]:,.1f} ms",
            _figure(table["primary"], table["depths"].get(depth)),
        ]
        for depth in speed["p50_ms"]
    ]


def speed_columns(table: Json) -> list[str]:
    """Names of the columns of `speed_rows`."""
    return ["candidates", "a query, median", "95th percentile", metric_name(table["primary"])]


def speed_sentence(table: Json) -> str:
    """What the times are of."""
    speed = table["speed"]
    return f"One query at a time, tokens included, on {speed['where']}: {speed['queries']} queries of the {table['split']} split."


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if metric == "bad_top1" else f"{value:.3f}"
