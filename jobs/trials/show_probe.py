"""What `hardmine probe` prints at its end: the figures of both arms, the two differences, the advice."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics import metric_name
from jobs.trials.probe import ProbeResult, advice

NAMES = {metric: metric_name(metric) for metric in ("hit@5", "hit@10", "recall@3", "ndcg@10")}


def arms_table(result: ProbeResult) -> Table:
    """The metrics of the three models."""
    table = Table(
        title=f"{result.fraction:.0%} of the training queries, {result.steps:,} steps in each arm",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("negatives")
    for title in NAMES.values():
        table.add_column(title, justify="right")
    for label, metrics in (("off the shelf", result.baseline), ("random only", result.random), ("mined", result.mined)):
        values = [metrics.get(name) for name in NAMES]
        table.add_row(label, *("–" if value is None else f"{value:.3f}" for value in values))
    return table


def lead_lines(result: ProbeResult) -> list[str]:
    """A line per difference, with its interval."""
    return [
        f"{lead.title}, mined − random: {lead.value:+.2f} points, {result.confidence:.0%} interval "
        f"[{lead.interval.low:+.2f}, {lead.interval.high:+.2f}] over {lead.interval.queries:,} dev queries "
        f"({'excludes' if lead.excludes_zero else 'includes'} 0); "
        f"asked for at least {lead.threshold:+.2f}: {'passed' if lead.passed else 'not passed'}"
        for lead in result.leads
    ]


def show_probe(console: Console, result: ProbeResult) -> None:
    """Print the result of a probe."""
    console.print(arms_table(result))
    for line in [*lead_lines(result), f"\n{advice(result.leads)}", f"run:    {result.output} ({result.seconds:.0f} s)"]:
        console.print(line, highlight=False, soft_wrap=True)
