"""The table of retrievers and re-rankers in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from jobs.record.reranking import (
    REFERENCE,
    SHIPPED,
    Json,
    cell_rows,
    columns,
    shown_metrics,
    speed_columns,
    speed_rows,
    speed_sentence,
)


def show_reranker(console: Console, table: Json | None) -> None:
    """Print the table, what re-ranking takes, and what to ship; nothing where there is no re-ranker."""
    if table is None:
        return
    width = 2 + len(shown_metrics(table))  # the change and its interval do not fit beside the figures
    title = f"{table['candidates']} candidates re-ranked, {table['queries']:,} {table['split']} queries (*: to be shipped)"
    _print(console, title, columns(table)[:width], [row[:width] for row in cell_rows(table)])
    for row in cell_rows(table):
        if row[width] != REFERENCE:
            name = f"{row[0].removesuffix(SHIPPED)} + {row[1]}" if row[1] != "–" else row[0].removesuffix(SHIPPED)
            ties = f"; {row[-1]} tie at the top" if row[-1] not in ("–", "0") else ""
            console.print(f"{name}: {columns(table)[width]} {row[width]}, p = {row[width + 1]}{ties}", highlight=False)
    _print(console, "\nwhat re-ranking takes", speed_columns(table), speed_rows(table))
    console.print(f"{speed_sentence(table)}\n\n{table['sentence']}", highlight=False)


def _print(console: Console, title: str, names: list[str], rows: list[list[str]]) -> None:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name in names:
        shown.add_column(name, justify="left" if name in ("retriever", "re-ranker") else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
