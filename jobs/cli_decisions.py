"""The commands about a finished run: `diagnose`. They read storage, start nothing, and say what to do next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.storage import StorageSettings, Store
from jobs.config import load_config

Emit = Callable[[dict[str, Any], bool, Callable[[Console], None]], None]
"""Prints one JSON object, or lets the other function show it."""
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, if not in AWS_ENDPOINT_URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]


def register(app: typer.Typer, emit: Emit) -> None:
    """Add the commands to the command line."""

    @app.command()
    def diagnose(
        output: Annotated[str, typer.Argument(help="The run's folder, <output>/<name>, or another trainer's log.")],
        *, config: Annotated[Path | None, typer.Option(help="The run's TOML file: it holds thresholds, [evaluation.diagnosis], "
                                                       "and stands in what is proposed.")] = None,
        endpoint: Endpoint = None, json_output: Json = False,
    ) -> None:
        """Say what the gradient is doing, what is wrong, and what to try next."""
        from jobs.diagnose import diagnose_output, show_diagnosis

        limits = load_config(config, trains=False).evaluation.diagnosis if config else None
        store = Store(output, StorageSettings(endpoint=endpoint, attempts=2))
        found = diagnose_output(store, limits, config_path=str(config or "run.toml"))
        emit(found.as_json(), json_output, lambda console: show_diagnosis(console, found))
