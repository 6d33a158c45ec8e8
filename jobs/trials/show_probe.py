"""What `hardmine probe` prints at its end: the figures of both arms, and the answer."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics import metric_name
from jobs.trials.probe import ProbeResult

SHOWN = ("recall@3", "hit@5", "hit@10", "ndcg@10")
"""Metrics shown beside the primary one."""


def arms_table(result: ProbeResult) -> Table:
    """The metrics of the three models."""
    trial = result.lead.trial
    names = list(dict.fromkeys((result.lead.metric, *SHOWN)))
    table = Table(
        title=f"{trial.train_queries:,} of {trial.all_queries:,} training queries ({result.share:.1%}), {trial.steps:,} "
        f"steps in each arm",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("negatives")
    for name in names:
        table.add_column(metric_name(name), justify="right")
    for label, metrics in (("off the shelf", result.baseline), ("random only", result.random), ("mined", result.mined)):
        values = [metrics.get(name) for name in names]
        table.add_row(label, *("–" if value is None else f"{value:.3f}" for value in values))
    return table


def show_probe(console: Console, result: ProbeResult) -> None:
    """Print the result of a probe."""
    console.print(arms_table(result))
    lead = result.lead
    for line in (
        f"{result.confidence:.0%} interval over {lead.interval.queries:,} dev queries; {metric_name(lead.metric)} decides "
        f"(evaluation.primary)",
        f"\n{lead.reason}",
        f"run:    {result.output} ({result.seconds:.0f} s)",
    ):
        console.print(line, highlight=False, soft_wrap=True)
