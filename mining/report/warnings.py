"""What is unusual about a mining, each with its figures and the setting to change."""

from __future__ import annotations

from typing import Any

from mining.settings import MiningSettings

MANY_SHORT = 0.2
"""Share of the queries with fewer than N negatives above which it is said."""

MUCH_USED = 0.05
"""Share of the queries that may have one item as a negative before it is said."""

MUCH_USED_LEAST = 20
"""Queries that may have it in any case."""

FULL_RECALL = 0.99
"""Search recall below which it is said."""

CURES = {
    "positive": "raise mining.num_hits",
    "duplicate": "raise mining.near_duplicate if it is set, or take repeated texts out of the corpus",
    "self": "raise mining.num_hits",
    "rule": "loosen mining.rules",
    "min_score": "lower mining.min_score",
    "max_score": "raise mining.max_score",
    "relative_margin": "lower mining.relative_margin (or mining.target_discard_rate), or set mining.margin_reference = "
    '"mean" or "highest"',
    "absolute_margin": 'lower mining.absolute_margin, or set mining.margin_reference = "mean" or "highest"',
    "ceiling": "raise mining.positive_quantile",
    "position": "lower mining.skip_first",
    "teacher": "raise mining.teacher.max_score or lower mining.teacher.relative_margin",
    "teacher:unread": "raise mining.teacher.depth",
}
"""Filter -> what to change so that it drops less."""


def warnings(figures: dict[str, Any], settings: MiningSettings) -> list[str]:
    """What is unusual, with its numbers and the setting to change; most often nothing."""
    found = [
        _few_left(figures, settings),
        _short(figures, settings),
        _suspected(figures, settings),
        _much_used(figures),
        _recall(figures),
    ]
    return [text for text in found if text]


def _few_left(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    if not figures["candidates"] or figures["hit_rate"] >= settings.low_hit_rate:
        return None
    worst, count = _worst(figures["dropped"])
    if not count:
        relevant = figures["dropped"].get("positive", 0)
        return (
            f"hit rate {figures['hit_rate']:.1%} is below {settings.low_hit_rate:.0%} (mining.low_hit_rate), and no filter "
            f"dropped anything: {relevant:,} of {figures['candidates']:,} candidates are relevant to their query or of a "
            f"relevant item's group. Check the labels and the groups: {cure('positive')} finds more only where there are others"
        )
    return (
        f"hit rate {figures['hit_rate']:.1%} is below {settings.low_hit_rate:.0%} (mining.low_hit_rate): the filters are "
        f"too strict for this model. {worst} dropped most, {count:,} of {figures['candidates']:,} candidates: {cure(worst)}"
    )


def _short(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    if figures["queries_short"] <= MANY_SHORT * figures["queries"]:
        return None
    worst, count = _worst(figures.get("dropped_short") or figures["dropped"])
    took = f"{worst} took most of theirs ({count:,})" if count else "no filter took any of theirs, there were too few candidates"
    ways = dict.fromkeys(
        [*([cure(worst)] if count else []), f"raise mining.num_hits (now {settings.num_hits})", "lower mining.num_negatives"]
    )
    if settings.max_uses is not None:
        ways["raise mining.max_uses, which no filter's count shows"] = None
    none = f", {figures['queries_empty']:,} of them none at all" if figures["queries_empty"] else ""
    return (
        f"{figures['queries_short']:,} of {figures['queries']:,} queries have fewer than {settings.num_negatives} "
        f"negatives{none}; {took}: {'; or '.join(ways)}"
    )


def _suspected(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    suspected, candidates = figures["suspected_false_negatives"], figures["candidates"]
    if suspected <= settings.high_suspected * candidates:
        return None
    return (
        f"{suspected:,} of {candidates:,} candidates ({suspected / candidates:.1%}, mining.high_suspected = "
        f"{settings.high_suspected:.0%}) score above the query's best relevant item: many may be unlabelled positives. Read "
        f"the samples; keep mining.relative_margin on, set mining.near_duplicate, or ask a [mining.teacher]"
    )


def _much_used(figures: dict[str, Any]) -> str | None:
    most = figures["reuse"]["most_used"][:1]
    if not most or most[0]["uses"] <= max(MUCH_USED_LEAST, MUCH_USED * figures["queries"]):
        return None
    return (
        f"{most[0]['item_id']} ({most[0]['title']}) is a negative of {most[0]['uses']:,} of {figures['queries']:,} queries "
        f"({most[0]['uses'] / figures['queries']:.1%}): training pushes it away from nearly everything; set "
        f"mining.max_uses, or mining.popularity with a random choice"
    )


def _recall(figures: dict[str, Any]) -> str | None:
    recall = figures["search"].get("recall")
    if recall is None or recall >= FULL_RECALL:
        return None
    return (
        f"the search found {recall:.1%} of the nearest items (mode {figures['search'].get('mode', '?')}): hard negatives "
        f'are missing; raise mining.search.min_recall, or set mining.search.mode = "exact"'
    )


def _worst(dropped: dict[str, int]) -> tuple[str, int]:
    """(filter that dropped most, how many it dropped); what labels say is no filter to change."""
    cuts = {name: count for name, count in dropped.items() if name not in ("positive", "self")} or dropped
    return max(cuts.items(), key=lambda pair: pair[1], default=("no filter", 0))


def cure(name: str) -> str:
    """What to change so that a filter drops less."""
    return CURES.get(name) or CURES.get(name.partition(":")[0]) or "loosen it"
