"""Illnesses that show in the results: what a better primary figure may have cost.

They look at the arm whose model would be shipped: the mined one where there is one. A change counts only where its interval
excludes 0; what the results look like is read against the off-the-shelf model on the same queries, since no such figure
has a right value of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from eval.diagnosis.case import MIN_QUERIES, Case
from eval.diagnosis.checks import BELOW_0, described
from eval.diagnosis.commands import MOST, Turn, Value, run_command, setting
from eval.diagnosis.evidence import Evidence, Measurement
from eval.diagnosis.experiments import slower
from eval.diagnosis.findings import Finding, all_hold, at_least, at_most, first_that_holds, told

FORGET_DROP = 0.01
"""The general set's primary figure fell by at least this (share: 0.01 is one point), beyond doubt …"""
FORGET_CRITICAL = 0.05
"""… and from here on it is critical."""
POPULAR_EXCESS = 0.10
"""Mean popularity percentile of the first ten hits above that of the relevant items by at least this (0.5 is an item like any
other) …"""
POPULAR_GROWTH = 0.10
"""… and above what the off-the-shelf model showed by at least this."""
NARROW_SIMILARITY = 0.85
"""Mean cosine of the first ten hits of a query with each other, between that of random items (0) and 1, at least …"""
NARROW_GROWTH = 0.05
"""… and above the off-the-shelf model's by at least this."""
NARROW_COVERAGE = 0.60
"""Another way: items that appear in any first ten, as a share of what the off-the-shelf model showed, at most."""


def forgetting(case: Case) -> Finding | None:
    """The general set got worse, beyond doubt."""
    primary = case.evidence.primary
    later = [m for m in case.evidence.general if m.queries >= MIN_QUERIES and primary in m.against_baseline]
    if not later:
        return None
    interval = later[-1].against_baseline[primary]
    where = f"general set, {later[-1].name} against the off-the-shelf model, {interval.queries:,} queries"
    figures = all_hold(
        at_most("high end of the change", interval.high, BELOW_0, where, described(case, interval, "its high end")),
        at_least("lost", -interval.mean, FORGET_DROP, where, f"{primary} lost"),
    )
    if figures is None:
        return None
    return case.finding(
        "forgetting",
        "critical" if -interval.mean >= FORGET_CRITICAL else "warning",
        figures,
        next=slower(case.evidence, "gentler", case.peak_rate(), 3),
        summary="The model forgets what the off-the-shelf one knew: it got worse on queries it was not trained for.",
    )


def popularity_collapse(case: Case) -> Finding | None:
    """Best sellers take places that relevant items should have, more than off the shelf."""
    measured, baseline = case.measurement, case.evidence.baseline
    if measured is None or baseline is None:
        return None
    now, before = measured.results, baseline.results
    shown = now.get("popularity", math.nan)
    figures = all_hold(
        at_least(
            "popularity of results over relevant",
            shown - now.get("relevant_popularity", math.nan),
            POPULAR_EXCESS,
            measured.name,
            "mean popularity percentile of the first ten hits minus that of the relevant items",
        ),
        at_least(
            "popularity of results over baseline",
            shown - before.get("popularity", math.nan),
            POPULAR_GROWTH,
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
        next=_less_popular(case),
        summary="Best sellers crowd the results: they are put before items that are relevant and less known.",
    )


def narrow_results(case: Case) -> Finding | None:
    """The hits of a query are all alike, or a small part of the items takes all places."""
    measured, baseline = case.measurement, case.evidence.baseline
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
                NARROW_SIMILARITY,
                measured.name,
                f"likeness of a query's first ten hits, 0 as of random items and 1 as of one item; off the shelf {then:.3g}",
            )
            if alike - then >= NARROW_GROWTH
            else None,
            at_most(
                "coverage",
                _ratio(now, before, "coverage"),
                NARROW_COVERAGE,
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
    fraction = setting(case.evidence, "training.random_fraction")
    known = math.isfinite(fraction)
    more_random = min(MOST["training.random_fraction"], max(1.0, 2 * fraction)) if known else Turn("raise")
    return case.finding(
        "narrow_results",
        "warning",
        figures,
        next=run_command(case.evidence, "wider-results", _less_alike(case.evidence) | {"training.random_fraction": more_random}),
        summary="Results have become narrow: the same few items, or items that are nearly the same, fill the lists.",
    )


def _less_alike(evidence: Evidence) -> dict[str, Value]:
    """Near-duplicates out; a stricter limit than that stays."""
    return {} if setting(evidence, "mining.near_duplicate") <= 0.95 else {"mining.near_duplicate": 0.95}


def _less_popular(case: Case) -> str:
    """Random negatives in proportion to popularity, and fewer uses of one mined negative."""
    power, uses = (setting(case.evidence, key) for key in ("training.random_popularity", "mining.max_uses"))
    changes: dict[str, Value] = {"training.random_popularity": 1.0 if power >= 0.75 else 0.75}
    items, queries = case.evidence.items, case.evidence.training_queries
    least = -(-2 * queries // items) if items else 1  # fewer would not be one negative for each query
    fewer = max(1, least, int(uses) // 2 if uses >= 1 else 20)
    if not fewer >= uses:
        changes["mining.max_uses"] = fewer
    return run_command(case.evidence, "unpopular", changes)


def _similarity(measured: Measurement) -> float:
    """Mean cosine of a query's hits with each other, on a scale from random items (0) to equal ones (1).

    Where all items lie in a narrow cone, as with a very small τ, cosines of anything are high.
    """
    random = measured.scores.get("random_p50", 0.0)
    return (measured.results.get("similarity", math.nan) - random) / (1 - random) if random < 1 else math.nan


def _ratio(now: Mapping[str, float], before: Mapping[str, float], name: str) -> float:
    return now.get(name, math.nan) / before[name] if before.get(name, 0) > 0 else math.nan
