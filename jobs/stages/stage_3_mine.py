"""Stage 3: hits and labels become negatives."""

from __future__ import annotations

from dataclasses import replace

from cluster.commits import Commit, Outcome
from jobs.record.stages import Kind, Stage
from jobs.stages.context import Context
from jobs.stages.mine.report import REPORT_ONLY
from jobs.stages.mine.task import mining_task
from mining.choice.filters import Cuts
from mining.passes import Passes
from mining.report.figures import ChoiceFigures

NO_CHOICE = ("search", "embedding_dtype", *REPORT_ONLY)
"""Settings that change no choice; what was searched is in the key on its own."""
HOW_READ = {"requests"}
"""Settings of a teacher that change no score."""


def mine_negatives(context: Context, stage: Stage) -> Commit:
    """The negatives of every mined query."""
    task, inputs = mining_task(context, stage)
    settings, retries = task.settings, context.config.cluster.retries
    hits = context.need(stage.sibling(Kind.SEARCH))
    if settings.teacher is not None:
        scored = context.need(stage.sibling(Kind.TEACHER_SCORES))
        table = "hits" if settings.teacher.kind == "encoder" else "scores"
        cuts = context.need(stage.sibling(Kind.TEACHER_PAIRS)).figures["cuts"]  # calibrated for the pairs already
        task = replace(task, teacher=scored.parts(table), cuts=Cuts(**cuts) if cuts else None)
        inputs["teacher"] = scored.key

    def work(folder: str) -> Outcome:
        passes = Passes(replace(task, folder=f"{folder}/negatives"), retries=retries)
        parts, counts = passes.mine()
        ready = passes.task
        figures = ChoiceFigures.of(counts, engine=hits.figures["engine"], negatives=ready.folder, cuts=ready.cuts)
        return Outcome(tables={"negatives": parts}, figures=figures.to_json())

    inputs |= {
        "seed": context.config.rounds.seed,
        "mining": settings.model_dump(exclude=dict.fromkeys(NO_CHOICE, True) | {"teacher": HOW_READ}),
    }
    return context.commit(stage, inputs=inputs, work=work)
