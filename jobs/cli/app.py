"""The `hardmine` command: the commands that run something, and `main`, which turns errors into exit codes.

A command imports what it needs when it runs, so that `hardmine --help` answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import EXIT_CLUSTER, EXIT_STOPPED, ConfigError, HardmineError, one_paragraph, unwrap
from cluster.session.progress import LOG_JSON, Progress, log_line
from jobs.cli.arguments import ConfigFile, Overrides, Takeover
from jobs.cli.emit import Json, emit, reserved_stdout
from jobs.cli.finished import app as finished
from jobs.cli.pairs import app as pairs
from jobs.cli.serving import app as serving
from jobs.cli.stages import app as stages

if TYPE_CHECKING:
    from jobs.config.config import Config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune embedding models: mine hard negatives with the current model, train on them, repeat.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from jobs.record.version import hardmine_version

        typer.echo(f"hardmine {hardmine_version()}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version, and stop.")
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write progress and errors as lines of JSON, with time, level, run and stage.")
    ] = False,
) -> None:
    """Options of `hardmine` itself. `app` has the help text."""
    if log_json:
        os.environ[LOG_JSON] = "1"


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="Folder of your tables, local or s3://: items, queries and labels.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to write as they are: section.key=value …")] = None,
    *,
    to: Annotated[Path, typer.Option(help="The file to write.")] = Path("hardmine.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite that file.")] = False,
    json_output: Json = False,
) -> None:
    """Look at your tables and this machine, and write a configuration with the reason for each setting."""
    from jobs.init.write_config import show_init, write_config

    result = write_config(data, to, overrides or [], force=force, progress=Progress())
    emit(result, json_output, lambda console: show_init(console, result))


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    json_output: Json = False,
    takeover: Takeover = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and stop.")] = False,
) -> None:
    """Run all rounds of CONFIG. The same command again resumes."""
    from jobs.config.config import load_config

    settings = load_config(config, overrides or [])
    if dry_run:
        from jobs.run.dry_run import make_plan
        from jobs.run.show.plan import show_plan

        plan = make_plan(settings)
        emit(plan, json_output, lambda console: show_plan(console, plan, settings))
        return
    _run(settings, json_output, takeover)


def _run(settings: Config, json_output: bool, takeover: bool) -> None:
    from jobs.finished.show import show_summary
    from jobs.run.driver import run as drive

    summary = drive(settings, progress=Progress(), takeover=takeover)
    emit(summary, json_output, lambda console: show_summary(console, summary))


@app.command()
def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("runs"),
    compare_random: Annotated[bool, typer.Option(help="Also train on random negatives only, for comparison.")] = True,
    encoder: Annotated[str, typer.Option(help="static, or transformer (a small one, trained from scratch).")] = "static",
    titles: Annotated[int, typer.Option(min=200, max=100_000, help="Items in the generated catalogue.")] = 5000,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Run the whole loop on a generated catalogue: no download, no account, a few minutes on two cores."""
    from jobs.demo.settings import demo_config

    settings = demo_config(output, compare_random=compare_random, encoder=encoder, titles=titles)
    _run(settings, json_output, takeover)


@app.command()
def probe(config: ConfigFile, overrides: Overrides = None, *, json_output: Json = False, takeover: Takeover = False) -> None:
    """Is mining worth a full run? Trains on a part of the queries, with mined and with random negatives.

    Exit code 1: no. 0: yes, or the probe cannot tell and says what it would need ("verdict" in --json).
    """
    from jobs.config.config import load_config
    from jobs.trials.probe import probe as drive
    from jobs.trials.show_probe import show_probe

    result = drive(load_config(config, overrides or []), progress=Progress(), takeover=takeover)
    emit(result.as_json(), json_output, lambda console: show_probe(console, result))
    raise typer.Exit(1 if result.lead.answer == "no" else 0)


