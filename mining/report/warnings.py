"""What a person should know about a mining: each warning with its figures and the settings to change."""

from __future__ import annotations

from collections.abc import Mapping

from mining.choice.filters import cures, more_hits
from mining.report.figures import MiningFigures
from mining.settings import MiningSettings

MANY_SHORT = 0.2
"""Share of the queries with fewer than N negatives above which a warning is printed."""

MUCH_USED = 0.05
"""Share of the queries that may have one item as a negative without a warning."""

MUCH_USED_LEAST = 20
"""Queries that may have it in any case."""

FULL_RECALL = 0.99
"""Search recall below which a warning is printed."""

BY_LABELS = ("positive", "self")
"""Filters that follow from the labels: no setting makes them stricter or milder."""


def warnings(figures: MiningFigures, settings: MiningSettings) -> list[str]:
    """What is unusual, with its numbers and what to change; none for most minings.

    A setting is named only if changing it can help: never one that is off, and never its present value.
    """
    texts = [
        _few_left(figures, settings),
        _short(figures, settings),
        _suspected(figures, settings),
        _much_used(figures, settings),
        _recall(figures, settings),
    ]
    return [text for text in texts if text]


def _few_left(figures: MiningFigures, settings: MiningSettings) -> str | None:
    if not figures.candidates or figures.hit_rate >= settings.low_hit_rate:
        return None
    head = f"hit rate {figures.hit_rate:.1%} is below {settings.low_hit_rate:.0%} (mining.low_hit_rate)"
    known = sum(figures.dropped.get(name, 0) for name in BY_LABELS)
    if figures.candidates - known < settings.low_hit_rate * figures.candidates:  # no other filter could make up for it
        ways = more_hits(settings, figures.reuse.items)
        return (
            f"{head}: {known:,} of {figures.candidates:,} candidates are relevant to their query by the labels"
            f"{_advice(ways) or ', and the corpus has no other items'}"
        )
    name, count = _strictest(figures.dropped)
    ways = cures(name, settings, num_items=figures.reuse.items, cuts=figures.cuts)
    return (
        f"{head}: the filters are too strict for this model. {name} dropped most, {count:,} of {figures.candidates:,} "
        f"candidates{_advice(ways)}"
    )


def _short(figures: MiningFigures, settings: MiningSettings) -> str | None:
    if figures.queries_short <= MANY_SHORT * figures.queries:
        return None
    empty = f", {figures.queries_empty:,} of them none at all" if figures.queries_empty else ""
    head = f"{figures.queries_short:,} of {figures.queries:,} queries have fewer than {settings.num_negatives} negatives{empty}"
    dropped = figures.dropped_short or figures.dropped
    ways: list[str] = []
    more = more_hits(settings, figures.reuse.items)
    if any(dropped.values()):
        name, count = _strictest(dropped)
        if name == "teacher:unread":  # the teacher reads no more of them
            more = []
        if name in BY_LABELS:
            head += f"; all that was dropped of theirs ({count:,}) is relevant to its query by the labels"
        else:
            head += f"; {name} dropped most of their candidates ({count:,})"
            ways = cures(name, settings, num_items=figures.reuse.items, cuts=figures.cuts)
    ways += more
    if settings.num_negatives > 1:
        ways.append("lower mining.num_negatives")
    if settings.max_uses is not None:
        ways.append(f"raise mining.max_uses (now {settings.max_uses}), which no filter's count shows")
    return head + _advice(list(dict.fromkeys(ways)))


def _suspected(figures: MiningFigures, settings: MiningSettings) -> str | None:
    suspected, candidates = figures.suspected_false_negatives, figures.candidates
    if suspected <= settings.high_suspected * candidates:
        return None
    ways = []
    if settings.relative_margin is None and settings.target_discard_rate is None and settings.positive_quantile is None:
        ways.append("set mining.relative_margin or mining.positive_quantile")
    if settings.near_duplicate is None:
        ways.append("set mining.near_duplicate")
    if settings.teacher is None:
        ways.append("ask a [mining.teacher]")
    return (
        f"{suspected:,} of {candidates:,} candidates ({suspected / candidates:.1%}, mining.high_suspected = "
        f"{settings.high_suspected:.0%}) score above the query's best relevant item: many may be unlabelled positives. Read "
        f"the samples and label those that are relevant" + "".join(f"; or {way}" for way in ways)
    )


def _much_used(figures: MiningFigures, settings: MiningSettings) -> str | None:
    most = figures.reuse.most_used[:1]
    if not most or most[0].uses <= max(MUCH_USED_LEAST, MUCH_USED * figures.queries):
        return None
    ways = []
    if settings.max_uses is None:
        ways.append("set mining.max_uses")
    elif most[0].uses <= settings.max_uses:  # else people judged it irrelevant to more queries than that
        ways.append(f"lower mining.max_uses (now {settings.max_uses})")
    if settings.popularity is None:
        random = ' and mining.choose = "softmax"' if settings.choose == "top" else ""
        ways.append(f"set mining.popularity{random}")
    return (
        f"{most[0].item_id} ({most[0].title}) is a negative of {most[0].uses:,} of {figures.queries:,} queries "
        f"({most[0].uses / figures.queries:.1%}): training pushes it away from nearly everything{_advice(ways)}"
    )


def _recall(figures: MiningFigures, settings: MiningSettings) -> str | None:
    recall = figures.search.get("recall")
    if recall is None or recall >= FULL_RECALL:
        return None
    return (
        f"the search found {recall:.1%} of the nearest items (mode {figures.search.get('mode', '?')}): hard negatives "
        f"are missing; raise mining.search.min_recall (now {settings.search.min_recall}), or set mining.search.mode = "
        f'"exact"'
    )


def _strictest(dropped: Mapping[str, int]) -> tuple[str, int]:
    """(filter that dropped most, how many it dropped); those that follow from the labels only where no other dropped any."""
    others = {name: count for name, count in dropped.items() if count and name not in BY_LABELS} or dropped
    return max(others.items(), key=lambda pair: pair[1])


def _advice(ways: list[str]) -> str:
    return ": " + "; or ".join(ways) if ways else ""
