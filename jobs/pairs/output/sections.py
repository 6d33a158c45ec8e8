"""`pairs.json` as sections of text and tables, for Markdown and for the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.pairs.signals import SIGNALS

Row = Sequence[str | int | float]
CORRECTIONS = {
    "coec": "Clicks are compared with the clicks that are expected at the same positions (COEC).",
    "ipw": "Each click weighs one over the click rate of its position, relative to the first, at most 10.",
    "off": "Positions are not corrected.",
}


@dataclass(frozen=True)
class Table:
    """A table with its caption; a bar is drawn for the column `bar`."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    bar: int | None = None


@dataclass(frozen=True)
class Section:
    """A heading, what it says, and its tables."""

    id: str
    title: str
    texts: list[str]
    tables: list[Table] = field(default_factory=list)
    code: list[tuple[str, str]] = field(default_factory=list)
    """(language, text)"""


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """All sections, in their order; columns of a table that are empty are left out."""
    return [_filled(part) for part in _all(summary)]


def _filled(part: Section) -> Section:
    tables = []
    for table in part.tables:
        used = [column for column in range(len(table.columns)) if any(row[column] != "" for row in table.rows)]
        columns, rows = tuple(table.columns[column] for column in used), [[row[column] for column in used] for row in table.rows]
        tables.append(Table(table.caption, columns, rows, None if table.bar is None else used.index(table.bar)))
    return replace(part, tables=tables)


def _all(summary: Mapping[str, Any]) -> list[Section]:
    return [_answer(summary), _read(summary), _signals(summary), _bias(summary), _labels(summary), _rejected(summary)]


def _answer(summary: Mapping[str, Any]) -> Section:
    ready = summary["readiness"]
    return Section("answer", "What these logs are good for", [ready["answer"], *ready["reasons"]])


def _read(summary: Mapping[str, Any]) -> Section:
    lost = sum(summary["skipped"].values())
    asked, clients = summary["queries_asked"], summary["clients"]
    texts = [
        f"{summary['rows']:,} rows in {sum(log['files'] for log in summary['logs']):,} files; {asked:,} queries of "
        f"{clients:,} users or sessions. {lost:,} rows or events were left out, each for one of the reasons below."
        if lost
        else f"{summary['rows']:,} rows; {asked:,} queries of {clients:,} users or sessions. Nothing was left out."
    ]
    tables = [
        Table("Logs", ("log", "files", "bytes", ""), [
            (log["url"], log["files"], log["bytes"], "earlier pairs" if log["earlier"] else "") for log in summary["logs"]
        ]),
        Table("Left out", ("reason", "count", "the first one"), [
            (reason, count, summary["examples"].get(reason, "")) for reason, count in summary["skipped"].items()
        ]),
        Table("Read with a doubt", ("what", "count"), list(summary["doubts"].items())),
    ]  # fmt: skip
    return Section("read", "What was read", texts, [table for table in tables if table.rows])


def _signals(summary: Mapping[str, Any]) -> Section:
    rules, labels, seen = summary["rules"], summary["labels"], summary["signals"]
    others = [name for name in labels if name not in rules]
    rows: list[Row] = [
        (name, seen.get(name, ""), labels.get(name, 0), rules[name]["grade"], rules[name]["weight"], rules[name]["rule"])
        for name in SIGNALS
        if labels.get(name) or seen.get(name)
    ]
    rows += [(name, "", labels[name], "", "", "from items, an earlier output, or an editor's own source") for name in others]
    texts = ["Each label has the grade and the source of its heaviest evidence. Grade 0 is judged irrelevant."]
    table = Table("Signals and labels", ("source", "seen", "labels", "grade", "weight", "rule"), rows)
    conflicts = [(name, count) for name, count in summary["conflicts"].items() if count]
    tables = [table, Table("Conflicts", ("pairs with evidence for both sides", "count"), conflicts)]
    return Section("signals", "Signals", texts, [table for table in tables if table.rows])


def _bias(summary: Mapping[str, Any]) -> Section:
    texts = [CORRECTIONS[summary["correction"]]]
    tables = []
    rows = [
        (one["position"], one["shown"], one["used"], round(one["used"] / one["shown"], 4), one["expected"])
        for one in summary["positions"]
    ]
    if rows:
        tables.append(Table("Positions", ("position", "shown", "used", "rate", "expected"), rows, bar=3))
    else:
        texts.append("The log does not say what was shown where, so there is nothing to correct.")
    popular = summary["popularity"]
    if popular.get("clicks"):
        texts.append(f"One percent of the items have {popular['top_percent_share']:.0%} of the clicks; "
                     f"{summary['totals'].get('labels of popular items, capped', 0):,} labels weigh less for it.")  # fmt: skip
    spelling = summary["spelling"]
    if spelling["variants"]:
        tables.append(Table("Spelling variants, counted as the text that was meant", ("variant", "meant"), spelling["examples"]))
        texts.append(f"{spelling['variants']:,} texts are spelling variants of a frequent one.")
    if summary["drift"]:
        texts.append(
            "Queries with a click, by quarter of the log: " + ", ".join(f"{share:.0%}" for share in summary["drift"]) + "."
        )
    return Section("bias", "Bias and trust", texts, tables)


def _labels(summary: Mapping[str, Any]) -> Section:
    cuts = summary["cuts"]
    texts = [
        f"Held out by time: texts first asked from {cuts[0]} are dev, from {cuts[1]} test, and the same share of older texts. "
        f"Labels for training come from before."
        if cuts
        else "Held out by a hash of the text: the log is short or has no times.",
        "No text is in two splits. Synthetic queries are trained on only.",
        f"{summary['totals'].get('pairs of several sources', 0):,} pairs are known from more than one source.",
    ]
    generated = summary["synthetic"]["generated"]
    written: list[Row] = [] if generated is None else list(generated.items())
    relevant = [
        (f"{number}{' or more' if number == '5' else ''}", count) for number, count in summary["relevant_per_query"].items()
    ]
    tables = [
        Table("Queries", ("kind and split", "queries"), list(summary["queries"].items())),
        Table("Labels by score", ("score", "labels"), sorted(summary["labels_by_score"].items())),
        Table("Relevant items of a query", ("relevant items", "queries"), relevant, bar=1),
        Table("Queries that a language model wrote", ("what", "count"), written),
        Table("Left out of the labels", ("reason", "count"), [pair for pair in summary["left_out"].items() if pair[1]]),
    ]
    return Section("labels", "Queries and labels", texts, [table for table in tables if table.rows])


def _rejected(summary: Mapping[str, Any]) -> Section:
    rejected = summary["rejected"]
    if not rejected["queries"]:
        return Section("rejected", "Rejected queries", ["None: no query was reformulated, left without a click, or scored low."])
    rows = [(one["name"], one["queries"], one["asked"], " · ".join(one["examples"])) for one in rejected["clusters"]]
    texts = [
        f"{rejected['queries']:,} queries found nothing good. They are in `rejected.csv`, by cluster, "
        f"{rejected['with_proposals']:,} with proposed items. Write an x under `accept` where a proposal is right, then add the "
        f"sheet: `hardmine pairs LOGS --accept rejected.csv --to DIR`."
    ]
    return Section("rejected", "Rejected queries", texts, [Table("Clusters", ("name", "queries", "asked", "for example"), rows)])
