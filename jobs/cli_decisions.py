"""The commands about a finished run: `diagnose`. They read storage, start nothing, and say what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.storage import StorageSettings, Store

Emit = Callable[[dict[str, Any], bool, Callable[[Console], None]], None]
"""Prints one JSON object, or lets the other function show it."""
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, if not in AWS_ENDPOINT_URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]


def register(app: typer.Typer, emit: Emit) -> None:
    """Add the commands to the command line."""

    @app.command()
    def diagnose(
        output: Annotated[str, typer.Argument(help="The run's folder, <output>/<name>, or another trainer's log.")],
        *, config: Annotated[str, typer.Option(help="The run's TOML file, for the commands that are proposed.")] = "run.toml",
        endpoint: Endpoint = None, json_output: Json = False,
    ) -> None:
        """Say what the gradient is doing, what is wrong, and what to try next."""
        from jobs.diagnose import diagnose_output, show_diagnosis

        found = diagnose_output(Store(output, StorageSettings(endpoint=endpoint, attempts=2)), config_path=config)
        emit(found.as_json(), json_output, lambda console: show_diagnosis(console, found))