@app.command()
def rerank(config: ConfigFile, overrides: Overrides = None, *, json_output: Json = False, takeover: Takeover = False) -> None:
    """Train [reranker] on the run's negatives, and measure it behind the retrievers. Runs what the run does not have yet."""
    from jobs.config.config import load_config
    from jobs.finished.show_reranker import show_reranker
    from jobs.run.driver import run as drive

    settings = load_config(config, overrides or [])
    if settings.reranker is None:
        raise ConfigError(
            "hardmine rerank needs a re-ranker: add [reranker] with a model to the file, or reranker.model=… to the command, for "
            "example reranker.model=cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    summary = drive(settings, progress=Progress(), takeover=takeover)
    result = summary["reranker"] | {"output": summary["output"], "model": summary["model"], "report": summary["report"]}
    emit(result, json_output, lambda console: show_reranker(console, result))


@app.command()
def advise(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    reranker_from: Annotated[int, typer.Option(min=1, help="Usable examples from which a re-ranker is worth training.")] = 1000,
    embeddings_from: Annotated[int, typer.Option(min=1, help="Usable examples from which the embeddings are.")] = 6000,
    json_output: Json = False,
) -> None:
    """What first: collect data, train a re-ranker, or train the embeddings? From the labels and the figures; starts nothing."""
    from jobs.config.config import load_config
    from jobs.trials.advise import advise_on, show_advice

    settings = load_config(config, overrides or [])
    result = advise_on(settings, reranker_from=reranker_from, embeddings_from=embeddings_from)
    emit(result, json_output, lambda console: show_advice(console, result))


@app.command()
def sweep(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="File for the chosen configuration (default: CONFIG with the ending .best.toml).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite that file.")] = False,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """Try temperatures, shares of random negatives and losses on round 1, and write the best configuration."""
    from jobs.config.config import load_config
    from jobs.trials.show_sweep import show_sweep
    from jobs.trials.sweep import sweep as drive

    result = drive(
        load_config(config, overrides or []),
        out=out or config.with_suffix(".best.toml"),
        force=force,
        progress=Progress(),
        takeover=takeover,
    )
    emit(result, json_output, lambda console: show_sweep(console, result))


@app.command()
def submit(
    config: Annotated[Path | None, typer.Argument(help="TOML file of the run.")] = None,
    overrides: Overrides = None,
    *,
    address: Annotated[str, typer.Option(help="Ray dashboard, http://HEAD:8265.")] = "http://127.0.0.1:8265",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the job is submitted.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the submitted jobs instead.")] = False,
    stop: Annotated[str | None, typer.Option(metavar="JOB", help="Stop a job instead; what it committed is kept.")] = None,
) -> None:
    """Run CONFIG as a job on a Ray cluster, follow its log, and return its exit code."""
    from jobs.run.submit import list_jobs, stop_job, submit_run

    if (config is not None) + list_ + (stop is not None) != 1:
        raise ConfigError("hardmine submit needs either CONFIG, or --list, or --stop JOB")
    if list_:
        for job in list_jobs(address):
            began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else "not started"
            typer.echo(f"{job.id}  {job.status:9}  {began}  {job.name}")
    elif stop is not None:
        typer.echo(f"{stop} is being stopped" if stop_job(stop, address=address) else f"{stop} had already ended")
    else:
        assert config is not None
        raise typer.Exit(submit_run(config, overrides or [], address=address, wait=not no_wait))


app.add_typer(pairs)
app.add_typer(stages)
app.add_typer(finished)
app.add_typer(serving)


@functools.cache
def _all_commands() -> Any:
    """The commands and their options, which typer reads from all signatures."""
    return typer.main.get_command(app)


def main() -> None:
    """The entry point: every error becomes one paragraph and an exit code, never a traceback."""
    try:
        with reserved_stdout("--json" in sys.argv):
            command = _all_commands()  # its own `main` would turn Ctrl-C into a mere exit code
            with command.make_context("hardmine", sys.argv[1:]) as context:
                command.invoke(context)
    except typer.Exit as done:
        raise SystemExit(done.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; what is committed is kept, the same command resumes", EXIT_STOPPED)
    except Exception as error:
        _handle(error)
    raise SystemExit(0)


def _handle(error: Exception) -> None:
    cause = unwrap(error)
    if isinstance(cause, HardmineError):
        _fail(str(cause), cause.exit_code)
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the command line
        reason = error.format_message() or "no command given"
        _fail(f"{reason.rstrip('.')}; `hardmine --help` lists the commands, `hardmine COMMAND --help` its options", 2)
    with tempfile.NamedTemporaryFile("w", prefix="hardmine-", suffix=".log", delete=False) as log:
        traceback.print_exception(error, file=log)
    _fail(
        f"something failed that hardmine did not expect ({type(error).__name__}: {one_paragraph(str(error))[:400]}); "
        f"what is committed is kept, and the same command resumes. The details are in {log.name}",
        EXIT_CLUSTER,
    )


def _fail(message: str, code: int) -> None:
    text = one_paragraph(message)
    sys.stderr.write((log_line(text, level="error") if os.environ.get(LOG_JSON) else f"hardmine: {text}") + "\n")
    sys.stderr.flush()
    if code == EXIT_CLUSTER and os.environ.get("HARDMINE_DEBUG"):
        traceback.print_exc()
    raise SystemExit(code)
