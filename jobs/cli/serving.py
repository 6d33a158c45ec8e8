"""The commands for a kept model: `export` and `live` ship it, `search` answers with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli.arguments import ConfigFile, Overrides, Takeover
from jobs.cli.emit import Json, emit
from jobs.cli.finished import Endpoint, Output, open_store

if TYPE_CHECKING:
    from jobs.serving.search.opened import Opened

app = typer.Typer()


@app.command()
def export(
    output: Output,
    *,
    to: Annotated[str, typer.Option(help="Folder of exports, local or s3://. Each export is a folder of its own in it.")],
    round_number: Annotated[
        int | None,
        typer.Option("--round", min=-1, help="Export the model of this round; -1: off the shelf (default: the kept model)."),
    ] = None,
    index: Annotated[
        Literal["auto", "flat", "hnsw", "ivf", "ivfpq", "sq8"],
        typer.Option(help="Kind of FAISS index; auto: by size and budget."),
    ] = "auto",
    memory_mb: Annotated[float | None, typer.Option(min=0.001, help="Memory that the index may take.")] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0.001, help="95th percentile that one search may take, without encoding the query.")
    ] = None,
    min_recall: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum recall@10 of the index against exact search.")
    ] = 0.95,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="Encode queries by the model in 8 bits; refused where they find less than --min-recall (extra: onnx)."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Make it the live export (the first one of a folder is it anyway).")
    ] = False,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Write the kept model, its vectors and an index as one folder that `hardmine search` opens. Nothing is embedded twice."""
    from cluster.session.progress import Progress
    from jobs.run.embed_again import embed_again
    from jobs.serving.export.index import Budget
    from jobs.serving.export.ship import export_run
    from jobs.serving.export.show import show_export

    store, progress = open_store(output, endpoint), Progress()
    result = export_run(
        store,
        open_store(to, endpoint),
        Budget(None if index == "auto" else index, memory_mb, latency_ms, min_recall),
        number=round_number,
        live=live,
        quantize=quantize is not None,
        embed_again=lambda model: embed_again(store, model, progress),
        say=progress.say,
    )
    emit(result.as_json(), json_output, lambda console: show_export(console, result))


