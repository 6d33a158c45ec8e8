"""The tables of the re-ranker's section."""

from __future__ import annotations

from typing import Any

from eval.metrics import metric_name
from jobs.record.reranking import cell_rows, columns, speed_columns, speed_rows
from jobs.report.answer import interval_text, state
from jobs.report.charts.chart import STATES, number

Json = dict[str, Any]


def reranking_tables(table: Json | None) -> dict[str, Json | None]:
    """Every retriever with every re-ranker, what re-ranking takes, and groups of queries under the best pair."""
    if table is None:
        return dict.fromkeys(("reranking", "reranking_speed", "reranking_slices"))
    primary, name = table["primary"], metric_name(table["primary"])
    groups = [
        [column, row["value"], f"{row['queries']:,}", number(row["metrics"].get(primary)), *_against(row, primary)]
        for column, block in table["slices"].items()
        for row in block["slices"]
    ]
    named = ("column", "value", "queries", name, "change and interval", "against the retriever alone")
    return {
        "reranking": {"columns": columns(table), "rows": cell_rows(table)},
        "reranking_speed": {"columns": speed_columns(table), "rows": speed_rows(table)},
        "reranking_slices": {"columns": named, "rows": groups} if groups else None,
    }


def _against(row: Json, primary: str) -> list[str]:
    change = row.get("against_baseline")
    return [interval_text(change), STATES[state(change, primary)][0]] if change else ["–", "–"]
