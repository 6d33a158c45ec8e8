"""What a person sees at the end of `hardmine probe`: both arms, the two differences, the verdict."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics import metric_name

NAMES = {metric: metric_name(metric) for metric in ("hit@5", "hit@10", "recall@3", "ndcg@10")}


def arms_table(result: dict[str, Any]) -> Table:
    """The figures of the three models."""
    table = Table(
        title=f"{result['fraction']:.0%} of the training queries, {result['steps']:,} steps in each arm",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("negatives")
    for title in NAMES.values():
        table.add_column(title, justify="right")
    for label, key in (("off the shelf", "baseline"), ("random only", "random"), ("mined", "mined")):
        values = [result[key].get(name) for name in NAMES]
        table.add_row(label, *("–" if value is None else f"{value:.3f}" for value in values))
    return table


def check_lines(result: dict[str, Any]) -> list[str]:
    """One line for each difference with its interval."""
    lines = []
    for check in result["checks"]:
        interval = check["interval"]
        zero = "excludes" if interval["excludes_zero"] else "includes"
        lines.append(
            f"{NAMES[check['name']]}, mined − random: {check['value']:+.2f} points, {result['confidence']:.0%} interval "
            f"[{interval['low']:+.2f}, {interval['high']:+.2f}] over {interval['queries']:,} dev queries ({zero} 0); "
            f"asked for {check['threshold']:+.2f}: {'passed' if check['passed'] else 'not passed'}"
        )
    return lines


def show_probe(console: Console, result: dict[str, Any]) -> None:
    """Print the end of a probe."""
    console.print(arms_table(result))
    for line in [*check_lines(result), f"\n{result['verdict']}", f"run:    {result['output']} ({result['seconds']:.0f} s)"]:
        console.print(line, highlight=False, soft_wrap=True)
