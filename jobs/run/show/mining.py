"""What `hardmine mine` prints at its end: the hit rate, the filters, the warnings, the files."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jobs.record.stages import Kind, Scope, Stage
from mining.report.figures import ChoiceFigures
from mining.report.markdown import answer, waterfall
from mining.settings import MiningSettings


def waterfall_table(figures: dict[str, Any]) -> Table:
    """How many candidates each filter dropped."""
    table = Table(title="where the candidates went", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("step", "candidates", "share"):
        table.add_column(name, justify="left" if name == "step" else "right")
    steps = waterfall(figures["candidates"], figures["dropped"], figures["survivors"])
    for name, count, share in steps:
        table.add_row(name, f"{count:,}", f"{share:.1%}", style="bold" if name == steps[-1][0] else None)
    return table


def show_mining(console: Console, figures: dict[str, Any], settings: MiningSettings) -> None:
    """Print the figures of a mining."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(answer(ChoiceFigures.from_json(figures), settings).replace("**", ""))
    console.print(waterfall_table(figures))
    if figures["hardness"]:
        say(
            "hardness (negative − best relevant score): "
            + " · ".join(f"{name} {value:+.3f}" for name, value in figures["hardness"].items())
            + f" · {figures['above_positive']:,} above 0"
        )
    alone = figures["name"] == Stage(Kind.MINE, scope=Scope.ALONE).name
    for text in figures["advice" if alone else "warnings"]:
        say(f"! {text}")
    say(f"\nnegatives:  {figures['negatives']}")
    say(f"report:     {figures['report']}")
    export = figures.get("export")
    if export:
        say(f"export:     {export['path']} ({export['columns']}: {export['rows']:,} rows in {export['files']:,} file(s))")
    if export and export["left_out"]:
        why = (
            f"have fewer than {export['num']} negatives; choose a smaller --num"
            if export["columns"] == "n-tuple"
            else "have no negative"
        )
        say(f"! {export['left_out']:,} pairs of a query and a relevant item are not in the export: they {why}")
