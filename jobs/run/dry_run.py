"""`hardmine run --dry-run`: the settings as they hold, what would run, what it can show, and what it costs. Starts nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.commits import Commit
from cluster.errors import ConfigError, DataError
from cluster.session.resources import ClusterSize, train_pool
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.config.without_effect import without_effect
from jobs.record.stages import Kind, Stage
from jobs.run.driver import open_run
from jobs.run.peek import Peek, peek
from jobs.run.resolved import resolved, set_settings, settings_lines
from jobs.stages.ingest.counts.counts import Counts, doubts, refuse_unfit
from jobs.stages.ingest.counts.forecast import Forecast, forecast, measured_spread
from jobs.stages.ingest.counts.quick_counts import about_rows, existing, quick_counts, readable
from jobs.stages.ingest.fingerprints import sources
from jobs.stages.stage_2_search import shard_rows
from mining.memory import ROWS_OF_UNKNOWN, mining_task_bytes, node_bytes, shard_actor_bytes

PROCESS_BYTES = 600 * 2**20
"""Memory of a Python process with Ray, torch and FAISS before it holds any data."""
SHORT_TEXT_TOKENS = 128
"""Assumed tokens per item, before anything is tokenised."""


def make_plan(config: Config) -> dict[str, Any]:
    """The resolved configuration, the stages with what is kept, a forecast, and estimates of rows, memory and disk.

    Data that is ingested already is not read again. Else the label and query files are read, if they are not too large
    (`quick_counts.readable`); of the corpus only rows are counted, which is cheap in Parquet.

    Raises:
        ConfigError, DataError, ClusterError: a run would be refused too.
    """
    store, prints = open_run(config)
    stages, context = peek(config, store, prints)
    ingested = context.done.get(Stage(Kind.INGEST))
    rows = _rows(config.data, config) if ingested is None else {name: ingested.rows(name) for name in ("corpus", "queries")}
    rows.setdefault("labels", int(ingested.figures["labels"]) if ingested else 0)
    warnings = [] if ingested else without_effect(config)
    expected, why_not = _forecast(config, context, ingested, rows["corpus"], warnings)
    return {
        "config": json.loads(config.model_dump_json()),
        "set": set_settings(config),
        "resolved": resolved(config, context.size),
        "warnings": warnings,
        "rows": rows,
        "general_rows": _rows(config.evaluation.general, config) if config.evaluation.general else None,
        "dimension": _dimension(config),
        "stages": [asdict(stage) for stage in stages],
        "forecast": expected.as_json() if expected else None,
        "forecast_lines": [line for line in expected.lines() if not line.startswith("!")] if expected else [f"  {why_not}"],
        "estimates": _estimates(config, rows, context.size),
    }


def _forecast(
    config: Config, context: Peek, ingested: Commit | None, items: int, warnings: list[str]
) -> tuple[Forecast | None, str | None]:
    """(the forecast, None: the data is too large to be read for it; why not). Adds what a run would warn of to `warnings`."""
    why_not = readable(config) if ingested is None else None
    if why_not:
        return None, why_not
    try:
        ranks = train_pool(config.cluster, context.size).count
    except ConfigError:  # a cluster that is elsewhere has more than this machine
        ranks = config.cluster.train_workers or 1
    counts = Counts.of(ingested.figures if ingested else quick_counts(config, items), ranks)
    try:
        refuse_unfit(config, counts, trains=True)
    except (ConfigError, DataError) as refused:  # equal texts, which are not looked at here, may change a count
        return None, f"by its labels and queries the run will be refused: {refused}"
    spread = measured_spread(context.store, context.ledger, config.evaluation.primary)
    expected = forecast(config, counts, spread)
    if ingested:  # the stage itself has said it
        warnings += [line.removeprefix("! ") for line in context.said if line.startswith("! ")]
    else:
        warnings += [*doubts(config, counts, trains=True), *expected.warnings]
    return expected, None


def _estimates(config: Config, rows: dict[str, int], size: ClusterSize) -> dict[str, int]:
    """Bytes of memory and disk."""
    dimension = _dimension(config)
    row_bytes = dimension * (2 if config.mining.embedding_dtype == "float16" else 4)
    vectors = (rows["corpus"] + rows["queries"]) * row_bytes
    general = _rows(config.evaluation.general, config) if config.evaluation.general else {"corpus": 0, "queries": 0}
    trained = config.rounds.mined + bool(config.rounds.warmup_epochs)
    general_vectors = (general["corpus"] + general["queries"]) * row_bytes * (1 + trained)
    shards = config.cluster.shards
    try:
        shard = -(-rows["corpus"] // shards) if shards else min(rows["corpus"], shard_rows(config.cluster, size, dimension))
    except ConfigError:  # a cluster that is elsewhere has more than this machine
        shard = min(rows["corpus"], config.cluster.shard_rows or ROWS_OF_UNKNOWN)
    block = min(config.cluster.query_block, rows["queries"])
    hits = config.mining.num_hits
    return {
        "vectors_per_model_bytes": vectors,
        "vectors_all_models_bytes": vectors * (2 + trained + config.rounds.compare_random) + general_vectors,
        "search_actor_bytes": PROCESS_BYTES + shard_actor_bytes(shard, dimension, block, hits),
        "mining_task_bytes": PROCESS_BYTES + mining_task_bytes(rows["corpus"] if config.mining.max_uses else 0, block, hits),
        "mining_node_bytes": node_bytes(
            rows["corpus"],
            rows["labels"],
            rows["queries"],
            len({rule.column for rule in config.mining.rules}),
            weighted=config.mining.popularity is not None,
        ),
        "driver_bytes": PROCESS_BYTES + rows["queries"] * 8,
        "train_worker_tokens_bytes": rows["corpus"] * SHORT_TEXT_TOKENS * 4,
        "hits_per_round_bytes": rows["queries"] * hits * 12,
    }


def _rows(data: DatasetSettings, config: Config) -> dict[str, int]:
    """Rows of each table. A BEIR folder need not have every split."""
    wanted = sources(data)
    return {
        table: sum(about_rows(url, config.storage)[0] for url in existing(wanted, table, data, config.storage))
        for table in wanted
    }


def _dimension(config: Config) -> int:
    from pathlib import Path

    if config.encoder.kind == "static" and config.encoder.model is None:
        return config.encoder.dimension
    path = Path(config.encoder.model or "") / "config.json"
    if config.encoder.model and path.exists():
        return int(json.loads(path.read_text()).get("hidden_size", 768))
    return 768  # assume a base-sized model: its folder is not on this machine


def show_plan(console: Console, plan: dict[str, Any], config: Config) -> None:
    """Print the plan."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for line in settings_lines(config, plan["set"], plan["resolved"]):
        say(line)
    table = Table(title="stages", title_justify="left")
    for name in ("stage", "state"):
        table.add_column(name)
    for stage in plan["stages"]:
        table.add_row(stage["name"], _state(stage))
    console.print(table)
    rows = plan["rows"]
    say(f"rows: {rows['corpus']:,} items, {rows['queries']:,} queries, {rows['labels']:,} labels")
    if general := plan["general_rows"]:
        say(f"general set: {general['corpus']:,} items, {general['queries']:,} queries, {general['labels']:,} labels")
    for line in plan["forecast_lines"]:
        say(line.strip())
    for name, value in plan["estimates"].items():
        say(f"{name.removesuffix('_bytes').replace('_', ' ')}: about {value / 2**20:,.1f} MiB")
    for warning in plan["warnings"]:
        say(f"! {warning}")


def _state(stage: dict[str, Any]) -> str:
    if stage["kept"]:
        return "kept"
    return ("runs again" if stage["again"] else "runs") + (f": {stage['why']}" if stage["why"] else "")
