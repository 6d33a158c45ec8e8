"""What a person sees at the end of `hardmine gate`: the checks, the answer, and the queries that got worse."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.gate.check import FORMS, plain
from eval.metrics import metric_name
from jobs.finished.show import model_name

SHOWN = 3
"""Queries shown with their results; gate.json has more."""
STYLES = {"passed": "green", "inconclusive": "yellow", "failed": "bold red", "not checked": "dim"}


def checks_table(result: dict[str, Any]) -> Table:
    """One line for each check."""
    table = Table(
        title=f"{_model(result)} on {result['queries']:,} {result['split']} queries",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in ("check", "value", f"{result['confidence']:.0%} interval", "threshold", "attain-\nable", ""):
        left, folds = name in ("check", ""), name == "check"  # on a narrow terminal only names are folded: nothing is cut off
        table.add_column(name, justify="left" if left else "right", no_wrap=not folds, overflow="fold" if folds else "ellipsis")
    for check in result["checks"]:
        interval, outcome = check["interval"], check["outcome"]
        form = FORMS[check["unit"]].replace("points", "pt")
        between = f"{plain(form, interval['low'])} to {plain(form, interval['high'])}" if interval else ""
        table.add_row(
            check["name"],
            "–" if check["value"] is None else form.format(check["value"]),
            between,
            "–" if check["threshold"] is None else form.format(check["threshold"]),
            "" if check["attainable"] is None else form.format(check["attainable"]),
            Text(outcome, style=STYLES[outcome]),
        )
    return table


def _model(result: dict[str, Any]) -> str:
    model = "the off-the-shelf model" if result["round"] < 0 else model_name(result["round"])
    return f"{model} with the {result['reranker']} re-ranker" if result.get("reranker") else model


def not_checked_lines(result: dict[str, Any]) -> list[str]:
    """Why checks were not made, those of one reason together."""
    names: dict[str, list[str]] = {}
    for check in result["checks"]:
        if check["outcome"] == "not checked":
            names.setdefault(check["why"], []).append(check["name"])
    return [f"not checked: {', '.join(some)}: {why}" for why, some in names.items()]


def latency_line(latency: dict[str, Any] | None) -> str | None:
    """What was timed, on what."""
    if latency is None:
        return None
    machine = latency["machine"]
    base = f", off the shelf {latency['base_p50']:.2f} and {latency['base_p95']:.2f} ms" if latency["base_p50"] else ""
    return (
        f"latency: median {latency['model_p50']:.2f} ms, 95th percentile {latency['model_p95']:.2f} ms{base}; "
        f"{latency['pairs']} queries one at a time ({latency['what']}) on {machine['device']} ({machine['processor']}, "
        f"{machine['threads']} threads, load {machine['load']})"
    )


def worse_table(query: dict[str, Any]) -> Table:
    """The first results of one query under both models; ✓ relevant, ✗ judged irrelevant."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("", "off the shelf", "now"):
        table.add_column(name, justify="right" if not name else "left", overflow="fold")
    for position in range(max(len(query["before"]), len(query["after"]))):
        table.add_row(str(position + 1), *(_hit(query[side], position) for side in ("before", "after")))
    return table


def _hit(hits: list[dict[str, Any]], position: int) -> Text:
    if position >= len(hits):
        return Text("")
    hit = hits[position]
    mark = {True: "✓ ", False: "✗ ", None: "  "}[hit["relevant"]]
    return Text(f"{mark}{hit['title'][:60]} ({hit['item_id']})", style="green" if hit["relevant"] else "")


def show_gate(console: Console, result: dict[str, Any]) -> None:
    """Print the end of a gate."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    console.print(checks_table(result))
    for text in [*not_checked_lines(result), *result["notes"]]:
        say(f"! {text}")
    timed = latency_line(result["latency"])
    if timed is not None:
        say(timed)
    if result["worse"]:
        say(
            f"\n{result['worse_total']:,} of {result['queries']:,} queries got worse in {metric_name(result['primary'])}, "
            f"{result['better_total']:,} better; those that lost most:"
        )
    for query in result["worse"][:SHOWN]:
        moves = ", ".join(
            f"{item['title'][:40]} {item['before'] or '–'} → {item['after'] or '–'}" for item in query["relevant"][:3]
        )
        say(f"\n{query['query']} ({query['query_id']}; {100 * query['change']:+.1f} points; position of {moves})")
        console.print(worse_table(query))
    say(f"\n{result['verdict']}")
    say(f"all of it: {result['output']}/gate.json")
