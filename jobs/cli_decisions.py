"""The commands about a finished run: `diagnose`, `gate`, `verify`, `report`. They read storage and start nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.storage import StorageSettings, Store

Emit = Callable[[dict[str, Any], bool, Callable[[Console], None]], None]
"""Prints one JSON object, or lets the other function show it."""
Output = Annotated[str, typer.Argument(help="The run's folder, <output>/<name>.")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, if not in AWS_ENDPOINT_URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]


def register(app: typer.Typer, emit: Emit) -> None:
    """Add the commands to the command line."""

    @app.command()
    def diagnose(
        output: Annotated[str, typer.Argument(help="The run's folder, <output>/<name>, or another trainer's log.")],
        *,
        config: Annotated[
            Path | None,
            typer.Option(
                exists=True, dir_okay=False, help="The run's TOML file, as it should stand in the commands that are proposed."
            ),
        ] = None,
        endpoint: Endpoint = None,
        json_output: Json = False,
    ) -> None:
        """Say what the gradient is doing, what is wrong, and what to try next."""
        from jobs.finished.diagnose import diagnose_output, show_diagnosis

        store = Store(output, StorageSettings(endpoint=endpoint, attempts=2))
        found = diagnose_output(store, config_path=str(config or "run.toml"))
        emit(found.as_json(), json_output, lambda console: show_diagnosis(console, found))

    @app.command()
    def gate(
        output: Output,
        overrides: Annotated[
            list[str] | None, typer.Argument(help="Thresholds over the run's: evaluation.gate.key=value …")
        ] = None,
        *,
        round_number: Annotated[
            int | None,
            typer.Option(
                "--round", min=-1, help="Judge this round; -1: the off-the-shelf model; without it, the round that was kept."
            ),
        ] = None,
        no_latency: Annotated[bool, typer.Option("--no-latency", help="Do not measure how long a query takes.")] = False,
        endpoint: Endpoint = None,
        json_output: Json = False,
    ) -> None:
        """May the kept model be shipped? Thresholds, guards and the queries that got worse; exit code 1 says no."""
        from jobs.finished.gate.gate import gate as judge
        from jobs.finished.gate.show import show_gate

        result = judge(
            Store(output, StorageSettings(endpoint=endpoint, attempts=2)),
            overrides or [],
            number=round_number,
            latency=not no_latency,
        )
        emit(result, json_output, lambda console: show_gate(console, result))
        raise typer.Exit(0 if result["passed"] else 1)

    @app.command()
    def verify(output: Output, *, endpoint: Endpoint = None, json_output: Json = False) -> None:
        """Is everything that a run has stored still as it was written? Reads every byte; exit code 1 says no."""
        from jobs.finished.verify import show_verified
        from jobs.finished.verify import verify as check

        checked = check(Store(output, StorageSettings(endpoint=endpoint, attempts=2)))
        emit(checked, json_output, lambda console: show_verified(console, checked))
        raise typer.Exit(1 if checked["damaged"] else 0)

    @app.command()
    def report(
        output: Output,
        other: Annotated[str | None, typer.Argument(help="A second run: is its model better than the first one's?")] = None,
        *,
        out: Annotated[Path | None, typer.Option(help="File to write (default: report.html in the run's folder).")] = None,
        endpoint: Endpoint = None,
        json_output: Json = False,
    ) -> None:
        """Write the page that says whether a run got better, how sure that is, and what to do next."""
        from jobs.report.write import report_command, show_report

        found = report_command(output, other, out, endpoint)
        emit(found, json_output, lambda console: show_report(console, found))
