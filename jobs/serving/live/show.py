"""What `hardmine compare-live` prints, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.errors import ConfigError

Json = dict[str, Any]
TEMPLATE = Path(__file__).parent / "changes.html"


def write_page(result: Json, path: Path) -> None:
    """The figures and the largest changes as one HTML file. Raises ConfigError: it cannot be written."""
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(**result, rows=_rows(result), clicks_told=clicks_told(result["clicks"]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--page {path}: cannot be written ({error.strerror}); name another file") from error


def _rows(result: Json) -> list[tuple[str, Json]]:
    """(name, figures): all queries, by band, by slice."""
    rows = [("all", result), *result["bands"].items()]
    for name, values in result["slices"].items():
        rows += [(f"{name} = {value}", one) for value, one in values.items()]
    return rows


def clicks_told(clicks: Json | None) -> list[str]:
    """The expected clicks in sentences, then what is assumed; nothing where the log has no clicks on what it showed."""
    if clicks is None:
        return []
    known = f"{clicks['known_b']:.0%} of the looks at B's results fall on what the log has shown"
    if clicks["says"] == "little":
        told = f"Expected clicks: the log says little; only {known}. Test it on traffic."
    else:
        told = (
            f"Expected clicks per query, by the log's {clicks['clicks']:,} clicks: A {clicks['a']:.3f}, B {clicks['b']:.3f} "
            f"({clicks['difference']:+.3f} [{clicks['low']:+.3f}, {clicks['high']:+.3f}]); {known}, and B gets "
            f"{clicks['b_if_unwanted']:.3f} if nobody wants the rest. A test on traffic decides."
        )
    return [told, *(f"assumed: {one}" for one in clicks["assumes"])]


def show_replay(console: Console, result: Json, page: Path) -> None:
    """Print the figures for a person."""
    console.print(f"A: {result['a']}\nB: {result['b']}", highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    labelled = "labelled" in result
    heads = ["", "queries", "overlap", "RBO", "first\nchanged"]
    for name in [*heads, *(["relevant\nin A", "\nin B", "gained", "lost"] if labelled else [])]:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, one in _rows(result):
        cells = [name.replace("[", "\\["), f"{one['queries']:,}", f"{one['overlap']:.0%}", f"{one['rbo']:.3f}"]
        cells.append(f"{one['first_changed']:.0%}")
        if labelled:
            known = one.get("labelled")
            shares = [f"{known['found_a']:.1%}", f"{known['found_b']:.1%}"] if known else ["–", "–"]
            cells += shares + ([str(known["gained"]), str(known["lost"])] if known else ["–", "–"])
        table.add_row(*cells)
    console.print(table)
    for line in clicks_told(result["clicks"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    forecast = result["interleaving"]
    console.print(
        f"{forecast['share_that_differs']:.0%} of the queries would see another list. An interleaving of these two needs "
        f"{forecast['decided_for_55_percent']:,} decided queries to find that one side wins 55 % of them.\n"
        f"The largest changes: {page}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def show_outcome(console: Console, result: Json) -> None:
    """Print the outcome of a test for a person."""
    kind = "A/B test" if result["kind"] == "ab" else "interleaving"
    look = f", look {result['look']} of {result['looks']}" if result["looks"] > 1 else ""
    lines = [result["answer"], f"{kind}, {result['units']:,} units, {result['decided']:,} decided{look}"]
    if result["ignored_units"]:
        lines.append(f"{result['ignored_units']:,} units came after the planned ones and are left out")
    share = "won" if result["kind"] == "interleaving" else "rate"
    lines.append(
        f"a {share} {result['a']:.1%}, b {share} {result['b']:.1%}: {100 * result['effect']:+.1f} points "
        f"[{100 * result['low']:+.1f}, {100 * result['high']:+.1f}], p = {result['p']:.2g} (limit {result['limit']:.2g})"
    )
    lines.append(f"a test of this size finds an effect of {100 * result['detectable']:.1f} points four times in five")
    lines += [f"assumed: {one}" for one in result["assumes"]]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
