"""`hardmine run --dry-run`: what would run, on how much, and how large it gets. Reads the data's footers, starts nothing."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.commits import Ledger
from cluster.storage import Store, check_writable
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.stages.ingest.files import count_rows
from jobs.stages.stage_0_ingest import fingerprints, sources
from jobs.stages.summary import GENERAL
from mining.memory import mining_task_bytes, shard_actor_bytes
from mining.settings import MiningSettings

PROCESS_BYTES = 600 * 2**20
"""A Python process with Ray, torch and FAISS before it holds any data."""
SHORT_TEXT_TOKENS = 128
"""Tokens per item assumed before anything is tokenised."""


def make_plan(config: Config) -> dict[str, Any]:
    """The resolved configuration, the stages with what is committed, and estimates of rows, memory and disk.

    Raises:
        ConfigError, DataError, ClusterError: what a run would stop at before it starts.
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
    beside = (general["corpus"] + general["queries"]) * size if general else 0
    measured = 1 + config.rounds.mined + bool(config.rounds.warmup_epochs)  # on the general set, too
    models = 2 + (config.rounds.mined + bool(config.rounds.warmup_epochs)) + config.rounds.compare_random
    shards = config.cluster.shards
    shard = -(-rows["corpus"] // shards) if shards else min(rows["corpus"], config.cluster.shard_rows)
    block = min(config.cluster.query_block, rows["queries"])
    return {
        "config": json.loads(config.model_dump_json()),
        "rows": rows,
        "general_rows": general,
        "dimension": dimension,
        "stages": [{"name": name, "committed": name in committed} for name in stage_names(config)],
        "estimates": {
            "vectors_per_model_bytes": vectors,
            "vectors_all_models_bytes": vectors * models + beside * measured,
            "search_actor_bytes": PROCESS_BYTES + shard_actor_bytes(shard, dimension, block, config.mining.num_hits),
            "mining_task_bytes": PROCESS_BYTES + mining_task_bytes(rows["corpus"], rows["labels"], block, config.mining.num_hits),
            "driver_bytes": PROCESS_BYTES + rows["queries"] * 8,
            "train_worker_tokens_bytes": rows["corpus"] * SHORT_TEXT_TOKENS * 4,
            "hits_per_round_bytes": rows["queries"] * config.mining.num_hits * 12,
        },
    }


def stage_names(config: Config) -> list[str]:
    """Every stage of a run in order, as its commits are called (embeddings are named after their content)."""
    sequence = ["sequence"] if config.encoder.kind == "sequence" else []
    general = [f"{GENERAL}ingest", f"{GENERAL}tokens"] if config.evaluation.general else []
    names = ["ingest", "base", "tokens", *sequence, *general, "embed (off the shelf)", *_measuring_names(config, "baseline")]
    first = 0 if config.rounds.warmup_epochs else 1
    for number in range(first, config.rounds.mined + 1):
        names += _mining_names(config, number) if number else []
        guide = _guide_names(config) if number == first else []
        names += [*guide, f"round-{number:02d}-train", *_measuring_names(config, f"round-{number:02d}")]
    if config.rounds.compare_random and config.rounds.mined:
        arm = f"round-{config.rounds.mined:02d}-random"
        names += [f"{arm}-train", *_measuring_names(config, arm, watched=False)]
    return [*names, "finish"]


def is_beside(name: str) -> bool:
    """Whether a stage is beside the others, which do without it: the general set's, and events."""
    return name.startswith(GENERAL) or name.endswith("-events")


def _measuring_names(config: Config, name: str, *, watched: bool = True) -> list[str]:
    """What a model is measured by: on the run's data and, if it is watched for forgetting, on the general set."""
    events = [f"{name}-events"] if config.evaluation.events else []
    general = [f"{GENERAL}{name}-hits", f"{GENERAL}{name}-evaluate"] if config.evaluation.general and watched else []
    return [f"{name}-hits", *events, f"{name}-evaluate", *general]


def _mining_names(config: Config, number: int) -> list[str]:
    """The stages of a round's mining: those that later rounds share come in the first that needs them."""
    trained = 1 if config.rounds.warmup_epochs else 2  # the first round whose model is not the off-the-shelf one
    needed = {"bm25": 1, "baseline": trained, "earlier": 2}
    kinds = [source.kind for source in config.mining.sources if number >= needed.get(source.kind, 1)]
    shared = {"bm25": "bm25", "baseline": "baseline-search"}
    once = [shared[kind] for kind in kinds if kind in shared and number == needed[kind]]
    own = ["pairs", "score"] if kinds != ["model"] else []
    return [
        f"round-{number:02d}-search",
        *once,
        *(f"round-{number:02d}-{stage}" for stage in own),
        *_second_looks(config.mining, number),
        f"round-{number:02d}-mine",
        f"round-{number:02d}-report",
    ]


def _second_looks(settings: MiningSettings, number: int) -> list[str]:
    """What near-duplicates and a teacher add to a round's mining; the teacher's model is looked at before anything else."""
    names = ["near-duplicates"] if number == 1 and settings.near_duplicate is not None else []
    if settings.teacher is None:
        return names
    tokens = ["teacher-tokens"] if number == 1 and settings.teacher.kind == "encoder" else []
    once = ["teacher"] if number == 1 else []
    return [*names, *once, f"round-{number:02d}-teacher-pairs", *tokens, f"round-{number:02d}-teacher"]


def _guide_names(config: Config) -> list[str]:
    """What a guide of its own adds to the first training; without one the run's own model guides, which is embedded anyway."""
    guide = config.training.guide
    return ["guide", "guide-tokens"] if guide is not None and guide.model is not None else []


def _rows(data: DatasetSettings, config: Config) -> dict[str, int]:
    """Rows of each table; of a BEIR folder, splits may be missing."""

    def there(url: str) -> bool:
        parent, _, name = url.rstrip("/").rpartition("/")
        return data.folder is None or Store(parent, config.storage).exists(name)

    return {
        table: sum(count_rows(url, config.storage) for url, _ in places if there(url)) for table, places in sources(data).items()
    }


def _dimension(config: Config) -> int:
    from pathlib import Path

    if config.encoder.kind == "static" and config.encoder.model is None:
        return config.encoder.dimension
    path = Path(config.encoder.model or "") / "config.json"
    if config.encoder.model and path.exists():
        return int(json.loads(path.read_text()).get("hidden_size", 768))
    return 768  # a base-sized model: the folder is not here to ask


def show_plan(console: Console, plan: dict[str, Any]) -> None:
    """Print the plan for a person."""
    console.print_json(json.dumps(plan["config"]))
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
