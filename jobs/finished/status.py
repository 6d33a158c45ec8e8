"""`hardmine status`: what is committed, who is writing, the figures so far. Reads storage only, starts nothing."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.commits import Commit, Ledger
from cluster.errors import ArtifactError, ConfigError
from cluster.lease import PATH, Owner, is_gone
from cluster.storage import Store
from jobs.finished.show import seconds_table, show_summary
from jobs.stages.summary import arm_row, general_figures, round_row


def read_status(store: Store) -> dict[str, Any]:
    """Commits, writer and summary of a run.

    Raises:
        ConfigError: there is no run at this address.
    """
    if not store.exists("identity.json"):
        found = sorted({path.split("/", 1)[0] for path in store.list()})[:8]
        raise ConfigError(
            f"{store.root} is not a run: it has no identity.json"
            f"{' (found ' + ', '.join(found) + ')' if found else ' (nothing is there)'}; give the run's own "
            f"folder, <output>/<name>"
        )
    commits = Ledger(store).all()
    last = next((commit for commit in reversed(commits) if not commit.name.startswith("mine")), None)  # no part of a run
    finish = last if last is not None and last.name == "finish" else None  # anything newer: other settings are under way
    return {
        "output": store.root,
        "writer": _writer(store),
        "commits": commits,
        "summary": finish.figures["summary"] if finish else None,
    }


def _writer(store: Store) -> str | None:
    try:
        owner = Owner(**store.read_json(PATH))
        return owner.describe() + (" (dead: run the same command again)" if is_gone(owner) else "")
    except (ArtifactError, TypeError):
        return None


def as_json(status: dict[str, Any]) -> dict[str, Any]:
    """One JSON object: the finished run's summary, or what there is so far."""
    summary = status["summary"] or _so_far(status)
    return summary | {
        "finished": status["summary"] is not None,
        "writer": status["writer"],
        "stages": [{"name": c.name, "key": c.key, "seconds": c.seconds} for c in status["commits"]],
    }


def _so_far(status: dict[str, Any]) -> dict[str, Any]:
    commits: list[Commit] = status["commits"]
    current = {commit.key for commit in commits}
    by_name = {commit.name: commit for commit in commits}
    # what an earlier configuration left does not count: its hits or its baseline have been replaced
    measured = [
        c
        for c in commits
        if c.name.startswith("round-")
        and c.name.endswith("-evaluate")
        and c.inputs["hits"] in current
        and c.inputs["baseline"] in current
    ]
    rounds, arm = [], None
    for evaluation in sorted(measured, key=lambda c: int(c.figures["round"])):
        name = evaluation.name.removesuffix("-evaluate")
        trained, mined = by_name.get(f"{name}-train"), by_name.get(f"{name}-mine")
        if name.endswith("-random"):
            arm = arm_row(evaluation, trained, commits)
        else:
            rounds.append(round_row(evaluation, trained, mined, commits))
    baseline = by_name.get("baseline-evaluate")
    return {
        "name": status["output"].rsplit("/", 1)[-1],
        "output": status["output"],
        "model": None,
        "best_round": None,
        "baseline": baseline.figures["metrics"] if baseline else None,
        "general_baseline": general_figures(baseline, commits) if baseline else None,
        "rounds": rounds,
        "random_arm": arm,
    }


def show_status(console: Console, status: dict[str, Any]) -> None:
    """Print the status for a person."""
    writer = status["writer"]
    console.print(
        f"{status['output']}: "
        + (
            f"being written by {writer}"
            if writer
            else "finished"
            if status["summary"]
            else "not finished; run the same command again to go on"
        ),
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title="committed stages", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "seconds", "work", "start-up and commits", "rows"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for commit in status["commits"]:
        rows = sum(part["rows"] for parts in commit.tables.values() for part in parts)
        table.add_row(commit.name, *(f"{commit.seconds[key]:.1f}" for key in ("wall", "work", "overhead")), f"{rows:,}")
    console.print(table)
    if status["summary"]:
        console.print(seconds_table(status["summary"]["rounds"]))
        show_summary(console, status["summary"])
