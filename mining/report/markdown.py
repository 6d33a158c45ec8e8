"""mining.md: the answer, what is unusual, where the candidates went, and samples that a person can tick. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mining.settings import MiningSettings

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(title: str, figures: dict[str, Any], settings: MiningSettings) -> str:
    """The report of one mining.

    Args:
        figures: as mining.json has them, samples included.
    """
    parts = [
        f"# Negatives: {plain(title)}",
        answer(figures, settings),
        _warnings(figures["warnings"]),
        _search(figures),
        _waterfall(figures),
        _hardness(figures),
        _sources(figures),
        _reuse(figures),
        _confusion(figures["confusion"]),
        _samples(figures["samples"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def answer(figures: dict[str, Any], settings: MiningSettings) -> str:
    """The first sentence."""
    queries = figures["queries"]
    served = queries - figures["queries_empty"]
    each = figures["chosen"] / max(1, queries)
    return (
        f"**Hit rate {figures['hit_rate']:.1%}: {figures['survivors']:,} of {figures['candidates']:,} candidates passed the "
        f"filters.** {figures['chosen']:,} negatives for {served:,} of {queries:,} queries, {each:.1f} of "
        f"{settings.num_negatives} each; {figures['queries_short']:,} queries have fewer than {settings.num_negatives}."
    )


def plain(text: Any) -> str:
    """A text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def waterfall(figures: dict[str, Any]) -> list[tuple[str, int, float]]:
    """(step, candidates, share of all) from what was found, over what each filter dropped, to what is left."""
    total = max(1, figures["candidates"])
    steps = [
        ("candidates", figures["candidates"]),
        *((f"− {name}", count) for name, count in figures["dropped"].items()),
        ("left", figures["survivors"]),
    ]
    return [(name, count, count / total) for name, count in steps]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns hold texts, the others numbers."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * texts}{'---:|' * (len(heads) - texts)}"]
    return "\n".join(lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows])


def _warnings(found: Sequence[str]) -> str:
    if not found:
        return "Nothing is unusual."
    return "## Warnings\n\n" + "\n".join(f"- {plain(text)}" for text in found)


def _search(figures: dict[str, Any]) -> str:
    search = figures["search"]
    said = [f"{name} {_figure(search[name])}" for name in ("mode", "engine", "recall", "shards") if search.get(name) is not None]
    return f"Search: {', '.join([*said, str(search['seconds']['wall']) + ' s'])}."


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else plain(value)


def _waterfall(figures: dict[str, Any]) -> str:
    rows = [(plain(name), f"{count:,}", f"{share:.1%}") for name, count, share in waterfall(figures)]
    rows[-1] = (f"**{rows[-1][0]}**", *rows[-1][1:])
    said = ["## Where the candidates went", "A candidate counts for the first filter that drops it."]
    cuts = {name: value for name, value in (figures.get("cuts") or {}).items() if value is not None}
    if cuts:
        said.append(f"Cuts found for this model: {', '.join(f'{name} {value:.4f}' for name, value in cuts.items())}.")
    return "\n\n".join([*said, _table(("step", "candidates", "share"), rows)])


def _hardness(figures: dict[str, Any]) -> str:
    found = figures["hardness"]
    if not found:
        return ""
    names = [name.removeprefix("p") + " %" for name in found]
    table = _table(("of the negatives", *names), [("at most", *(f"{value:+.3f}" for value in found.values()))])
    return (
        f"## Hardness\n\nScore of a negative minus that of the query's best relevant item; nearer to 0 is harder. "
        f"{figures['above_positive']:,} of {figures['chosen']:,} negatives score above it.\n\n{table}"
    )


def _sources(figures: dict[str, Any]) -> str:
    chosen = max(1, figures["chosen"])
    rows = [(name, f"{count:,}", f"{count / chosen:.1%}") for name, count in figures["sources"].items()]
    if figures.get("new", figures["chosen"]) < figures["chosen"]:  # else it is the first, or all are new
        rows.append(("new since the round before", f"{figures['new']:,}", f"{figures['new'] / chosen:.1%}"))
    return "## Where the negatives are from\n\n" + _table(("source", "negatives", "share"), rows) if rows else ""


def _reuse(figures: dict[str, Any]) -> str:
    found, queries = figures["reuse"], max(1, figures["queries"])
    if not found["used"]:
        return ""
    said = (
        f"{found['used']:,} of {found['items']:,} items are a negative of some query; the most used 1 % of the items have "
        f"{found['top_share']:.1%} of all uses (Gini {found['gini']:.2f})."
    )
    often = _table(("uses", *found["histogram"]), [("items", *(f"{items:,}" for items in found["histogram"].values()))])
    most = _table(
        ("used most", "title", "queries", "share"),
        [
            (plain(row["item_id"]), plain(row["title"]), f"{row['uses']:,}", f"{row['uses'] / queries:.1%}")
            for row in found["most_used"]
        ],
        texts=2,
    )
    return f"## Reuse\n\n{said}\n\n{often}\n\n{most}"


def _confusion(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    names = [plain(name) for name in found["values"]]
    rows = [
        (name, f"{sum(counts):,}", *(_share(count, sum(counts)) for count in counts))
        for name, counts in zip(names, found["counts"], strict=True)
        if sum(counts)
    ]
    return (
        f"## What is taken for what: {plain(found['column'])}\n\nOf the negatives of queries whose relevant items have the "
        f"value on the left, the share that has the value above.\n\n" + _table(("relevant", "negatives", *names), rows)
    )


def _share(count: int, total: int) -> str:
    return f"{count / total:.0%}" if count else ""


def _samples(samples: Sequence[dict[str, Any]]) -> str:
    if not samples:
        return ""
    head = (
        f"## {len(samples)} queries to read\n\nTick a negative that is relevant after all: a false negative. **!** marks "
        f"those that score above the query's best relevant item."
    )
    return "\n\n".join([head, *(_sample(number, sample) for number, sample in enumerate(samples, start=1))])


def _sample(number: int, sample: dict[str, Any]) -> str:
    lines = [f"### {number}. {plain(sample['query'])}", "", f"Query {plain(sample['query_id'])}. Relevant:", ""]
    lines += [f"- {item['score']:.3f} {_item(item)}" for item in sample["relevant"]]
    more = sample["relevant_total"] - len(sample["relevant"])
    if more:
        lines.append(f"- and {more:,} more")
    lines += ["", "Negatives:", ""]
    for item in sample["negatives"]:
        where = f", position {item['position']}" if item["position"] >= 0 else ""
        mark = " **!**" if item["suspected"] else ""
        lines.append(f"- [ ] {item['score']:.3f}{mark} ({item['source']}{where}) {_item(item)}")
    return "\n".join(lines)


def _item(item: dict[str, Any]) -> str:
    return f"{plain(item['text'])} ({plain(item['item_id'])})"
