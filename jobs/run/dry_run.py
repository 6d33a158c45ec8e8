"""`hardmine run --dry-run`: what would run, on how many rows, with how much memory and disk. Starts nothing."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.commits import Ledger
from cluster.storage.store import Store, check_writable
from jobs.config.without_effect import without_effect
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.record.plan import plan_run
from jobs.record.stages import Kind, Second, Stage
from jobs.stages.ingest.fingerprints import fingerprints, sources
from jobs.stages.ingest.reading.files import count_rows
from mining.memory import mining_task_bytes, shard_actor_bytes

PROCESS_BYTES = 600 * 2**20
"""Memory of a Python process with Ray, torch and FAISS before it holds any data."""
SHORT_TEXT_TOKENS = 128
"""Assumed tokens per item, before anything is tokenised."""


def make_plan(config: Config) -> dict[str, Any]:
    """The resolved configuration, the stages with what is committed, and estimates of rows, memory and disk.

    Raises:
        ConfigError, DataError, ClusterError: a run would be refused too.
    """
    store = Store(config.root, config.storage)
    check_writable(store)
    fingerprints(config)
    rows = _rows(config.data, config)
    general = _rows(config.evaluation.general, config) if config.evaluation.general else None
    committed = {commit.name for commit in Ledger(store).all()}
    dimension = _dimension(config)
    size = dimension * (2 if config.mining.embedding_dtype == "float16" else 4)
    vectors = (rows["corpus"] + rows["queries"]) * size
    general_vectors = (general["corpus"] + general["queries"]) * size if general else 0
    general_models = 1 + config.rounds.mined + bool(config.rounds.warmup_epochs)
    models = 2 + (config.rounds.mined + bool(config.rounds.warmup_epochs)) + config.rounds.compare_random
    shards = config.cluster.shards
    shard = -(-rows["corpus"] // shards) if shards else min(rows["corpus"], config.cluster.shard_rows)
    block = min(config.cluster.query_block, rows["queries"])
    return {
        "config": json.loads(config.model_dump_json()),
        "warnings": without_effect(config),
        "rows": rows,
        "general_rows": general,
        "dimension": dimension,
        "stages": [{"name": stage.name, "committed": _is_committed(stage, committed)} for stage in plan_run(config)],
        "estimates": {
            "vectors_per_model_bytes": vectors,
            "vectors_all_models_bytes": vectors * models + general_vectors * general_models,
            "search_actor_bytes": PROCESS_BYTES + shard_actor_bytes(shard, dimension, block, config.mining.num_hits),
            "mining_task_bytes": PROCESS_BYTES + mining_task_bytes(rows["corpus"], rows["labels"], block, config.mining.num_hits),
            "driver_bytes": PROCESS_BYTES + rows["queries"] * 8,
            "train_worker_tokens_bytes": rows["corpus"] * SHORT_TEXT_TOKENS * 4,
            "hits_per_round_bytes": rows["queries"] * config.mining.num_hits * 12,
        },
    }


def _is_committed(stage: Stage, names: set[str]) -> bool:
    """Whether a stage's commit is there; vectors, whose commit has another name, are there with what is made before or after."""
    if stage.kind is Kind.EMBED:
        stage = stage.sibling(Kind.TOKENS if isinstance(stage.of, Second) else Kind.HITS)
    return stage.name in names


def _rows(data: DatasetSettings, config: Config) -> dict[str, int]:
    """Rows of each table. A BEIR folder need not have every split."""

    def exists(url: str) -> bool:
        parent, _, name = url.rstrip("/").rpartition("/")
        return data.folder is None or Store(parent, config.storage).exists(name)

    return {
        table: sum(count_rows(url, config.storage) for url, _ in files if exists(url)) for table, files in sources(data).items()
    }


def _dimension(config: Config) -> int:
    from pathlib import Path

    if config.encoder.kind == "static" and config.encoder.model is None:
        return config.encoder.dimension
    path = Path(config.encoder.model or "") / "config.json"
    if config.encoder.model and path.exists():
        return int(json.loads(path.read_text()).get("hidden_size", 768))
    return 768  # assume a base-sized model: its folder is not on this machine


def show_plan(console: Console, plan: dict[str, Any]) -> None:
    """Print the plan."""
    console.print_json(json.dumps(plan["config"]))
    for warning in plan["warnings"]:
        console.print(f"! {warning}", highlight=False, markup=False)
    table = Table(title="stages", title_justify="left")
    table.add_column("stage")
    table.add_column("state")
    for stage in plan["stages"]:
        table.add_row(
            stage["name"], "committed (kept if its settings and inputs are the same)" if stage["committed"] else "would run"
        )
    console.print(table)
    rows = plan["rows"]
    console.print(f"rows: {rows['corpus']:,} items, {rows['queries']:,} queries, {rows['labels']:,} labels", highlight=False)
    if general := plan["general_rows"]:
        console.print(
            f"general set: {general['corpus']:,} items, {general['queries']:,} queries, {general['labels']:,} labels",
            highlight=False,
        )
    for name, value in plan["estimates"].items():
        console.print(f"{name.removesuffix('_bytes').replace('_', ' ')}: about {value / 2**20:,.1f} MiB", highlight=False)
