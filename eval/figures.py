"""What evaluation.json says, as values: its numbers, its comparisons, its slices. Versions differ in what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.diagnosis.evidence import Slice
from eval.significance import Interval


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among some figures; a metric without a value is None there."""
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def read_interval(change: Mapping[str, Any], queries: int = 0) -> Interval:
    """One comparison. Args: queries: where it does not say so itself."""
    return Interval(float(change["mean"]), float(change["low"]), float(change["high"]), int(change.get("queries", queries)))


def read_intervals(block: Mapping[str, Any]) -> dict[str, Interval]:
    """Metric -> interval, of one "against_…"."""
    return {metric: read_interval(change) for metric, change in block.items() if isinstance(change, Mapping) and "low" in change}


def read_slices(columns: Mapping[str, Any]) -> list[Slice]:
    """The slices of all columns; of those without a comparison too."""
    slices = []
    for column, block in columns.items():
        for row in block.get("slices", []):
            change, queries = row.get("against_baseline") or {}, int(row["queries"])
            slices.append(
                Slice(
                    column,
                    str(row["value"]),
                    queries,
                    numbers(row.get("metrics", {})),
                    read_interval(change, queries) if change else None,
                    bool(change.get("significant", False)),
                    row.get("attainable"),
                )
            )
    return slices
