"""Stage 4: one round of training on the mined (or only random) negatives."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.errors import ArtifactError
from cluster.session.resources import PoolSize, train_pool
from eval.verdict import decide_epochs
from jobs.record.plan import plan_run
from jobs.record.stages import BASELINE, Kind, ModelName, Scope, Stage
from jobs.stages.chosen import joined_batch, parent_model
from jobs.stages.context import Context, size_for
from jobs.stages.embed.guide import guide_vectors
from jobs.stages.ingested import read_ingested
from jobs.stages.stage_1_embed import read_features, trained_model
from training.distributed.trainer import start_early, train
from training.engine.checkpoint import newest_state
from training.engine.deepspeed_config import read_deepspeed
from training.engine.schedule import Schedule
from training.task import Task, TrainData, TrainTask
from training.telemetry.telemetry import telemetry_files

BESIDE = {"trackers", "checkpoint_steps", "epochs"}
"""Settings of training that change no weight, or count in the schedule: a warm-up has epochs of its own."""


def training_length(context: Context, model: ModelName) -> Schedule:
    """How long a model is trained: the random arm as long as all mined rounds together."""
    config = context.config
    if not model.random:
        return Schedule(config.training.epochs if model.round else config.rounds.warmup_epochs)
    trained = [context.need(Stage(Kind.TRAIN, ModelName(number))) for number in range(1, model.round + 1)]
    steps = sum(int(commit.figures["steps"]) for commit in trained)
    return Schedule(len(trained) * config.training.epochs, len(trained), steps)


def training_task(context: Context, model: ModelName, pool: PoolSize) -> tuple[TrainTask, dict[str, Any]]:
    """(a round's training without folder and name, what it depends on beside its own settings and length)."""
    config, data = context.config, read_ingested(context)
    start = trained_model(context, parent_model(config, model))
    items, queries, source = read_features(context, Scope.RUN, of_base=start.reads_base)
    guide, mix = guide_vectors(context), config.data.mix
    mixed, mixed_inputs = _mixed_in(context, of_base=start.reads_base) if mix else (None, {})
    own = read_deepspeed(config.training.deepspeed) if config.training.deepspeed else None
    mined = context.need(Stage(Kind.MINE, model)) if model.round and not model.random else None
    # hits of dev queries under the off-the-shelf model, which make validation hard
    near_misses = context.need(Stage(Kind.HITS, BASELINE))
    task = TrainTask(
        store=context.store,
        folder="",
        kind=config.encoder.kind,
        model=start.files,
        model_prefix=start.prefix,
        data=TrainData(
            codes=data.codes,
            queries=data.queries,
            item_features=items,
            query_features=queries,
            labels=data.labels,
            negatives=mined.parts("negatives") if mined else [],
            near_misses=near_misses.parts("hits"),
            guide_items=guide.parts("corpus") if guide else [],
            guide_queries=guide.parts("queries") if guide else [],
            mix=mixed,
            mix_share=mix.share if mix else 0.0,
        ),
        settings=config.training,
        schedule=training_length(context, model),
        seed=config.rounds.seed,
        round=model.round,
        threads=pool.cpus,
        budget_tokens=config.cluster.micro_batch_tokens,
        mailbox=context.progress.mailbox,
        deepspeed=own,
        name=config.name,
        label=str(model),
        stopping=decide_epochs,
    )
    return task, {
        "model": start.digest,
        "features": source,
        "tables": data.tables.key,
        "negatives": mined.key if mined else None,
        "near_misses": near_misses.inputs["vectors"],
        "guide": guide.key if guide else None,
        "deepspeed": own,  # a file of DeepSpeed settings counts by its content
        "seed": config.rounds.seed,
        "budget": config.cluster.micro_batch_tokens,
        **mixed_inputs,
    }


def _mixed_in(context: Context, *, of_base: bool) -> tuple[TrainData, dict[str, Any]]:
    """(the tables of [data.mix], what tells them apart)."""
    mix, data = context.config.data.mix, read_ingested(context, Scope.MIX)
    assert mix is not None
    items, queries, source = read_features(context, Scope.MIX, of_base=of_base)
    tables = TrainData(codes=data.codes, queries=data.queries, labels=data.labels, item_features=items, query_features=queries)
    return tables, {"mix": {"tables": data.tables.key, "features": source, "share": mix.share}}


def start_ranks(context: Context) -> None:
    """Start the training workers beside the stages before training, if anything is to be trained."""
    committed = context.ledger.names()
    if any(stage.kind is Kind.TRAIN and stage.name not in committed for stage in plan_run(context.config)):
        start_early(train_pool(context.config.cluster, size_for(context.config, Stage(Kind.TRAIN), context.size)))


def train_model(context: Context, stage: Stage) -> Commit:
    """Train a round's model, or the random arm's."""
    assert isinstance(stage.of, ModelName)
    config = context.config
    task, inputs = training_task(context, stage.of, train_pool(config.cluster, context.size))
    pool = train_pool(config.cluster, context.size)  # the stages before may have taken hours
    # so a run whose cluster changes keeps its batch, and its arms are trained alike
    task = replace(task, threads=pool.cpus, joined=joined_batch(context, stage.of.round + int(stage.of.random)))

    def work(folder: str) -> Outcome:
        outcome = run_training(context, replace(task, folder=folder), pool)
        negatives = "mined" if task.data.negatives else "random"
        return replace(outcome, figures={**outcome.figures, "negatives": negatives})

    inputs |= {
        "training": config.training.model_dump(exclude=BESIDE) | {"deepspeed": inputs.pop("deepspeed")},
        **asdict(task.schedule),
        "round": task.round,
    }
    return context.commit(stage, inputs=inputs, work=work)


def run_training(context: Context, task: Task, pool: PoolSize) -> Outcome:
    """Train to the end, on no more ranks than a step has queries; the best model, telemetry and figures."""
    store, folder = context.store, task.folder
    begun = newest_state(store, folder)
    batch = begun.joined if begun else task.joined
    ranks = min(pool.count, batch or pool.count)  # every rank has a query
    result = train(task, replace(pool, count=ranks))
    for note in result["notes"]:
        context.progress.say(f"  {note}")
    for warning in result["tracker_warnings"]:
        context.progress.say(f"! {warning}")
    telemetry = telemetry_files(store, folder)
    if not telemetry:
        raise ArtifactError(f"{store.url(folder)} holds no telemetry; run the same command again")
    store.delete(f"{folder}/engine")  # the engine's state served resuming only
    best = result["best"]
    figures = {key: value for key, value in result.items() if key != "best"}
    figures |= {f"best_{key}": value for key, value in best.items() if key not in ("model", "prefix", "step")}
    return Outcome(
        files=dict(best["model"]) | telemetry, figures=figures | {"prefix": best["prefix"]}, work_seconds=result["seconds"]
    )
