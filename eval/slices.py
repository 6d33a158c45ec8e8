"""Figures of the queries that share a value of a column, each with its interval against the baseline.

    genres = Membership(["crime", "poetry"], query_M, value_M)
    figures = slice_figures(per_query, {"genres": genres}, primary="recall@3", baseline=per_query_of_baseline)

The average hides who pays: a model may gain on plots and lose on authors. Many slices also mean that some differ by
chance, so all of them, over all columns, are corrected together.

Shape suffixes: Q queries, M (query, value) pairs, V values of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.metrics import F64, I64, summarise
from eval.significance import compare

NONE = "(none)"
"""The slice of the queries that have no value."""


@dataclass(frozen=True, eq=False)
class Membership:
    """Which queries have which value of a column; a query may have several values, or none."""

    names: Sequence[str]
    """[V] distinct."""
    query: I64
    """i64 [M] place of a query, 0 … Q − 1."""
    value: I64
    """i64 [M] place in `names`; a repeated pair counts once."""

    def members(self, num_queries: int) -> dict[str, I64]:
        """Value -> places of its queries, ascending; under NONE those without a value, if there are any."""
        pairs = np.unique(self.value * num_queries + self.query)
        value, query = pairs // max(num_queries, 1), pairs % max(num_queries, 1)
        ends = np.searchsorted(value, np.arange(len(self.names) + 1))
        found = {name: query[start:stop] for name, start, stop in zip(self.names, ends, ends[1:], strict=False)}
        without = np.setdiff1d(np.arange(num_queries), query)
        return found | ({NONE: without} if len(without) else {})


def slice_figures(
    per_query: Mapping[str, F64],
    columns: Mapping[str, Membership],
    *,
    primary: str,
    baseline: Mapping[str, F64] | None = None,
    attainable: F64 | None = None,
    least: int = 10,
    most: int = 50,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Means of every metric for each value of each column, and how sure the change of the primary one is.

    Args:
        per_query: float64 [Q] for each metric; NaN (no relevant item) is left out of means and counts.
        columns: of the same queries.
        primary: the metric that is compared.
        baseline: the baseline's values of the same queries in the same order; None: nothing is compared.
        attainable: float64 [Q], the primary metric of a perfect model.
        least: a value of fewer queries gets no slice. (Below 6 no sign flip can reach p = 0.05.)
        most: values shown of a column, those of most queries.

    Returns:
        {column: {"slices": [{"value", "queries", "metrics", "attainable", "against_baseline"}], "left_out": values without a
        slice}}.
        Slices by their number of queries, largest first, then by value. "against_baseline" is a `Comparison` as JSON,
        without "queries"; its p is corrected over all slices of all columns (Holm 1979).
    """
    measured_Q = ~np.isnan(per_query[primary])
    chosen: dict[tuple[str, str], I64] = {}
    left_out: dict[str, int] = {}
    for column, membership in columns.items():
        members = {value: places[measured_Q[places]] for value, places in membership.members(len(measured_Q)).items()}
        members = {value: places for value, places in members.items() if len(places)}
        order = sorted((value for value in members if len(members[value]) >= least),
                       key=lambda value: (-len(members[value]), value))[:most]  # fmt: skip
        chosen |= {(column, value): members[value] for value in order}
        left_out[column] = len(members) - len(order)
    compared = (
        {}
        if baseline is None
        else compare(
            {key: per_query[primary][places] for key, places in chosen.items()},
            {key: baseline[primary][places] for key, places in chosen.items()},
            resamples=resamples,
            confidence=confidence,
        )
    )
    result: dict[str, Any] = {column: {"slices": [], "left_out": count} for column, count in left_out.items()}
    for (column, value), places in chosen.items():
        means = summarise({name: values_Q[places] for name, values_Q in per_query.items()})
        row: dict[str, Any] = {"value": value, "queries": len(places), "metrics": means}
        if attainable is not None:
            row["attainable"] = float(attainable[places].mean())  # chosen places have a relevant item
        if (column, value) in compared:
            against = compared[column, value].as_json()
            row["against_baseline"] = {name: against[name] for name in against if name != "queries"}
        result[column]["slices"].append(row)
    return result


def cut_into_ranges(numbers_M: npt.NDArray[Any], ranges: int = 4) -> tuple[list[str], I64]:
    """Numbers as ranges of about equally many of them, for a column with too many values of its own.

    Args:
        numbers_M: float64 [M]; NaN and infinite ones are no number.

    Returns:
        (names, "1960 to 1984", [V], V <= ranges, ascending; int64 [M] which of them each number is in, -1: it is none).
    """
    real_M = np.isfinite(numbers_M)
    if not real_M.any():
        return [], np.full(len(numbers_M), -1, np.int64)
    edges = np.quantile(numbers_M[real_M], np.arange(1, ranges) / ranges)
    code_M = np.full(len(numbers_M), -1, np.int64)
    # ranges that many equal numbers leave empty vanish
    _, code_M[real_M] = np.unique(np.searchsorted(edges, numbers_M[real_M], side="left"), return_inverse=True)
    inside = [numbers_M[code_M == code] for code in range(int(code_M.max()) + 1)]
    return [_range_name(float(some.min()), float(some.max())) for some in inside], code_M


def _range_name(low: float, high: float) -> str:
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
