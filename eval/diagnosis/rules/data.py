"""Illnesses of the data and of the mining: synthetic queries, labels that stand in the metadata, filters that leave nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from eval.diagnosis.case import MIN_QUERIES, Case
from eval.diagnosis.commands import Turn, run_command, setting
from eval.diagnosis.evidence import Measurement, Slice
from eval.diagnosis.experiments import without_field
from eval.diagnosis.filters import command_for_filter
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, told
from eval.significance import Interval

SYNTHETIC = "synthetic"
LEAK_SHARE = 0.80
"""Share of the relevant pairs whose values agree exactly, at least …"""
LEAK_LIFT = 5.0
"""… and as a multiple of that of random pairs."""
LOW_HIT_RATE = 0.10
"""Candidates that are left after all filters, as a share, at most."""


def synthetic_drift(case: Case) -> Finding | None:
    """Queries that a program wrote improve beyond doubt, those of people do not, and the difference is beyond doubt, too."""
    measured = case.measurement
    if measured is None:
        return None
    sources = [s for s in measured.slices if s.column == "source" and s.queries >= MIN_QUERIES and s.against_baseline is not None]
    synthetic = next((s for s in sources if s.value == SYNTHETIC), None)
    real = [s for s in sources if s.value != SYNTHETIC]
    if synthetic is None or not real:
        return None
    best = max(real, key=lambda s: _gain(s).mean)
    primary = case.evidence.primary
    figures = all_hold(
        at_least(
            "synthetic gain",
            _gain(synthetic).low,
            1e-9,
            _slice_text(measured, synthetic),
            _gain_text(synthetic, primary, "its low end"),
        ),
        at_most("real gain", _gain(best).low, 0.0, _slice_text(measured, best), _gain_text(best, primary, "its low end")),
        at_least(
            "synthetic over real",
            _gain(synthetic).low - _gain(best).high,
            1e-9,
            measured.name,
            "low end of the synthetic gain minus high end of the largest real one",
        ),
    )
    if figures is None:
        return None
    cap = setting(case.evidence, "training.label_sources.synthetic.cap")
    return case.finding(
        "synthetic_drift",
        "critical" if any(_gain(s).high < 0 for s in real) else "warning",
        figures,
        next=run_command(
            case.evidence,
            "less-synthetic",
            {"training.label_sources.synthetic.cap": Turn("lower") if math.isnan(cap) else cap / 2},
        ),
        summary="The model learns the manner of synthetic queries: they improve, those of people do not.",
    )


def metadata_leakage(case: Case) -> Finding | None:
    """Relevant items share exact tags with their query, random ones do not: the labels can be read off the metadata."""
    leaks = [
        (column, row)
        for column, row in case.evidence.leakage.items()
        if row.get("pairs", math.inf) >= MIN_QUERIES and _leaks(row)
    ]
    if not leaks:
        return None
    column, row = max(leaks, key=lambda pair: pair[1]["positives"])
    typed = column == "text" or column.startswith("text:")
    tags = column.removeprefix("text:") if column != "text" else "tags"
    what = f"the item's {tags} stand in the query's text" if typed else f"query and item have the same {column}"
    figures = all_hold(
        at_least(f"leakage of {column}", row["positives"], LEAK_SHARE, "labels", f"share of relevant pairs in which {what}"),
        at_least(
            "lift",
            row["positives"] / max(row["random"], 1e-9),
            LEAK_LIFT,
            "labels",
            f"as a multiple of random pairs ({row['random']:.3g})",
        ),
    )
    if figures is None:
        return None
    advice = f"write queries as people do, without the items' {tags}" if typed else ""
    changes = {} if typed else without_field(case.evidence, column)
    if not typed and not changes:  # no template has it: the texts themselves do
        advice = f"take {column} out of the texts of queries and items"
    again = run_command(case.evidence, "no-tags", changes)
    return case.finding(
        "metadata_leakage",
        "warning",
        figures,
        next=f"{advice}, then: {again}" if advice else again,
        summary="Labels can be read off the metadata: the model may learn to match tags, and fail where users type none.",
    )


def low_hit_rate(case: Case) -> Finding | None:
    """Filters leave hardly any candidate."""
    last = case.mining
    if last is None:
        return None
    dropped = {name: count for name, count in last.dropped.items() if count}
    most = max(dropped, key=lambda name: dropped[name], default="")
    figures = all_hold(
        at_most("hit_rate", last.hit_rate, LOW_HIT_RATE, last.name, f"candidates left, of {last.candidates:,}"),
        told("dropped", dropped.get(most, 0) / last.candidates, last.name, f"share that the filter {most!r} dropped")
        if most
        else told("dropped", math.nan, last.name, ""),
        told(
            "queries_short",
            last.queries_short / max(1, last.queries),
            last.name,
            "share of the queries with fewer negatives than asked for",
        ),
    )
    if figures is None:
        return None
    return case.finding(
        "low_hit_rate",
        "warning",
        figures,
        next=command_for_filter(case.evidence, most),
        summary="The filters leave too few negatives to choose from: what is left is what slipped through, not what is hard.",
    )


def _gain(queries: Slice) -> Interval:
    assert queries.against_baseline is not None
    return queries.against_baseline


def _gain_text(queries: Slice, primary: str, end: str) -> str:
    gain = _gain(queries)
    return f"{primary} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against off the shelf; {end}"


def _slice_text(measured: Measurement, queries: Slice) -> str:
    return f"{measured.name}, {queries.queries:,} queries with source {queries.value}"


def _leaks(row: Mapping[str, float]) -> bool:
    return row["positives"] >= LEAK_SHARE and row["positives"] >= LEAK_LIFT * row["random"]
