"""The re-ranker is trained on the negatives that the kept model's round was trained on; on those of round 1 where it is the
teacher of the later ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.session.resources import PoolSize, train_pool
from cluster.storage.model_folders import folder_digest
from eval.verdict import decide_epochs
from jobs.record.plan import trains_teacher
from jobs.record.stages import Kind, ModelName, Second, Stage
from jobs.stages.chosen import round_of
from jobs.stages.context import Context
from jobs.stages.evaluate.reranker.retrievers import kept_model
from jobs.stages.ingested import read_ingested
from jobs.stages.stage_4_train import BESIDE, run_training
from training.engine.deepspeed_config import read_deepspeed
from training.engine.schedule import Schedule
from training.reranker.settings import settings_for
from training.reranker.task import RerankData, RerankTask
from training.reranker.validation import DEPTH


def train_reranker(context: Context, stage: Stage) -> Commit:
    """Train the re-ranker; its validation re-ranks that model's hits of dev queries."""
    pool = train_pool(context.config.cluster, context.size)
    task, inputs = reranker_task(context, pool)

    def work(folder: str) -> Outcome:
        outcome = run_training(context, replace(task, folder=folder), pool)
        prefix = outcome.figures["prefix"]
        model = {path: info for path, info in outcome.files.items() if path.startswith(f"{prefix}/")}
        return replace(outcome, figures={**outcome.figures, "digest": folder_digest(model, prefix)})

    return context.commit(stage, inputs=inputs, work=work)


def reranker_task(context: Context, pool: PoolSize) -> tuple[RerankTask, dict[str, Any]]:
    """(the training without its folder, all that it depends on)."""
    config, data = context.config, read_ingested(context)
    kept = ModelName(1) if trains_teacher(config) else kept_model(context)
    assert config.reranker is not None
    base = context.need(Stage(Kind.MODEL, Second.RERANKER))
    mined = context.need(Stage(Kind.MINE, ModelName(max(1, round_of(context, kept)))))
    hits = context.need(Stage(Kind.HITS, kept))
    settings = settings_for(config.training, config.reranker)
    own = read_deepspeed(config.training.deepspeed) if config.training.deepspeed else None
    task = RerankTask(
        store=context.store,
        folder="",
        model=base.files,
        model_prefix=base.figures["prefix"],
        data=RerankData(
            codes=data.codes,
            queries=data.queries,
            corpus=data.corpus,
            labels=data.labels,
            negatives=mined.parts("negatives"),
            near_misses=hits.parts("hits"),
        ),
        settings=settings,
        reranker=config.reranker,
        schedule=Schedule(config.reranker.epochs),
        seed=config.rounds.seed,
        threads=pool.cpus,
        budget_tokens=config.cluster.micro_batch_tokens,
        mailbox=context.progress.mailbox,
        deepspeed=own,
        name=config.name,
        label="reranker",
        stopping=decide_epochs,
    )
    return task, {
        "model": base.figures["digest"],
        "tables": data.tables.key,
        "negatives": mined.key,
        "validated_on": [hits.inputs["vectors"], min(DEPTH, config.evaluation.num_hits)],
        "training": settings.model_dump(exclude=BESIDE) | {"deepspeed": own},  # a file counts by its content
        "reranker": config.reranker.model_dump(exclude={"model"}),
        "seed": config.rounds.seed,
        "budget": config.cluster.micro_batch_tokens,
    }
