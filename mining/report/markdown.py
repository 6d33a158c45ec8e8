"""mining.md: the answer, warnings, where the candidates went, and samples that a person can tick. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mining.report.confusion import Confusion
from mining.report.counts import Reuse
from mining.report.figures import ChoiceFigures, MiningFigures
from mining.report.samples import ShownItem, ShownSample
from mining.report.weak import ShownWeak
from mining.settings import MiningSettings

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(title: str, figures: MiningFigures, settings: MiningSettings, *, advises: bool = True) -> str:
    """The report of one mining. Args: advises: it says what to change; a run that trains has another voice for that."""
    parts = [
        f"# Negatives: {plain(title)}",
        answer(figures, settings),
        _warnings(figures.advice if advises else figures.warnings),
        _search(figures.search),
        _waterfall(figures),
        _hardness(figures),
        _sources(figures),
        _reuse(figures.reuse, figures.queries),
        _confusion(figures.confusion),
        _weak(figures.weak, figures.weak_queries, figures.queries),
        _samples(figures.samples),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def answer(figures: ChoiceFigures, settings: MiningSettings) -> str:
    """The first sentence."""
    served = figures.queries - figures.queries_empty
    each = figures.chosen / max(1, figures.queries)
    judged = f", {figures.judged:,} of them judged irrelevant," if figures.judged else ""
    return (
        f"**Hit rate {figures.hit_rate:.1%}: {figures.survivors:,} of {figures.candidates:,} candidates passed the "
        f"filters.** {figures.chosen:,} negatives{judged} for {served:,} of {figures.queries:,} queries, {each:.1f} of "
        f"{settings.num_negatives} each; {figures.queries_short:,} queries have fewer than {settings.num_negatives}."
    )


def plain(text: Any) -> str:
    """A text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def waterfall(candidates: int, dropped: Mapping[str, int], survivors: int) -> list[tuple[str, int, float]]:
    """(step, candidates, share of all): all candidates, what each filter dropped, what is left."""
    steps = [("candidates", candidates), *((f"− {name}", count) for name, count in dropped.items()), ("left", survivors)]
    return [(name, count, count / max(1, candidates)) for name, count in steps]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns hold texts, the others numbers."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * texts}{'---:|' * (len(heads) - texts)}"]
    return "\n".join(lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows])


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return "No warnings."
    return "## Warnings\n\n" + "\n".join(f"- {plain(text)}" for text in warnings)


