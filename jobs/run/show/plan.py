"""What `hardmine run --dry-run` prints: warnings and the forecast first, the settings last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.config.config import Config
from jobs.run.dry_run import ASSUMED_DIMENSION
from jobs.run.resolved import settings_lines


def show_plan(console: Console, plan: dict[str, Any], config: Config) -> None:
    """Print the plan."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for warning in plan["warnings"]:
        say(f"! {warning}")
    rows = plan["rows"]
    say(f"rows: {rows['corpus']:,} items, {rows['queries']:,} queries, {rows['labels']:,} labels")
    if general := plan["general_rows"]:
        say(f"general set: {general['corpus']:,} items, {general['queries']:,} queries, {general['labels']:,} labels")
    for line in plan["forecast_lines"]:
        say(line.strip())
    table = Table(title="stages", title_justify="left")
    for name in ("stage", "state"):
        table.add_column(name)
    for stage in plan["stages"]:
        table.add_row(stage["name"], _state(stage))
    console.print(table)
    for line in _costs(plan):
        say(line)
    for line in settings_lines(config, plan["set"], plan["resolved"]):
        say(line)


def _costs(plan: dict[str, Any]) -> Iterator[str]:
    known = plan["dimension"] is not None
    yield (
        f"vectors of {plan['dimension']:,} numbers"
        if known
        else f"vectors of {ASSUMED_DIMENSION} numbers are assumed: how long they are is known once the model is here"
    )
    for name, value in plan["estimates"].items():
        yield f"{name.removesuffix('_bytes').replace('_', ' ')}: about {value / 2**20:,.1f} MiB"
    counts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in plan["requests"].items())
    yield f"requests of a round, if its storage is S3: about {counts}"
    amounts = ", ".join(f"{name.split('_')[0]} {value / 2**20:,.1f} MiB" for name, value in plan["reads"].items())
    yield f"read of the items in a round: about {amounts}"
    for name, used in plan["expected"].items():
        yield (
            f"{name}: reads about {used['read_bytes'] / 2**20:,.1f} MiB and writes {used['written_bytes'] / 2**20:,.1f} MiB in "
            f"{used['requests']:,} requests; at most about {used['peak_bytes'] / 2**20:,.0f} MiB in a process"
        )


def _state(stage: dict[str, Any]) -> str:
    if stage["kept"]:
        return "kept"
    return ("runs again" if stage["again"] else "runs") + (f": {stage['why']}" if stage["why"] else "")
