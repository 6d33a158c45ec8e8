"""What `hardmine run` prints at its end: the rounds, the uplifts, the model, and the next step."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics import metric_name

NAMES = {metric: metric_name(metric) for metric in ("recall@3", "ndcg@10", "bad_top1")}
GENERAL_NAMES = ("recall@3", "ndcg@10")
"""Shown of the general set: bad top-1 depends on the run's own attribute rules."""


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def rounds_table(summary: dict[str, Any]) -> Table:
    """A row per model: off the shelf, every round, the random arm."""
    table = Table(
        title=f"{summary['name']}: rounds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in ("round", "negatives", "loss", *NAMES.values(), "hit rate", "verdict"):
        table.add_column(name, justify="left" if name in ("round", "negatives", "verdict") else "right", no_wrap=True)
    base = summary["baseline"]
    table.add_row(
        "-1",
        "off the shelf",
        "–",
        *(_figure(base.get(m)) for m in ("recall@3", "ndcg@10")),
        _share(base.get("bad_top1")),
        "–",
        "–",
    )
    for row in summary["rounds"]:
        mark = " ★" if row["round"] == summary["best_round"] else ""
        _add(table, f"{row['round']}{mark}", row, row["negatives"], row["hit_rate"])
    if summary["random_arm"]:
        _add(table, "arm", summary["random_arm"], "random only", None)
    return table


def _add(table: Table, label: str, row: dict[str, Any], negatives: str, hit_rate: float | None) -> None:
    metrics = row["metrics"]
    table.add_row(
        label,
        negatives,
        _figure(row["train_loss"]),
        _figure(metrics.get("recall@3")),
        _figure(metrics.get("ndcg@10")),
        _share(metrics.get("bad_top1")),
        _share(hit_rate),
        row["verdict"],
    )


def uplifts(summary: dict[str, Any]) -> list[str]:
    """A line per arm: its uplift over the off-the-shelf model with the interval."""
    best = next((row for row in summary["rounds"] if row["round"] == summary["best_round"]), None)
    lines = []
    for label, row in ((f"round {summary['best_round']}", best), ("random arm", summary["random_arm"])):
        if row:
            changes = [
                f"{NAMES[name]} {_change(row['against_baseline'][name])}" for name in NAMES if name in row["against_baseline"]
            ]
            lines.append(f"{label} against off the shelf: " + " · ".join(changes))
    return lines


def _change(interval: dict[str, Any]) -> str:
    doubt = "" if interval["significant"] else " (not significant)"
    return f"{100 * interval['mean']:+.1f} points [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]" + doubt


def mined_against_random(summary: dict[str, Any]) -> str | None:
    """What mining itself gained: the last mined round against the random arm after equally many steps."""
    arm, mined = summary["random_arm"], [row for row in summary["rounds"] if row["negatives"] == "mined"]
    if not arm or not mined:
        return None
    word = {"worse": "better than", "flat": "not distinguishable from", "improved": "worse than"}[arm["verdict"]]
    changes = [f"{NAMES[name]} {_change(_negated(arm['against_mined'][name]))}" for name in NAMES if name in arm["against_mined"]]
    return f"mined negatives (round {mined[-1]['round']}) were {word} random ones over {arm['steps']} steps: " + " · ".join(
        changes
    )


def _negated(interval: dict[str, Any]) -> dict[str, Any]:
    return interval | {"mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}


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
    return f"general set, round {best['round']} against off the shelf ({off_the_shelf}): {changes}"


def last_look_lines(summary: dict[str, Any]) -> list[str]:
    """The figures on the test split, if it was looked at."""
    return [
        f"test split, {label.replace('_', ' ')}: "
        + " · ".join(f"{NAMES[name]} {_figure(row['metrics'].get(name))}" for name in NAMES)
        for label, row in (summary.get("test") or {}).items()
    ]


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print the summary of a run, with its next steps."""
    console.print(rounds_table(summary))
    for line in uplifts(summary):
        console.print(line, highlight=False)
    for line in filter(None, [mined_against_random(summary), general_line(summary), *last_look_lines(summary)]):
        console.print(line, highlight=False)
    if summary.get("reason"):
        console.print(f"why it ended: {summary['reason']}", highlight=False)
    console.print(f"\nmodel:  {summary['model'] or 'none: the vectors in your data were best'}", highlight=False, soft_wrap=True)
    if summary["model"]:
        console.print(
            "        copy it to a local folder and open it with SentenceTransformer(folder)"
            if summary["model"].startswith("s3://")
            else f'        SentenceTransformer("{summary["model"]}")',
            highlight=False,
            soft_wrap=True,
        )
    if summary.get("report"):
        console.print(f"report: {summary['report']}", highlight=False, soft_wrap=True)
    for number, step in enumerate(summary.get("next") or ()):
        head = "next:  " if not number else "then:  "
        console.print(f"{head} {step['command'] or step['text']}", highlight=False, markup=False, soft_wrap=True)
        if step["command"]:
            console.print(f"        {step['text']}", highlight=False, markup=False, soft_wrap=True)


def seconds_table(rows: list[dict[str, Any]]) -> Table:
    """Seconds per round and kind of work."""
    table = Table(title="seconds", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("embed", "search", "mine", "train", "evaluate", "overhead")
    for name in ("round", *names, "outside embed,\nsearch, train"):
        table.add_column(name, justify="right")
    for row in rows:
        seconds = row["seconds"]
        outside = seconds["mine"] + seconds["evaluate"] + seconds["overhead"]
        table.add_row(str(row["round"]), *(f"{seconds[name]:.1f}" for name in names), f"{outside:.1f}")
    return table
