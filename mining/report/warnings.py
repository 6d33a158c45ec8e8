"""What a person should know about a mining: each warning with its figures, and apart from them the settings to change.

A warning holds whatever follows. Which setting to change is said by this module only where nothing is trained: after a
training the gradient knows better whether filters are too strict or negatives false, and one voice speaks
(`jobs.finished.next_steps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mining.choice.filters import cures, more_hits
from mining.report.figures import MiningFigures
from mining.settings import MiningSettings

LOW_HIT_RATE = 0.10
"""Share of the candidates that the filters leave, below which a warning is printed."""

HIGH_SUSPECTED = 0.10
"""Share of the candidates that score above the query's best relevant item, above which a warning is printed."""

MANY_SHORT = 0.2
"""Share of the queries with fewer than N negatives above which a warning is printed."""

MUCH_USED = 0.10
"""Share of the queries that may have one item as a negative without a warning. At half of this, most minings have one."""

MUCH_USED_LEAST = 20
"""Queries that may have it in any case."""

FULL_RECALL = 0.99
"""Search recall below which a warning is printed."""

MUCH_TIED = 0.05
"""Share of the candidates a teacher has read that may share the highest score of their query before a warning is printed."""

BY_LABELS = ("positive", "self")
"""Filters that follow from the labels: no setting makes them stricter or milder."""


@dataclass(frozen=True)
class Warned:
    """Something unusual."""

    text: str
    """With its numbers."""
    ways: tuple[str, ...] = ()
    """What to change, each by itself: never a setting that is off, and never its present value."""

    @property
    def advice(self) -> str:
        """Both."""
        return self.text + (": " + "; or ".join(self.ways) if self.ways else "")


def warnings(figures: MiningFigures, settings: MiningSettings) -> list[Warned]:
    """What is unusual, and what to change; none for most minings."""
    texts = [
        _judged_left_out(figures, settings),
        _few_left(figures, settings),
        _short(figures, settings),
        _suspected(figures, settings),
        _much_used(figures, settings),
        _recall(figures, settings),
        _tied(figures, settings),
    ]
    return _with_one_voice([text for text in texts if text])


def _with_one_voice(found: list[Warned]) -> list[Warned]:
    """Without ways that would turn a setting the other way than an earlier warning does."""
    verbs: dict[str, str] = {}

    def agrees(way: str) -> bool:
        verb, _, rest = way.partition(" ")
        key = rest.split(" ", 1)[0]
        return not key.startswith("mining.") or verbs.setdefault(key, verb) == verb

    return [replace(one, ways=tuple(way for way in one.ways if agrees(way))) for one in found]


def _judged_left_out(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
    if not figures.judged_left_out:
        return None
    text = (
        f"{figures.judged_left_out:,} of {figures.judged + figures.judged_left_out:,} items judged irrelevant are not used: "
        f"their queries have more of them than mining.num_negatives ({settings.num_negatives})"
    )
    return Warned(text, ("raise mining.num_negatives",))


def _few_left(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
    if not figures.candidates or figures.hit_rate >= LOW_HIT_RATE:
        return None
    head = f"hit rate {figures.hit_rate:.1%} is below {LOW_HIT_RATE:.0%}"
    known = sum(figures.dropped.get(name, 0) for name in BY_LABELS)
    if figures.candidates - known < LOW_HIT_RATE * figures.candidates:  # no other filter could make up for it
        ways = more_hits(settings, figures.reuse.items)
        text = f"{head}: {known:,} of {figures.candidates:,} candidates are relevant to their query by the labels"
        return Warned(text + ("" if ways else ", and the corpus has no other items"), tuple(ways))
    name, count = _strictest(figures.dropped)
    ways = cures(name, settings, num_items=figures.reuse.items, cuts=figures.cuts)
    return Warned(f"{head}: {name} dropped most, {count:,} of {figures.candidates:,} candidates", tuple(ways))


def _short(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
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
    if settings.num_negatives > 1 and figures.queries_empty < figures.queries_short:  # no cure for queries without any
        ways.append("lower mining.num_negatives")
    if settings.max_uses is not None:
        ways.append(f"raise mining.max_uses (now {settings.max_uses}), which no filter's count shows")
    return Warned(head, tuple(dict.fromkeys(ways)))


def _suspected(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
    suspected, candidates = figures.suspected_false_negatives, figures.candidates
    if suspected <= HIGH_SUSPECTED * candidates:
        return None
    ways = []
    if settings.relative_margin is None and settings.target_discard_rate is None and settings.positive_quantile is None:
        ways.append("set mining.relative_margin or mining.positive_quantile")
    if settings.near_duplicate is None:
        ways.append("set mining.near_duplicate")
    if settings.teacher is None:
        ways.append("ask a [mining.teacher]")
    text = (
        f"{suspected:,} of {candidates:,} candidates ({suspected / candidates:.1%}, more than {HIGH_SUSPECTED:.0%}) score above "
        f"the query's best relevant item: many may be unlabelled positives"
    )
    return Warned(text, ("read the samples and label those that are relevant", *ways))


def _much_used(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
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
    text = (
        f"{most[0].item_id} ({most[0].title}) is a negative of {most[0].uses:,} of {figures.queries:,} queries "
        f"({most[0].uses / figures.queries:.1%}, more than {MUCH_USED:.0%}): training pushes it away from each of them"
    )
    return Warned(text, tuple(ways))


def _recall(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
    recall = figures.search.get("recall")
    if recall is None or recall >= FULL_RECALL:
        return None
    mode, least = figures.search.get("mode", "?"), settings.search.min_recall
    ways = [f"raise mining.search.min_recall (now {least})"] if mode == "ivf" and least < 1 else []
    text = f"the search found {recall:.1%} of the nearest items (mode {mode}): hard negatives are missing"
    return Warned(text, (*ways, 'set mining.search.mode = "exact"'))


def _tied(figures: MiningFigures, settings: MiningSettings) -> Warned | None:
    read, tied = figures.teacher_read, figures.teacher_tied
    if settings.teacher is not None and settings.teacher.kind == "llm":  # grades are few
        return None
    if tied <= MUCH_TIED * read:
        return None
    text = (
        f"the teacher gives {tied:,} of the {read:,} candidates that it has read ({tied / read:.1%}) the highest score of their "
        f"query, the same as another's or a relevant item's: its scores are saturated, so mining.teacher.max_score and "
        f"mining.teacher.relative_margin cannot tell these apart"
    )
    return Warned(text, ("give another mining.teacher.model", "take repeated texts out of the corpus if that is why"))


def _strictest(dropped: Mapping[str, int]) -> tuple[str, int]:
    """(filter that dropped most, how many it dropped); those that follow from the labels only where no other dropped any."""
    others = {name: count for name, count in dropped.items() if count and name not in BY_LABELS} or dropped
    return max(others.items(), key=lambda pair: pair[1])
