"""What `hardmine sweep` prints at its end: all trials, the chosen one, how sure the choice is."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = ("trial", "loss", "random", "recall", "epochs", "end", "s", "eff.\nneg.", "hardest\nweight")
"""Loss with its temperature τ or margin m; last, at the end of the trial: effective negatives, and the hardest one's weight."""


def trials_table(result: dict[str, Any]) -> Table:
    """The trials, best first."""
    table = Table(
        title=f"recall@{result['recall_at']} of {result['queries']:,} dev queries among the validation items; "
        f"trial 0 is the configuration as it is",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("trial", "loss", "end") else "right", no_wrap=True)
    for row in result["trials"]:
        loss = f"triplet m {row['margin']:g}" if row["loss"] == "triplet" else f"{row['loss']} τ {row['temperature']:g}"
        table.add_row(
            f"{row['trial']}{' (chosen)' if row['chosen'] else ''}",
            loss,
            f"{row['random_fraction']:g}",
            _figure(row["recall"], 4),
            str(row["epochs"]),
            row["state"],
            f"{row['seconds']:.0f}",
            _figure(row["effective_negatives"], 1),
            _figure(row["hardest_weight"], 3),
        )
    return table


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def show_sweep(console: Console, result: dict[str, Any]) -> None:
    """Print the end of a sweep."""
    console.print(trials_table(result))
    console.print(f"\n{result['reason']}; the best of many trials looks better than it is", highlight=False, soft_wrap=True)
    if result["out"]:
        console.print(f"next:   hardmine run {result['out']}", highlight=False, soft_wrap=True)
    else:
        console.print("no file is written: the configuration as it is was chosen", highlight=False, soft_wrap=True)
