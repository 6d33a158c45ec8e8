"""`hardmine report`, and the report that every finished run writes beside its commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.errors import one_paragraph
from cluster.session.progress import Progress
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store, is_s3

Json = dict[str, Any]
NAME = "report.html"


def report_command(output: str, other: str | None, out: Path | None, endpoint: str | None) -> Json:
    """Write the report of one run, or of two compared; returns its JSON with "path", the address of the page.

    Args:
        output: the run's folder. other: a second run to compare it with.
        out: file to write; None: report.html, or compare-<name>.html for two runs, in the first run's folder.

    Raises:
        ConfigError: there is no run. ArtifactError: it is damaged. ClusterError: the storage is away.
    """
    from jobs.report.compare import compare, render_comparison
    from jobs.report.gather import gather
    from jobs.report.page import render_run

    stores = [Store(folder, StorageSettings(endpoint=endpoint, attempts=2)) for folder in (output, other) if folder is not None]
    if other is None:
        report = gather(stores[0])
        text, name = render_run(report), NAME
    else:
        report = compare(*stores)
        text, name = render_comparison(report), f"compare-{report['b']['name']}.html"
    store, name = (stores[0], name) if out is None else (Store(str(out.absolute().parent)), out.name)
    store.write_bytes(name, text.encode())
    return report | {"path": store.url(name)}


def write_after_run(store: Store, progress: Progress, *, overwrite: bool = True) -> str | None:
    """Write the report of a finished run; returns its address, or None if that failed: a report must not fail a run.

    Args:
        overwrite: write it even if there is one.
    """
    try:
        if not overwrite and store.exists(NAME):
            return store.url(NAME)
        from jobs.report.gather import gather
        from jobs.report.page import render_run

        store.write_bytes(NAME, render_run(gather(store)).encode())
    except Exception as error:  # whatever failed, the model and the figures are committed
        progress.say(
            f"! the report could not be written ({type(error).__name__}: {one_paragraph(str(error))[:300]}); "
            f"`hardmine report {store.root}` tries again"
        )
        return None
    return store.url(NAME)


def write_again(store: Store) -> None:
    """After `hardmine gate`: the report that is there must not say "ship it" where the gate now says no."""
    if store.exists(NAME):
        write_after_run(store, Progress())


def show_report(console: Console, report: Json) -> None:
    """Print the answer in a few lines, and the address of the page."""
    from jobs.report.answer import answer
    from jobs.report.compare import comparison_answer

    first_screen = answer(report) if report["kind"] == "run" else comparison_answer(report)
    ship = " ".join(filter(None, [first_screen.get("ship"), first_screen.get("ship_command")]))
    for line in filter(None, [first_screen["headline"], first_screen["certainty"], ship]):
        console.print(line, highlight=False, soft_wrap=True)
    path = report["path"]
    how = "copy it to a local folder and open it in a browser" if is_s3(path) else "open it in a browser"
    console.print(f"\nreport: {path}\n        {how}", highlight=False, soft_wrap=True)
