"""The commands that start nothing: `status`, `diagnose`, `gate`, `verify` and `report` read a run, `settings` explains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import ConfigError
from jobs.cli.emit import Json, emit

if TYPE_CHECKING:
    from cluster.storage.store import Store

app = typer.Typer()

Output = Annotated[str, typer.Argument(help="The run's folder, <output>/<name>.")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, if not in AWS_ENDPOINT_URL.")]


def open_store(output: str, endpoint: str | None) -> Store:
    """The objects at an address."""
    from cluster.storage.settings import StorageSettings
    from cluster.storage.store import Store

    return Store(output, StorageSettings(endpoint=endpoint, attempts=2))


@app.command()
def status(output: Output, *, endpoint: Endpoint = None, json_output: Json = False) -> None:
    """Show what is committed, who is writing, and the figures so far."""
    from jobs.finished.status import read_status, show_status

    run = read_status(open_store(output, endpoint))
    emit(run.with_next() if json_output else {}, json_output, lambda console: show_status(console, run))


@app.command()
def diagnose(
    output: Annotated[str, typer.Argument(help="The run's folder, <output>/<name>, or another trainer's log.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML file that the proposed commands name (default: the run's own)."),
    ] = None,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Say what the gradient is doing, what is wrong, and what to try next.

    OUTPUT may be another trainer's output folder with a trainer_state.json, of
    which the newest checkpoint's is read, or its log: CSV, JSON or JSON lines
    with a step, a loss and a held-out figure. Exit code 0, whatever is found.
    """
    from jobs.finished.diagnose import diagnose_output, show_diagnosis

    diagnosis = diagnose_output(open_store(output, endpoint), config=(str(config),) if config else None)
    emit(diagnosis.as_json(), json_output, lambda console: show_diagnosis(console, diagnosis))


@app.command()
def gate(
    output: Output,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Thresholds that override the run's: evaluation.gate.key=value …")
    ] = None,
    *,
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round", min=-1, help="Judge the model of this round; -1: the off-the-shelf model (default: the kept model)."
        ),
    ] = None,
    with_reranker: Annotated[
        bool, typer.Option("--with-reranker", help="Judge the best retriever with a re-ranker instead of the kept model alone.")
    ] = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Do not measure how long a query takes.")] = False,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Ship the kept model? Checks thresholds, guards and the queries that got worse. Exit code 1: no.

    Where no check fails but chance may be why one passes, it leaves the decision to you: "passed": null, exit code 0.
    """
    from jobs.finished.gate.gate import gate as judge
    from jobs.finished.gate.show import show_gate
    from jobs.report.write import write_again

    without = "--no-latency was given" if no_latency else None
    if with_reranker and round_number is not None:
        raise ConfigError("--with-reranker judges the best pair of the run, so it goes with no --round; leave one of them out")
    store = open_store(output, endpoint)
    result = judge(store, overrides or [], number=round_number, with_reranker=with_reranker, without_latency=without)
    write_again(store)
    emit(result, json_output, lambda console: show_gate(console, result))
    raise typer.Exit(1 if result["passed"] is False else 0)


@app.command()
def verify(output: Output, *, endpoint: Endpoint = None, json_output: Json = False) -> None:
    """Are parts, model files, commits, identity.json and run.json as they were written? Reads every byte. Exit code 1: no.

    Copies for people are not checked: config.toml, evaluation.json, mining.json, mining.md, report.html,
    report.md and gate.json.
    """
    from jobs.finished.verify import show_verified
    from jobs.finished.verify import verify as check

    result = check(open_store(output, endpoint))
    emit(result, json_output, lambda console: show_verified(console, result))
    raise typer.Exit(1 if result["damaged"] else 0)


@app.command()
def report(
    output: Output,
    other: Annotated[str | None, typer.Argument(help="A second run: is its model better than the first one's?")] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="File to write (default: report.html in the run's folder).")] = None,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Write a page that says whether the run got better, how sure that is, and what to do next."""
    from jobs.report.write import report_command, show_report

    page = report_command(output, other, out, endpoint)
    emit(page, json_output, lambda console: show_report(console, page))


@app.command()
def settings(
    section: Annotated[str | None, typer.Argument(help="A section (training) or one setting (training.epochs).")] = None,
    *,
    json_output: Json = False,
) -> None:
    """Explain the settings: type, default, what null means, unit, meaning, an example. Without a name: the sections."""
    from jobs.config.reference import find_settings, settings_json, show_settings

    chosen = find_settings(section)
    emit(settings_json(chosen), json_output, lambda console: show_settings(console, chosen, section))