def _search(search: Mapping[str, Any]) -> str:
    known = {name: search[name] for name in ("mode", "engine", "recall", "shards") if search.get(name) is not None}
    parts = [f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {plain(value)}" for name, value in known.items()]
    return f"Search: {', '.join([*parts, str(search['seconds']['wall']) + ' s'])}."


def _waterfall(figures: MiningFigures) -> str:
    steps = waterfall(figures.candidates, figures.dropped, figures.survivors)
    rows = [(plain(name), f"{count:,}", f"{share:.1%}") for name, count, share in steps]
    rows[-1] = (f"**{rows[-1][0]}**", *rows[-1][1:])
    paragraphs = ["## Where the candidates went", "A candidate counts for the first filter that drops it."]
    cuts = {name: value for name, value in vars(figures.cuts).items() if value is not None} if figures.cuts else {}
    if cuts:
        values = ", ".join(f"{name} {value:.4f}" for name, value in cuts.items())
        paragraphs.append(f"Cuts computed for this model: {values}.")
    if figures.teacher_read:
        tied = figures.teacher_tied / figures.teacher_read
        read = f"The teacher has read {figures.teacher_read:,} candidates"
        paragraphs.append(f"{read}; {tied:.1%} of them share the highest score of their query.")
        if figures.relabelled:
            paragraphs.append(
                f"{figures.relabelled:,} of what the teacher dropped are relevant items in training, with the source teacher."
            )
    return "\n\n".join([*paragraphs, _table(("step", "candidates", "share"), rows)])


def _hardness(figures: MiningFigures) -> str:
    if not figures.hardness:
        return ""
    heads = [name.removeprefix("p") + " %" for name in figures.hardness]
    values = [f"{value:+.3f}" for value in figures.hardness.values()]
    table = _table(("of the negatives", *heads), [("at most", *values)])
    return (
        f"## Hardness\n\nThe score of a negative minus that of the query's best relevant item; nearer to 0 is harder. "
        f"{figures.above_positive:,} of {figures.chosen:,} negatives score above that item.\n\n{table}"
    )


def _sources(figures: MiningFigures) -> str:
    chosen = max(1, figures.chosen)
    rows = [(name, f"{count:,}", f"{count / chosen:.1%}") for name, count in figures.sources.items()]
    if figures.new < figures.chosen:  # else it is the first mining, or all are new
        rows.append(("new since the round before", f"{figures.new:,}", f"{figures.new / chosen:.1%}"))
    return "## Where the negatives come from\n\n" + _table(("source", "negatives", "share"), rows) if rows else ""


def _reuse(reuse: Reuse, queries: int) -> str:
    if not reuse.used:
        return ""
    sentence = (
        f"{reuse.used:,} of {reuse.items:,} items are a negative of some query; the most used 1 % of the items have "
        f"{reuse.top_share:.1%} of all uses (Gini {reuse.gini:.2f})."
    )
    often = _table(("uses", *reuse.histogram), [("items", *(f"{items:,}" for items in reuse.histogram.values()))])
    most = _table(
        ("used most", "title", "queries", "share"),
        [
            (plain(item.item_id), plain(item.title), f"{item.uses:,}", f"{item.uses / max(1, queries):.1%}")
            for item in reuse.most_used
        ],
        texts=2,
    )
    return f"## Reuse\n\n{sentence}\n\n{often}\n\n{most}"


def _confusion(confusion: Confusion | None) -> str:
    if confusion is None:
        return ""
    names = [plain(name) for name in confusion.values]
    rows = [
        (name, f"{sum(counts):,}", *(f"{count / sum(counts):.0%}" if count else "" for count in counts))
        for name, counts in zip(names, confusion.counts, strict=True)
        if sum(counts)
    ]
    return (
        f"## What is taken for what: {plain(confusion.column)}\n\nEach row: of the negatives of queries whose relevant items "
        f"have this value, the share that has the value above.\n\n" + _table(("relevant", "negatives", *names), rows)
    )


def _weak(weak: Sequence[ShownWeak], count: int, queries: int) -> str:
    if not count:
        return ""
    head = (
        f"## Weak labels\n\n{count:,} of {queries:,} queries are left out of training: the teacher scores many candidates above "
        f"their relevant items. Read whether the label is wrong, or the teacher."
    )
    rows = [
        (
            f"{plain(one.query)} ({plain(one.query_id)})",
            f"{plain(one.item)} ({plain(one.item_id)})",
            f"{one.teacher_score:.3f}",
            f"{one.better:,}",
        )
        for one in weak
    ]
    return head + (
        "\n\n" + _table(("query", "its best relevant item", "teacher", "candidates above"), rows, texts=2) if rows else ""
    )


def _samples(samples: Sequence[ShownSample]) -> str:
    if not samples:
        return ""
    head = (
        f"## {len(samples)} queries to read\n\nTick a negative that is relevant after all: it is a false negative. **!** "
        f"marks those that score above the query's best relevant item."
    )
    return "\n\n".join([head, *(_sample(number, sample) for number, sample in enumerate(samples, start=1))])


def _sample(number: int, sample: ShownSample) -> str:
    lines = [f"### {number}. {plain(sample.query)}", "", f"Query {plain(sample.query_id)}. Relevant:", ""]
    lines += [f"- {item.score:.3f} {_item(item)}" for item in sample.relevant]
    more = sample.relevant_total - len(sample.relevant)
    if more:
        lines.append(f"- and {more:,} more")
    lines += ["", "Negatives:", ""]
    for item in sample.negatives:
        position = f", position {item.position}" if item.position >= 0 else ""
        mark = " **!**" if item.suspected else ""
        lines.append(f"- [ ] {item.score:.3f}{mark} ({item.source}{position}) {_item(item)}")
    return "\n".join(lines)


def _item(item: ShownItem) -> str:
    return f"{plain(item.text)} ({plain(item.item_id)})"
