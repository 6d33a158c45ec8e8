"""What a mining reads, as one value: what its teacher's pairs and its negatives are both made from."""

from __future__ import annotations

from typing import Any

from cluster.commits import Commit
from jobs.config.config import Config
from jobs.record.plan import has_teacher
from jobs.record.stages import Kind, ModelName, Stage
from jobs.stages.context import Context
from jobs.stages.ingested import read_ingested
from jobs.stages.mine.candidate_sources import extra_candidates
from jobs.stages.mine.near_duplicates import near_stage
from mining.negatives import MineTask
from mining.settings import MiningSettings


def mining_settings(config: Config, model: object) -> MiningSettings:
    """[mining] as it holds in the mining for a model: without a teacher before the run has trained it."""
    settings = config.mining
    if settings.teacher is None or has_teacher(config, model):
        return settings
    choose = "top" if settings.choose == "stratified" else settings.choose  # which spreads over a teacher's scores
    return settings.model_copy(update={"teacher": None, "choose": choose})


def mining_task(context: Context, stage: Stage) -> tuple[MineTask, dict[str, Any]]:
    """(the task, without a folder and before a teacher is asked; what it depends on).

    Args:
        stage: any stage of the mining.
    """
    config, data = context.config, read_ingested(context)
    number = stage.of.round if isinstance(stage.of, ModelName) else 0  # random choice depends on it
    hits: Commit = context.need(stage.sibling(Kind.SEARCH))
    extra = extra_candidates(context, stage)
    near = context.need(found) if (found := near_stage(context, stage)) else None
    task = MineTask(
        context.store,
        hits.parts("hits"),
        data.labels,
        data.codes,
        data.corpus,
        data.queries,
        mining_settings(config, stage.of),
        "",
        config.rounds.seed + number,
        round=number,
        extra=extra.parts(context),
        earlier=extra.earlier.parts("negatives") if extra.earlier else [],
        near=near.parts("near") if near else [],
    )
    return task, {"hits": hits.key, "tables": data.tables.key, "near": near.key if near else None} | extra.keys
