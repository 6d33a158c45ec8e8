"""What a person should know about a mining: mining.json with all figures, mining.md to read, and the warnings."""

from __future__ import annotations

import hashlib
from typing import Any

from cluster.commits import Commit, Outcome
from jobs.context import Context
from jobs.mining_markdown import markdown
from jobs.stage_0_ingest import Ingested
from mining.report.counts import Counts, percentiles
from mining.report.describe import DescribeTask, describe
from mining.settings import MiningSettings

MANY_SHORT = 0.2
"""Share of the queries with fewer than N negatives above which it is said."""
MUCH_USED = 0.05
"""Share of the queries that may have one item as a negative before it is said."""
MUCH_USED_LEAST = 20
"""Queries that may have it in any case."""
FULL_RECALL = 0.99
"""Search recall below which it is said."""
REPORT_ONLY = {"confusion", "samples", "low_hit_rate", "high_suspected"}
"""Settings that change the report and no negative."""
FORMAT = 1
"""Part of a report's key: another number makes the reports of earlier versions anew."""

CURES = {
    "positive": "raise mining.num_hits",
    "duplicate": "raise mining.near_duplicate if it is set, or take repeated texts out of the corpus",
    "self": "raise mining.num_hits",
    "rule": "loosen mining.rules",
    "min_score": "lower mining.min_score",
    "max_score": "raise mining.max_score",
    "relative_margin": "lower mining.relative_margin (or mining.target_discard_rate), or set mining.margin_reference = "
                       "\"mean\" or \"highest\"",
    "absolute_margin": "lower mining.absolute_margin, or set mining.margin_reference = \"mean\" or \"highest\"",
    "ceiling": "raise mining.positive_quantile",
    "position": "lower mining.skip_first",
    "teacher": "raise mining.teacher.max_score or lower mining.teacher.relative_margin",
    "teacher:unread": "raise mining.teacher.depth",
}
"""Filter -> what to change so that it drops less."""


def summarise(counts: Counts) -> dict[str, Any]:
    """The counts as mining.json has them."""
    named = {"suspected": "suspected_false_negatives", "from_source": "sources"}
    figures = {named.get(name, name): value for name, value in vars(counts).items() if name != "hardness"}
    return figures | {"hit_rate": counts.survivors / max(1, counts.candidates), "hardness": percentiles(counts.hardness)}


def report_mining(context: Context, ingested: Ingested, mined: Commit, hits: Commit, *, name: str, folder: str) -> Commit:
    """Describe the negatives of stage `mined`; leaves mining.json and mining.md in its own folder and in `folder`.

    Its figures are all of mining.json but the samples.
    """
    config = context.config
    settings = config.mining

    def work(place: str) -> Outcome:
        task = DescribeTask(
            store=context.store, negatives=mined.parts("negatives"), corpus=ingested.corpus, queries=ingested.queries,
            labels=ingested.labels, num_items=int(ingested.tables.figures["items"]),
            num_queries=int(ingested.tables.figures["queries"]), settings=settings, seed=config.rounds.seed)
        described = describe(task, retries=config.cluster.retries)
        samples = described.pop("samples")
        search = {**hits.figures, "seconds": hits.seconds}
        figures = {**mined.figures, **described, "search": search, "report": context.store.url(f"{folder}/mining.md")}
        figures["warnings"] = warnings(figures, settings)
        text = markdown(f"{config.name}, {mined.name}", figures | {"samples": samples}, settings)
        for there in (place, folder):
            context.store.write_json(f"{there}/mining.json", figures | {"samples": samples})
            context.store.write_bytes(f"{there}/mining.md", text.encode())
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Outcome(files={f"{place}/mining.md": {"bytes": len(text.encode()), "sha256": digest}}, figures=figures)

    inputs = {"mine": mined.key, "format": FORMAT, "settings": settings.model_dump(include=REPORT_ONLY)}
    return context.stage("report", name, folder=f"{folder}/report", inputs=inputs, work=work)


def warnings(figures: dict[str, Any], settings: MiningSettings) -> list[str]:
    """What is unusual, with its numbers and the setting to change; most often nothing."""
    found = [_few_left(figures, settings), _short(figures, settings), _suspected(figures, settings), _much_used(figures),
             _recall(figures)]
    return [text for text in found if text]


def _few_left(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    if not figures["candidates"] or figures["hit_rate"] >= settings.low_hit_rate:
        return None
    worst, count = _worst(figures["dropped"])
    return (f"hit rate {figures['hit_rate']:.1%} is below {settings.low_hit_rate:.0%} (mining.low_hit_rate): the filters are "
            f"too strict for this model. {worst} dropped most, {count:,} of {figures['candidates']:,} candidates: {cure(worst)}")


def _short(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    if figures["queries_short"] <= MANY_SHORT * figures["queries"]:
        return None
    worst, count = _worst(figures.get("dropped_short") or figures["dropped"])
    ways = dict.fromkeys([cure(worst), f"raise mining.num_hits (now {settings.num_hits})", "lower mining.num_negatives"])
    if settings.max_uses is not None:
        ways["raise mining.max_uses, which no filter's count shows"] = None
    none = f", {figures['queries_empty']:,} of them none at all" if figures["queries_empty"] else ""
    return (f"{figures['queries_short']:,} of {figures['queries']:,} queries have fewer than {settings.num_negatives} "
            f"negatives{none}; {worst} took most of theirs ({count:,}): {'; or '.join(ways)}")


def _suspected(figures: dict[str, Any], settings: MiningSettings) -> str | None:
    suspected, candidates = figures["suspected_false_negatives"], figures["candidates"]
    if suspected <= settings.high_suspected * candidates:
        return None
    return (f"{suspected:,} of {candidates:,} candidates ({suspected / candidates:.1%}, mining.high_suspected = "
            f"{settings.high_suspected:.0%}) score above the query's best relevant item: many may be unlabelled positives. Read "
            f"the samples; keep mining.relative_margin on, set mining.near_duplicate, or ask a [mining.teacher]")


def _much_used(figures: dict[str, Any]) -> str | None:
    most = figures["reuse"]["most_used"][:1]
    if not most or most[0]["uses"] <= max(MUCH_USED_LEAST, MUCH_USED * figures["queries"]):
        return None
    return (f"{most[0]['item_id']} ({most[0]['title']}) is a negative of {most[0]['uses']:,} of {figures['queries']:,} queries "
            f"({most[0]['uses'] / figures['queries']:.1%}): training pushes it away from nearly everything; set "
            f"mining.max_uses, or mining.popularity with a random choice")


def _recall(figures: dict[str, Any]) -> str | None:
    recall = figures["search"].get("recall")
    if recall is None or recall >= FULL_RECALL:
        return None
    return (f"the search found {recall:.1%} of the nearest items (mode {figures['search'].get('mode', '?')}): hard negatives "
            f"are missing; raise mining.search.min_recall, or set mining.search.mode = \"exact\"")


def _worst(dropped: dict[str, int]) -> tuple[str, int]:
    """(filter that dropped most, how many it dropped); what labels say is no filter to change."""
    cuts = {name: count for name, count in dropped.items() if name not in ("positive", "self")} or dropped
    return max(cuts.items(), key=lambda pair: pair[1], default=("no filter", 0))


def cure(name: str) -> str:
    """What to change so that a filter drops less."""
    return CURES.get(name) or CURES.get(name.partition(":")[0]) or "loosen it"
