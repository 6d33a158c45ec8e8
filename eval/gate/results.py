"""Checks of what the model shows: popularity, coverage and spread of its first ten results, and the slices of the queries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from eval.diagnosis.case import MIN_QUERIES
from eval.diagnosis.evidence import Slice
from eval.gate.check import Check, bound, not_checked, switched_off
from eval.gate.figures import GateFigures
from eval.gate.settings import GateSettings
from eval.metrics import metric_name

SHOWN = 3
"""Slices that one sentence names."""


def result_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """The first ten results against the off-the-shelf model's."""
    limits = {
        "popularity": ("max_popularity_gain", settings.max_popularity_gain, "points"),
        "coverage": ("min_coverage", settings.min_coverage, "ratio"),
        "gini": ("max_gini_gain", settings.max_gini_gain, "points"),
    }
    for name, (setting, threshold, unit) in limits.items():
        if threshold is None:
            yield switched_off(name, setting)
        elif (why := figures.missing.get("results")) is not None:
            yield not_checked(name, why, threshold=threshold, unit=unit)
        elif name not in figures.results or name not in figures.baseline_results:
            why = "the items have no popularity" if name == "popularity" else "the evaluation has no such figure of both models"
            yield not_checked(name, why, threshold=threshold, unit=unit, wanted=name != "popularity")
        else:
            yield from {"popularity": _popularity, "coverage": _coverage, "gini": _gini}[name](figures, threshold)


def _popularity(figures: GateFigures, most: float) -> Iterator[Check]:
    now, was = figures.results["popularity"], figures.baseline_results["popularity"]
    relevant = figures.results.get("relevant_popularity")
    yield from bound(
        "popularity",
        f"rise of the popularity of the first ten results (mean percentile {100 * now:.0f}; off the shelf {100 * was:.0f}"
        + ("" if relevant is None else f", relevant items {100 * relevant:.0f}")
        + ")",
        100 * (now - (was if relevant is None else max(was, relevant))),
        most=most,
        unit="points",
    )


def _coverage(figures: GateFigures, least: float) -> Iterator[Check]:
    now, was = figures.results["coverage"], figures.baseline_results["coverage"]
    yield from bound(
        "coverage",
        f"share of the corpus that anyone is shown ({now:.1%}), relative to off the shelf ({was:.1%})",
        now / was if was else math.nan,
        least=least,
        unit="ratio",
    )


def _gini(figures: GateFigures, most: float) -> Iterator[Check]:
    now, was = figures.results["gini"], figures.baseline_results["gini"]
    yield from bound(
        "gini",
        f"rise of the Gini coefficient of how often items are shown ({now:.3f}; off the shelf {was:.3f})",
        100 * (now - was),
        most=most,
        unit="points",
    )


def slice_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """No slice significantly worse than off the shelf, and none below a floor."""
    large = [one for one in figures.slices if one.queries >= MIN_QUERIES]
    why = figures.missing.get("slices")
    wanted = why is not None or bool(figures.slices)
    if not wanted:
        why = "the queries have no slices (evaluation.slices)"
    elif not large and why is None:
        why = f"none of {len(figures.slices)} slices has {MIN_QUERIES} queries"
    if not settings.slices:
        yield switched_off("slices", "slices")
    elif why is not None:
        yield not_checked("slices", why, threshold=0.0, unit="count", wanted=wanted)
    else:
        yield _worse_slices(large)
    if settings.min_slice is not None:
        yield from _lowest_slice(large, figures.primary, settings.min_slice, why)


def _worse_slices(large: Sequence[Slice]) -> Check:
    compared = [(one, change) for one in large if (change := one.against_baseline) and math.isfinite(change.mean)]
    if not compared:
        return not_checked("slices", "none of them is compared with the off-the-shelf model", threshold=0.0, unit="count")
    worse = sorted(
        ((one, change) for one, change in compared if one.significant and change.mean < 0), key=lambda pair: pair[1].mean
    )
    of = f"{len(compared)} slices with at least {MIN_QUERIES} queries"
    if len(compared) < len(large):
        of += f" ({len(large) - len(compared)} more are not compared with the off-the-shelf model)"
    if not worse:
        text = f"slices significantly worse than off the shelf, of {of}: 0 (at most 0): passed"
        return Check("slices", text, 0.0, 0.0, True, unit="count")
    named = ", ".join(
        f"{_name(one)} ({100 * change.mean:+.1f} points over {one.queries:,} queries)" for one, change in worse[:SHOWN]
    )
    return Check(
        "slices",
        f"slices significantly worse than off the shelf, of {of}: {len(worse)} (at most 0): not passed: {named}",
        0.0,
        float(len(worse)),
        False,
        unit="count",
    )


def _lowest_slice(large: Sequence[Slice], primary: str, least: float, why: str | None) -> Iterator[Check]:
    known = [one for one in large if one.metrics.get(primary) is not None]
    lowest = min(known, key=lambda one: (math.isfinite(one.metrics[primary]), one.metrics[primary]), default=None)
    left_out = f", without {len(large) - len(known)} that have none," if len(known) < len(large) else ""
    yield from bound(
        "slice_floor",
        f"lowest {metric_name(primary)} of a slice{left_out}" + (f" ({_name(lowest)})" if lowest else ""),
        lowest.metrics[primary] if lowest else None,
        least=least,
        why=why or "no slice has that figure",
        attainable=min((one.attainable for one in known if one.attainable is not None), default=None),
    )


def _name(one: Slice) -> str:
    return f"{one.column} = {one.value}"
