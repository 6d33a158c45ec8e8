"""Stage 3: hits and labels become negatives; the report says what was taken and what was not."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from cluster.commits import Commit, Outcome
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.mine.candidate_sources import ExtraCandidates
from jobs.stages.mine.near_duplicates import near_duplicates
from jobs.stages.mine.report import REPORT_ONLY, report_mining, summarise
from jobs.stages.mine.teacher import ask_teacher
from mining.negatives import MineTask
from mining.passes import mine, with_cuts

AFTER_TEACHER = {
    "teacher",
    "num_negatives",
    "choose",
    "temperature",
    "max_uses",
    "popularity",
    "popularity_power",
    "search",
    "embedding_dtype",
    *REPORT_ONLY,
}
"""Settings that do not decide what a teacher is to read; its depth is told apart."""


def mine_round(context: Context, ingested: Ingested, hits: Commit, *, number: int, extra: ExtraCandidates) -> Commit:
    """The negatives of every training query for round `number`."""
    return mine_hits(
        context, ingested, hits, name=f"round-{number:02d}-mine", folder=f"rounds/{number:02d}", number=number, extra=extra
    )


def mine_hits(
    context: Context, ingested: Ingested, hits: Commit, *, name: str, folder: str, number: int, extra: ExtraCandidates
) -> Commit:
    """The negatives of every query of `hits`; their report is stage "…-report" and lies in `folder`.

    Args:
        name: of the stage.
        number: the round, which random choice depends on; 0: of no round.
        extra: what other sources found.
    """
    settings = context.config.mining
    split = str(hits.inputs["split"])
    near = near_duplicates(context, ingested, split=split)
    task = MineTask(
        context.store,
        hits.parts("hits"),
        ingested.labels,
        ingested.corpus,
        ingested.queries,
        settings,
        folder,
        context.config.rounds.seed + number,
        round=number,
        extra=extra.parts(context),
        earlier=extra.earlier.parts("negatives") if extra.earlier else [],
        near=near.parts("near") if near else [],
    )
    inputs: dict[str, Any] = {"hits": hits.key, "tables": ingested.tables.key, "near": near.key if near else None}
    asked = ask_teacher(
        context,
        ingested,
        task,
        inputs | extra.keys | {"mining": settings.model_dump(exclude=AFTER_TEACHER)},
        name=name.removesuffix("-mine"),
        folder=folder,
        split=split,
    )
    if asked is not None:
        task, inputs["teacher"] = replace(task, teacher=asked[0]), asked[1]

    def work(place: str) -> Outcome:
        retries = context.config.cluster.retries
        there = with_cuts(replace(task, folder=f"{place}/negatives"), retries=retries)
        parts, counts = mine(there, retries=retries)
        figures = summarise(counts) | {
            "engine": hits.figures["engine"],
            "negatives": context.store.url(there.folder),
            "cuts": asdict(there.cuts) if there.cuts else None,
        }
        return Outcome(tables={"negatives": parts}, figures=figures)

    inputs |= extra.keys | {
        "seed": context.config.rounds.seed,
        "mining": settings.model_dump(exclude={"search", "embedding_dtype", *REPORT_ONLY}),
    }
    commit = context.stage("mine", name, folder=f"{folder}/mine", inputs=inputs, work=work)
    report = report_mining(context, ingested, commit, hits, name=f"{name.removesuffix('-mine')}-report", folder=folder)
    for text in report.figures["warnings"]:
        context.progress.say(f"! {text}")
    return commit
