"""Illnesses that show in the results, in the mining and in the data: what a better primary figure may have cost.

They look at the arm whose model would be shipped: the mined one where there is one. A change counts only where its interval
excludes 0; what the results look like is read against the off-the-shelf model on the same queries, since no such figure
has a right value of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from eval.diagnosis.case import Case
from eval.diagnosis.evidence import Measurement, Slice
from eval.diagnosis.experiments import command_for_filter, run_command, setting
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, first_that_holds, told
from eval.significance import Interval

SYNTHETIC = "synthetic"


def forgetting(case: Case) -> Finding | None:
    """The general set got worse, beyond doubt."""
    primary, limits = case.evidence.primary, case.limits
    later = [m for m in case.evidence.general if m.queries >= limits.min_queries and primary in m.against_baseline]
    if not later:
        return None
    interval = later[-1].against_baseline[primary]
    where = f"general set, {later[-1].name} against the off-the-shelf model, {interval.queries:,} queries"
    figures = all_hold(
        at_most(
            "high end of the change",
            interval.high,
            -1e-9,
            where,
            f"{primary} {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]; its high end",
        ),
        at_least("lost", -interval.mean, limits.forget_drop, where, f"{primary} lost"),
    )
    if figures is None:
        return None
    rate = setting(case.evidence, "training.learning_rate", math.nan)
    change = {"training__learning_rate": rate / 3} if math.isfinite(rate) else {"training__epochs": 1}
    return case.finding(
        "forgetting",
        "critical" if -interval.mean >= limits.forget_critical else "warning",
        figures,
        next=run_command(case.evidence, "gentler", **change),
        summary="The model forgets what the off-the-shelf one knew: it got worse on queries it was not trained for.",
    )


def popularity_collapse(case: Case) -> Finding | None:
    """Best sellers take places that relevant items should have, more than off the shelf."""
    measured, baseline, limits = case.measurement, case.evidence.baseline, case.limits
    if measured is None or baseline is None:
        return None
    now, before = measured.results, baseline.results
    shown = now.get("popularity", math.nan)
    figures = all_hold(
        at_least(
            "popularity of results over relevant",
            shown - now.get("relevant_popularity", math.nan),
            limits.popular_excess,
            measured.name,
            "mean popularity percentile of the first ten hits minus that of the relevant items",
        ),
        at_least(
            "popularity of results over baseline",
            shown - before.get("popularity", math.nan),
            limits.popular_growth,
            f"{measured.name} against {baseline.name}",
            "and minus that of the off-the-shelf model's hits",
        ),
        told("popularity", shown, measured.name, "mean popularity percentile of the first ten hits"),
        told(
            "top_share",
            now.get("top_share", math.nan),
            measured.name,
            f"places that the most shown 1 % of items take; off the shelf {before.get('top_share', math.nan):.3g}",
        ),
        told(
            "gini",
            now.get("gini", math.nan),
            measured.name,
            f"Gini coefficient of exposure; off the shelf {before.get('gini', math.nan):.3g}",
        ),
    )
    if figures is None:
        return None
    return case.finding(
        "popularity_collapse",
        "warning",
        figures,
        next=run_command(case.evidence, "unpopular", training__random_popularity=0.75, mining__max_uses=20),
        summary="Best sellers crowd the results: they are put before items that are relevant and less known.",
    )


def narrow_results(case: Case) -> Finding | None:
    """The hits of a query are all alike, or a small part of the items takes all places."""
    measured, baseline, limits = case.measurement, case.evidence.baseline, case.limits
    if measured is None or baseline is None:
        return None
    now, before = measured.results, baseline.results
    where = f"{measured.name} against {baseline.name}"
    alike, then = _similarity(measured), _similarity(baseline)
    narrow = first_that_holds(
        [
            at_least(
                "similarity",
                alike,
                limits.narrow_similarity,
                measured.name,
                f"likeness of a query's first ten hits, 0 as of random items and 1 as of one item; off the shelf {then:.3g}",
            )
            if alike - then >= limits.narrow_growth
            else None,
            at_most(
                "coverage",
                _ratio(now, before, "coverage"),
                limits.narrow_coverage,
                where,
                "items in any first ten, as a share of what the off-the-shelf model showed",
            ),
        ]
    )
    figures = all_hold(
        narrow,
        told(
            "coverage",
            now.get("coverage", math.nan),
            measured.name,
            f"items in any first ten, as a share of all; off the shelf {before.get('coverage', math.nan):.3g}",
        ),
        told(
            "gini",
            now.get("gini", math.nan),
            measured.name,
            f"Gini coefficient of exposure; off the shelf {before.get('gini', math.nan):.3g}",
        ),
    )
    if figures is None:
        return None
    return case.finding(
        "narrow_results",
        "warning",
        figures,
        next=run_command(case.evidence, "wider-results", mining__near_duplicate=0.95, training__random_fraction=1.0),
        summary="Results have become narrow: the same few items, or items that are nearly the same, fill the lists.",
    )


def synthetic_drift(case: Case) -> Finding | None:
    """Queries that a program wrote improve beyond doubt, those of people do not, and the difference is beyond doubt, too."""
    measured = case.measurement
    if measured is None:
        return None
    sources = [
        s
        for s in measured.slices
        if s.column == "source" and s.queries >= case.limits.min_queries and s.against_baseline is not None
    ]
    made = next((s for s in sources if s.value == SYNTHETIC), None)
    real = [s for s in sources if s.value != SYNTHETIC]
    if made is None or not real:
        return None
    best = max(real, key=lambda s: _gain(s).mean)
    primary = case.evidence.primary
    figures = all_hold(
        at_least("synthetic gain", _gain(made).low, 1e-9, _slice_text(measured, made), _gain_text(made, primary, "its low end")),
        at_most("real gain", _gain(best).low, 0.0, _slice_text(measured, best), _gain_text(best, primary, "its low end")),
        at_least(
            "synthetic over real",
            _gain(made).low - _gain(best).high,
            1e-9,
            measured.name,
            "low end of the synthetic gain minus high end of the largest real one",
        ),
    )
    if figures is None:
        return None
    cap = setting(case.evidence, "training.sources.synthetic.cap", 0.2) / 2
    return case.finding(
        "synthetic_drift",
        "critical" if any(_gain(s).high < 0 for s in real) else "warning",
        figures,
        next=run_command(case.evidence, "less-synthetic", training__sources__synthetic__cap=cap),
        summary="The model learns the manner of synthetic queries: they improve, those of people do not.",
    )


def metadata_leakage(case: Case) -> Finding | None:
    """Relevant items share exact tags with their query, random ones do not: the labels can be read off the metadata."""
    limits = case.limits
    found = [
        (column, row)
        for column, row in case.evidence.leakage.items()
        if row.get("pairs", math.inf) >= limits.min_queries and _leaks(row, limits.leak_share, limits.leak_lift)
    ]
    if not found:
        return None
    column, row = max(found, key=lambda pair: pair[1]["positives"])
    typed = column == "text" or column.startswith("text:")
    tags = column.removeprefix("text:") if column != "text" else "tags"
    what = f"the item's {tags} stand in the query's text" if typed else f"query and item have the same {column}"
    figures = all_hold(
        at_least(
            f"leakage of {column}", row["positives"], limits.leak_share, "labels", f"share of relevant pairs in which {what}"
        ),
        at_least(
            "lift",
            row["positives"] / max(row["random"], 1e-9),
            limits.leak_lift,
            "labels",
            f"as a multiple of random pairs ({row['random']:.3g})",
        ),
    )
    if figures is None:
        return None
    advice = (
        f"write queries as people do, without the items' {tags}"
        if typed
        else f"take {{{column}}} out of data.item_text and data.query_text"
    )
    return case.finding(
        "metadata_leakage",
        "warning",
        figures,
        next=f"{advice}, then: {run_command(case.evidence, 'no-tags')}",
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
        at_most("hit_rate", last.hit_rate, case.limits.low_hit_rate, last.name, f"candidates left, of {last.candidates:,}"),
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


RESULT_RULES: tuple[Callable[[Case], Finding | None], ...] = (
    forgetting,
    popularity_collapse,
    narrow_results,
    synthetic_drift,
    metadata_leakage,
    low_hit_rate,
)


def _gain(found: Slice) -> Interval:
    assert found.against_baseline is not None
    return found.against_baseline


def _gain_text(found: Slice, primary: str, end: str) -> str:
    gain = _gain(found)
    return f"{primary} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against the baseline; {end}"


def _slice_text(measured: Measurement, found: Slice) -> str:
    return f"{measured.name}, {found.queries:,} queries with source {found.value}"


def _leaks(row: Mapping[str, float], share: float, lift: float) -> bool:
    return row["positives"] >= share and row["positives"] >= lift * row["random"]


def _similarity(measured: Measurement) -> float:
    """Mean cosine of a query's hits with each other, on a scale from random items (0) to equal ones (1).

    Where all items lie in a narrow cone, as with a very small τ, cosines of anything are high.
    """
    random = measured.scores.get("random_p50", 0.0)
    return (measured.results.get("similarity", math.nan) - random) / (1 - random) if random < 1 else math.nan


def _ratio(now: Mapping[str, float], before: Mapping[str, float], name: str) -> float:
    return now.get(name, math.nan) / before[name] if before.get(name, 0) > 0 else math.nan
