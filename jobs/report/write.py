"""`hardmine report`, and the report that every finished run leaves beside its commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.errors import one_paragraph
from cluster.progress import Progress
from cluster.storage import StorageSettings, Store, is_s3

Json = dict[str, Any]
NAME = "report.html"


def report_command(output: str, other: str | None, out: Path | None, endpoint: str | None) -> Json:
    """Write the report of one run, or of two compared; returns its dict with "path", where it lies.

    Args:
        output: the run's folder. other: a second run, which is compared with it.
        out: where to write; None: report.html in the run's folder, compare-<name>.html there for two.

    Raises:
        ConfigError: there is no run. ArtifactError: it is damaged. ClusterError: the storage is away.
    """
    from jobs.report.compare import compare, render_comparison
    from jobs.report.gather import gather
    from jobs.report.page import render_run

    stores = [Store(place, StorageSettings(endpoint=endpoint, attempts=2)) for place in (output, other) if place is not None]
    if other is None:
        found = gather(stores[0])
        text, name = render_run(found), NAME
    else:
        found = compare(*stores)
        text, name = render_comparison(found), f"compare-{found['b']['name']}.html"
    return found | {"path": _write(stores[0], name, out, text)}


def _write(store: Store, name: str, out: Path | None, text: str) -> str:
    if out is None:
        store.write_bytes(name, text.encode())
        return store.url(name)
    there = Store(str(out.absolute().parent))
    there.write_bytes(out.name, text.encode())
    return there.url(out.name)


def write_after_run(store: Store, progress: Progress, *, anew: bool = True) -> str | None:
    """Leave the report of a finished run; its address, or None where that failed: no report is worth a run.

    Args:
        anew: write it even where there is one.
    """
    try:
        if not anew and store.exists(NAME):
            return store.url(NAME)
        from jobs.report.gather import gather
        from jobs.report.page import render_run

        store.write_bytes(NAME, render_run(gather(store)).encode())
    except Exception as error:  # whatever it is, the model is there and the figures are committed
        progress.say(
            f"! the report could not be written ({type(error).__name__}: {one_paragraph(str(error))[:300]}); "
            f"`hardmine report {store.root}` tries again"
        )
        return None
    return store.url(NAME)


def show_report(console: Console, report: Json) -> None:
    """Say the answer in a line, and where the page lies."""
    from jobs.report.answer import answer
    from jobs.report.compare import verdict

    found = answer(report) if report["kind"] == "run" else verdict(report)
    console.print(found["headline"], highlight=False)
    if found["certainty"]:
        console.print(found["certainty"], highlight=False)
    if found.get("ship"):
        console.print(" ".join(filter(None, [found["ship"], found.get("ship_command")])), highlight=False, soft_wrap=True)
    path = report["path"]
    how = "copy it to a disk and open it in a browser" if is_s3(path) else "open it in a browser"
    console.print(f"\nreport: {path}\n        {how}", highlight=False, soft_wrap=True)
