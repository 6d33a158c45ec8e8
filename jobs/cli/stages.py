"""The commands that run one stage of a run alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.errors import ConfigError
from cluster.session.progress import Progress
from jobs.cli.arguments import ConfigFile, Overrides, RoundNumber, Takeover
from jobs.cli.emit import Json, emit

app = typer.Typer()


def _stage(
    name: Literal["embed", "search", "train", "evaluate"],
    number: int,
    config: Path,
    overrides: list[str] | None,
    *,
    json_output: bool,
    takeover: bool,
) -> None:
    from jobs.config.config import load_config
    from jobs.record.stages import Kind, ModelName, Stage
    from jobs.run.driver import embed_round, run_stage

    settings, kind, of = load_config(config, overrides or []), Kind[name.upper()], ModelName(number)
    if kind is Kind.EMBED:
        commit = embed_round(settings, of, progress=Progress(), takeover=takeover)
    else:
        commit = run_stage(settings, Stage(kind, of), progress=Progress(), takeover=takeover)
    value = {
        "stage": kind.ending,
        "name": commit.name,
        "key": commit.key,
        "seconds": commit.seconds,
        "rows": {table: commit.rows(table) for table in commit.tables},
    } | commit.figures
    emit(value, json_output, lambda console: console.print_json(json.dumps(value)))


@app.command()
def embed(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    round_number: RoundNumber = -1,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Embed corpus and queries with the model of --round (-1: off the shelf)."""
    _stage("embed", round_number, config, overrides, json_output=json_output, takeover=takeover)


@app.command("hits")
def search(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    round_number: RoundNumber = 1,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Find the hits (nearest items) of every training query for mining in --round."""
    _stage("search", round_number, config, overrides, json_output=json_output, takeover=takeover)


@app.command()
def mine(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            help="Mine for this round of a run. Without it, mine with the base model, on any data; nothing is trained.",
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Also write the negatives as texts to this folder or s3:// prefix, as Parquet for sentence-transformers."
        ),
    ] = None,
    columns: Annotated[
        Literal["n-tuple", "triplet", "labeled-list"], typer.Option(help="Columns that --export writes.")
    ] = "n-tuple",
    num: Annotated[int | None, typer.Option(min=1, help="Negatives per row of --export (default: all).")] = None,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Mine hard negatives, report how good they are, and export them. Embeds and searches first where that is missing."""
    from jobs.finished.negatives.export import Export
    from jobs.run.mine_alone import mine_command
    from jobs.run.show.mining import show_mining

    if export is None and (num is not None or columns != "n-tuple"):
        raise ConfigError("--columns and --num say what --export writes, but --export is missing; add --export FOLDER")
    figures, settings = mine_command(
        config,
        overrides or [],
        number=round_number,
        export=Export(export, columns, num) if export else None,
        progress=Progress(),
        takeover=takeover,
    )
    emit(figures, json_output, lambda console: show_mining(console, figures, settings))


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    round_number: RoundNumber = 0,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Train the model of --round on its negatives."""
    _stage("train", round_number, config, overrides, json_output=json_output, takeover=takeover)


@app.command()
def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    round_number: RoundNumber = 0,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Measure the model of --round (-1: off the shelf)."""
    _stage("evaluate", round_number, config, overrides, json_output=json_output, takeover=takeover)
