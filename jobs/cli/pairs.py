"""`hardmine pairs`: from logs to the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.session.progress import Progress
from jobs.cli.arguments import Takeover
from jobs.cli.emit import Json, emit

app = typer.Typer()


@app.command()
def pairs(
    logs: Annotated[
        list[str], typer.Argument(help="Logs, or earlier outputs of this command: files or folders, local or s3://.")
    ],
    *,
    to: Annotated[str, typer.Option(help="Folder or s3:// prefix for the result.")],
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file with the settings of docs/logs.md (default: UBI).")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting over that file: section.key=value. May be repeated.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="A sheet of rejected queries in which you accepted proposals. May be repeated.")
    ] = None,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Make queries and labels from LOGS: clicks, carts, citations, editors' pairs. The same command again resumes.

    Corrects for position, popularity, bots and few impressions, holds out a
    part by time, and says what the logs are good for. Users are hashed, and
    nothing of one user is in the result.
    """
    from jobs.pairs.make import make_pairs
    from jobs.pairs.output.write import show_pairs
    from jobs.pairs.settings import load_settings

    settings = load_settings(config, setting or [])
    summary = make_pairs([*logs, *(accept or [])], to, settings, progress=Progress(), takeover=takeover)
    emit(summary, json_output, lambda console: show_pairs(console, summary, to.rstrip("/")))
