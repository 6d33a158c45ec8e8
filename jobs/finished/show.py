"""What `hardmine run` prints at its end: the rounds, the uplifts, the model, and the next step."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.diagnosis.case import MIN_QUERIES
from eval.metrics import metric_name
from eval.verdict import too_little
from jobs.finished.show_reranker import show_reranker
from jobs.record.stages import ModelName

NAMES = {metric: metric_name(metric) for metric in ("recall@3", "ndcg@10", "bad_top1")}
GENERAL_NAMES = ("recall@3", "ndcg@10")
"""Shown of the general set: bad top-1 depends on the run's own attribute rules."""
LOW_CEILING = 0.5
"""Of a perfect model's primary figure; below it, the figure's changes are small whatever they mean."""
KEPT = " (kept)"
RANDOM_ONLY = "random only"
CHOSEN = {"baseline": "off the shelf", "best": "kept model", "random_arm": RANDOM_ONLY}
"""Models measured on the test split -> their names for a person."""


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def rounds_table(summary: dict[str, Any]) -> Table:
    """A row per model: off the shelf, the warm-up, every round, the merged ones, the one trained on random negatives only."""
    table = Table(
        title=f"{summary['name']}: models",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in ("model", "loss", *NAMES.values(), "hit rate", "against the\nbest before"):
        table.add_column(name, justify="left" if name in ("model", "against the\nbest before") else "right", no_wrap=True)
    off_the_shelf = {"train_loss": None, "metrics": summary["baseline"], "verdict": None}
    _add(table, model_name(-1) + (KEPT if summary["best_round"] == -1 else ""), off_the_shelf, None)
    for row in summary["rounds"]:
        _add(table, model_name(row["round"]) + (KEPT if row["round"] == summary["best_round"] else ""), row, row["hit_rate"])
    if summary["random_arm"]:
        # compared with the last mined round, in a sentence of its own
        _add(table, RANDOM_ONLY, summary["random_arm"] | {"verdict": None}, None)
    return table


def model_name(number: int) -> str:
    """The model of a round for a person."""
    return ModelName(number).label


def _add(table: Table, label: str, row: dict[str, Any], hit_rate: float | None) -> None:
    metrics = row["metrics"]
    table.add_row(
        label,
        _figure(row["train_loss"]),
        _figure(metrics.get("recall@3")),
        _figure(metrics.get("ndcg@10")),
        _share(metrics.get("bad_top1")),
        _share(hit_rate),
        row["verdict"] or "–",
    )


def uplifts(summary: dict[str, Any]) -> list[str]:
    """What the kept model, and the one trained on random negatives only, gained over the off-the-shelf model."""
    best = next((row for row in summary["rounds"] if row["round"] == summary["best_round"]), None)
    lines = []
    for label, row in ((model_name(summary["best_round"]), best), (RANDOM_ONLY, summary["random_arm"])):
        if row:
            changes = [
                f"{NAMES[name]} {_change(row['against_baseline'][name])}" for name in NAMES if name in row["against_baseline"]
            ]
            lines.append(f"{label} against off the shelf: " + " · ".join(changes))
    return lines


def _change(interval: dict[str, Any]) -> str:
    doubt = "" if interval["significant"] else " (not significant)"
    if doubt and not interval["low"] <= 0 <= interval["high"]:  # the reader sees an interval without 0
        doubt = f" (not significant: p = {interval['p_adjusted']:.2g})"
    return f"{100 * interval['mean']:+.1f} points [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]" + doubt


def doubtful_verdicts(summary: dict[str, Any]) -> str | None:
    """Says that the verdicts of the table rest on too few queries, if they do."""
    changes = [row["against_baseline"] for row in summary["rounds"]]
    queries = min(
        (change["queries"] for row in changes for change in row.values() if isinstance(change, dict)), default=MIN_QUERIES
    )
    doubt = too_little(queries)
    return f"{doubt}: the verdicts above and the model that is kept may be chance; label more dev queries" if doubt else None


def low_ceiling(summary: dict[str, Any]) -> str | None:
    """Says that the figure which decides is small for any model, if it is: with ten relevant items, Recall@3 is 0.3 at most."""
    primary = summary.get("primary", "recall@3")
    best = (summary.get("attainable") or {}).get(primary)
    if best is None or best >= LOW_CEILING or primary == "bad_top1":
        return None
    return (
        f"{metric_name(primary)} cannot be above {best:.3g} here, because the queries have more relevant items than it has "
        'places; evaluation.primary = "ndcg@10" has no such limit'
    )


def mined_against_random(summary: dict[str, Any]) -> str | None:
    """What mining itself gained: the last mined round against random negatives only, after equally many steps."""
    arm, mined = summary["random_arm"], [row for row in summary["rounds"] if row["negatives"] == "mined"]
    if not arm or not mined:
        return None
    queries = min((change["queries"] for change in arm["against_mined"].values() if isinstance(change, dict)), default=0)
    if doubt := too_little(queries, steps=arm["steps"]):
        return f"mined against random negatives: cannot tell ({doubt})"
    word = {"worse": "better than", "flat": "not distinguishable from", "improved": "worse than"}[arm["verdict"]]
    changes = [f"{NAMES[name]} {_change(_negated(arm['against_mined'][name]))}" for name in NAMES if name in arm["against_mined"]]
    last, kept = mined[-1]["round"], summary.get("best_round")
    other = "" if kept in (last, None) else f"; {model_name(kept)} is kept"
    head = f"mined negatives (round {last}, the last{other}) were {word} random ones over {arm['steps']} steps"
    return f"{head}: {' · '.join(changes)}"


def _negated(interval: dict[str, Any]) -> dict[str, Any]:
    return interval | {"mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}


def judged_line(summary: dict[str, Any]) -> str | None:
    """How many judged negatives the last mined round used; None: there are none."""
    row = next((row for row in reversed(summary["rounds"]) if row["judged"] or row["judged_left_out"]), None)
    if row is None:
        return None
    every, left = row["judged"] + row["judged_left_out"], row["judged_left_out"]
    why = f"; {left:,} are left out: their queries have more than mining.num_negatives, so raise that" if left else ""
    return f"judged negatives in {model_name(row['round'])}: {row['judged']:,} of {every:,} used{why}"


def general_line(summary: dict[str, Any]) -> str | None:
    """The kept model on the general set, if there is one: did it forget?"""
    base = summary.get("general_baseline")
    if not base:
        return None
    best = next((row for row in summary["rounds"] if row["round"] == summary["best_round"]), None)
    off_the_shelf = " · ".join(f"{NAMES[name]} {_figure(base.get(name))}" for name in GENERAL_NAMES)
    if best is None or "against_baseline" not in best.get("general", {}):
        return f"general set, off the shelf: {off_the_shelf}"
    changes = " · ".join(
        f"{NAMES[name]} {_change(best['general']['against_baseline'][name])}"
        for name in GENERAL_NAMES
        if name in best["general"]["against_baseline"]
    )
    return f"general set, {model_name(best['round'])} against off the shelf ({off_the_shelf}): {changes}"


def last_look_lines(summary: dict[str, Any]) -> list[str]:
    """The figures on the test split, if it was looked at."""
    return [
        f"test split, {CHOSEN[name]}: " + " · ".join(f"{NAMES[metric]} {_figure(row['metrics'].get(metric))}" for metric in NAMES)
        for name, row in (summary.get("test") or {}).items()
    ]


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print the summary of a run, with its next steps."""
    console.print(rounds_table(summary))
    for line in uplifts(summary):
        console.print(line, highlight=False)
    for doubt in filter(None, [doubtful_verdicts(summary), low_ceiling(summary)]):
        console.print(f"! {doubt}", highlight=False)
    for line in filter(
        None, [mined_against_random(summary), judged_line(summary), general_line(summary), *last_look_lines(summary)]
    ):
        console.print(line, highlight=False)
    show_reranker(console, summary.get("reranker"))
    if summary.get("reason"):
        console.print(f"why it ended: {summary['reason']}", highlight=False)
    console.print(f"\nmodel:  {summary['model'] or 'none: the vectors in your data were best'}", highlight=False, soft_wrap=True)
    if summary["model"]:
        if summary["copy"]:
            console.print(f"        {summary['copy']}", highlight=False, markup=False, soft_wrap=True)
        for line in summary["usage"].splitlines():
            console.print(f"        {line}", highlight=False, markup=False, soft_wrap=True)
    if summary.get("tensorboard"):
        console.print(f"tensorboard --logdir {summary['tensorboard']}", highlight=False, soft_wrap=True)
    if summary.get("report"):
        console.print(f"report: {summary['report']}", highlight=False, soft_wrap=True)
    for warning in summary.get("warnings", []):
        console.print(f"! {warning}", highlight=False, markup=False, soft_wrap=True)
    for number, step in enumerate(summary.get("next") or ()):
        head = "next:  " if not number else "then:  "
        console.print(f"{head} {step['command'] or step['text']}", highlight=False, markup=False, soft_wrap=True)
        if step["command"]:
            console.print(f"        {step['text']}", highlight=False, markup=False, soft_wrap=True)


def seconds_table(rows: list[dict[str, Any]]) -> Table:
    """Seconds per round and kind of work."""
    table = Table(title="seconds", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("embed", "search", "mine", "train", "evaluate", "overhead")
    for name in ("model", *names, "outside embed,\nsearch, train"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        seconds = row["seconds"]
        outside = seconds["mine"] + seconds["evaluate"] + seconds["overhead"]
        table.add_row(model_name(row["round"]), *(f"{seconds[name]:.1f}" for name in names), f"{outside:.1f}")
    return table
