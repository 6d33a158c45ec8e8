"""Stage 3: hits and labels become negatives."""

from __future__ import annotations

from dataclasses import asdict, replace

from cluster.commits import Commit, Outcome
from jobs.record.stages import Kind, Stage
from jobs.stages.context import Context
from jobs.stages.mine.report import REPORT_ONLY, summarise
from jobs.stages.mine.task import mining_task
from mining.passes import mine, with_cuts


def mine_negatives(context: Context, stage: Stage) -> Commit:
    """The negatives of every mined query."""
    settings, retries = context.config.mining, context.config.cluster.retries
    task, inputs = mining_task(context, stage)
    hits = context.need(stage.sibling(Kind.SEARCH))
    if settings.teacher is not None:
        scored = context.need(stage.sibling(Kind.TEACHER_SCORES))
        table = "hits" if settings.teacher.kind == "encoder" else "scores"
        task, inputs["teacher"] = replace(task, teacher=scored.parts(table)), scored.key

    def work(folder: str) -> Outcome:
        with_settled_cuts = with_cuts(replace(task, folder=f"{folder}/negatives"), retries=retries)
        parts, counts = mine(with_settled_cuts, retries=retries)
        cuts = with_settled_cuts.cuts
        figures = summarise(counts) | {
            "engine": hits.figures["engine"],
            "negatives": context.store.url(with_settled_cuts.folder),
            "cuts": asdict(cuts) if cuts else None,
        }
        return Outcome(tables={"negatives": parts}, figures=figures)

    inputs |= {
        "seed": context.config.rounds.seed,
        "mining": settings.model_dump(exclude={"search", "embedding_dtype", *REPORT_ONLY}),
    }
    return context.commit(stage, inputs=inputs, work=work)