@app.command("live")
def live_command(
    folder: Annotated[str, typer.Argument(help="Folder of exports.")],
    name: Annotated[str | None, typer.Argument(help="The export that is to be live, for example an earlier one.")] = None,
    *,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """List the exports of a folder, or make one of them live: the way forward, and the way back."""
    from jobs.serving.export.ship import live_command as choose
    from jobs.serving.export.show import show_live

    value = choose(open_store(folder, endpoint), name)
    emit(value, json_output, lambda console: show_live(console, value))


@app.command()
def search(
    folder: Annotated[str, typer.Argument(help="An export, or a folder of exports: then the live one.")],
    query: Annotated[
        str | None, typer.Argument(help="A text; for an adapter a JSON list of numbers, for a sequence encoder item ids.")
    ] = None,
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Items to show.")] = 10,
    where: Annotated[
        list[str] | None, typer.Option(help="Only items with genre=crime, year>=1990 … (=, !=, <, <=, >, >=); may be repeated.")
    ] = None,
    beside: Annotated[str | None, typer.Option(help="A second export, shown side by side with the first.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder of the model that encodes queries (default: the export's own). Another one is refused."),
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let the export's re-ranker order the first 100 hits.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Answer over HTTP, with a page to try queries.")] = False,
    host: Annotated[str, typer.Option(help="Address that --serve listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that --serve listens on.")] = 8300,
    log: Annotated[Path | None, typer.Option(help="With --serve: file to which every query is appended as a JSON line.")] = None,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Search an export. It is checked against its stamp first; vectors of another model are refused."""
    from cluster.errors import ConfigError
    from jobs.serving.search.answer import answer, show_answer
    from jobs.serving.search.http import QueryLog, Service
    from jobs.serving.search.http import serve as run_service

    if (query is None) != serve:
        raise ConfigError('expected a query (hardmine search FOLDER "a query"), or --serve without one')
    folders = [(folder, model), *([(beside, None)] if beside else [])]
    opened = [_open_export(root, endpoint, encoder, rerank=rerank) for root, encoder in folders]
    if query is None:
        service = Service(opened, QueryLog(log) if log else None)
        typer.echo(f"http://{host}:{port} answers for {' and '.join(service.exports)}; Ctrl-C ends it", err=True)
        run_service(service, host, port)
        return
    result = answer(opened, query, k, where or [])
    emit(result, json_output, lambda console: show_answer(console, result))


def _open_export(folder: str, endpoint: str | None, model: str | None, *, rerank: bool = False) -> Opened:
    from cluster.storage.settings import StorageSettings
    from jobs.serving.search.opened import open_export

    return open_export(folder, StorageSettings(endpoint=endpoint, attempts=2), model=model, rerank=rerank)


@app.command("compare-live")
def compare_live(
    log: Annotated[
        Path | None, typer.Argument(help="Queries that were asked: JSON lines, CSV or Parquet, a file or folder.")
    ] = None,
    a: Annotated[str | None, typer.Argument(help="The export that is live (or a folder of exports).")] = None,
    b: Annotated[str | None, typer.Argument(help="The export that may take its place.")] = None,
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Results that a user sees.")] = 10,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Column of LOG whose values are compared one by one.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="File with query (or query_id), item_id, score: what is relevant.")] = None,
    page: Annotated[Path, typer.Option(help="HTML file for the largest changes.")] = Path("compare-live.html"),
    outcome: Annotated[
        Path | None, typer.Option(help="Judge the log of an interleaving or A/B test, instead of replaying queries.")
    ] = None,
    planned: Annotated[int | None, typer.Option(min=1, help="With --outcome: units that the test was planned for.")] = None,
    looks: Annotated[int, typer.Option(min=1, max=20, help="With --planned: equally spaced looks that were planned.")] = 1,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Replay a query log on two exports: what would users see change? Or, with --outcome, judge a test on real traffic."""
    from cluster.errors import ConfigError
    from cluster.session.progress import Progress
    from jobs.serving.live.clicks import ClickReader
    from jobs.serving.live.outcome import Plan, judge_outcome
    from jobs.serving.live.queries import read_queries
    from jobs.serving.live.replay import replay
    from jobs.serving.live.show import show_outcome, show_replay, write_page

    if outcome is not None:
        if log is not None:
            raise ConfigError("--outcome judges one log, and replays none; leave LOG, A and B out")
        judged = judge_outcome(outcome, Plan(planned, looks))
        emit(judged, json_output, lambda console: show_outcome(console, judged))
        return
    if log is None or a is None or b is None:
        raise ConfigError("expected a log of queries and two exports: hardmine compare-live LOG A B (or --outcome LOG)")
    clicks = ClickReader()
    queries = read_queries(log, slices or [], labels, clicks.add)
    exports = [_open_export(one, endpoint, None) for one in (a, b)]
    result = replay(queries, exports[0], exports[1], hits=k, clicks=clicks.log(), say=Progress().say)
    write_page(result, page)
    emit(result | {"page": str(page)}, json_output, lambda console: show_replay(console, result, page))


@app.command()
def refresh(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    to: Annotated[str, typer.Option(help="Folder of exports whose live one is refreshed.")],
    live: Annotated[bool, typer.Option("--live", help="Let a new model that passed the gate be live at once.")] = False,
    memory_mb: Annotated[float | None, typer.Option(min=0.001, help="Memory that the index may take.")] = None,
    min_recall: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum recall@10 of the index against exact search.")
    ] = 0.95,
    json_output: Json = False,
    takeover: Takeover = False,
) -> None:
    """For a schedule: look at new data, and train on it, serve new items, or do nothing, with the reason. Resumes."""
    from cluster.session.progress import Progress
    from cluster.storage.store import Store
    from jobs.config.config import load_config
    from jobs.serving.export.index import Budget
    from jobs.serving.refresh.refresh import Refresh
    from jobs.serving.refresh.show import show_refresh

    settings = load_config(config, overrides or [])
    home, budget = Store(to, settings.storage), Budget(memory_mb=memory_mb, min_recall=min_recall)
    entry = Refresh(settings, home, budget, Progress(), takeover=takeover, live=live).run()
    emit(entry, json_output, lambda console: show_refresh(console, entry, to))
