"""pairs.json, pairs.md and pairs.html, and what the command prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from rich.console import Console

from cluster.storage.store import Store
from jobs.pairs.output.logging_advice import JAVASCRIPT, PYTHON, UBI_SCHEMA
from jobs.pairs.output.sections import Section, Table, sections

ROWS = 60
"""Rows of a table in Markdown and on the page."""


def write_outputs(store: Store, summary: dict[str, Any]) -> None:
    """Write the page and the Markdown, and pairs.json last: where it is, everything is."""
    parts = [*sections(summary), _log_this()]
    store.write_bytes("ubi.schema.json", json.dumps(UBI_SCHEMA, indent=1).encode())
    store.write_bytes("pairs.md", to_markdown(parts).encode())
    store.write_bytes("pairs.html", to_page(parts, summary).encode())
    store.write_json("pairs.json", summary)


def _log_this() -> Section:
    text = (
        "Log every query with the 20 to 40 results that were shown, and every action with its position. "
        "`ubi.schema.json` describes the lines; these loggers write them."
    )
    return Section("log", "What to log from now on", [text], code=[("python", PYTHON), ("javascript", JAVASCRIPT)])


def to_markdown(parts: list[Section]) -> str:
    """All sections."""
    lines = ["# Pairs from logs", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        for text in part.texts:
            lines += [text, ""]
        for table in part.tables:
            lines += [f"**{table.caption}**", "", f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in table.rows[:ROWS]]
            lines += [*_more(table), ""]
        for language, code in part.code:
            lines += [f"```{language}", code.rstrip(), "```", ""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return (f"{value:,}" if isinstance(value, int) else str(value)).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _more(table: Table) -> list[str]:
    return [f"… and {len(table.rows) - ROWS} more, in pairs.json"] if len(table.rows) > ROWS else []


def to_page(parts: list[Section], summary: Mapping[str, Any]) -> str:
    """The page: one file that loads nothing."""
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = lambda value: f"{value:,}" if isinstance(value, int) else _code(str(value))
    environment.filters["code"] = _code
    data = json.dumps(summary, ensure_ascii=False).replace("<", "\\u003c")
    return environment.get_template("page.html").render(sections=parts, rows=ROWS, data=data, ready=summary["readiness"])


def _code(text: str) -> Markup:
    """A text for the page, with what is between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def show_pairs(console: Console, summary: Mapping[str, Any], to: str) -> None:
    """The answer, the counts, and what to do next."""
    queries, labels = sum(summary["queries"].values()), sum(summary["labels"].values())
    ready = summary["readiness"]
    lost = sum(summary["skipped"].values())
    lines = [
        f"{queries:,} queries and {labels:,} labels from {summary['rows']:,} rows; {lost:,} left out, with reasons",
        ready["answer"],
        *(f"· {reason}" for reason in ready["reasons"]),
        f"{summary['rejected']['queries']:,} rejected queries"
        + (f": {to}/rejected.csv" if summary["rejected"]["queries"] else ""),
        f"the page: {to}/pairs.html",
        f"next: hardmine init {to}/tables"
        if summary["items"]
        else f"next: put your items beside {to}/tables/queries and {to}/tables/qrels, then hardmine init {to}/tables",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
