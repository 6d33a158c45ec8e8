"""All rounds of a run: its stages in order, until the last one or until mining no longer helps."""

from __future__ import annotations

from typing import Any

from cluster.errors import ConfigError
from jobs.config.config import Config
from jobs.record.plan import plan_beside, plan_run
from jobs.record.stages import Kind, ModelName, Stage
from jobs.record.summary import summary_of
from jobs.run.beside import need_beside, need_each
from jobs.stages.chosen import rule_on
from jobs.stages.context import Context, MakeStage
from jobs.stages.evaluate.events import write_events
from jobs.stages.evaluate.reranker.scores import pairs_to_rerank, score_with_reranker
from jobs.stages.evaluate.reranker.table import compare_rerankers
from jobs.stages.evaluate.reranker.train import train_reranker
from jobs.stages.finish.finish import finish
from jobs.stages.finish.merge import merge_models
from jobs.stages.mine.candidate_sources import find_candidates, find_pairs, score_pairs
from jobs.stages.mine.near_duplicates import near_duplicates
from jobs.stages.mine.report import report_mining
from jobs.stages.mine.teacher import ask_teacher, choose_pairs
from jobs.stages.stage_0_ingest import ingest, prepare_base, prepare_second, prepare_sequence, tokenise
from jobs.stages.stage_1_embed import embed_model
from jobs.stages.stage_2_search import search_to_measure, search_to_mine
from jobs.stages.stage_3_mine import mine_negatives
from jobs.stages.stage_4_train import train_model
from jobs.stages.stage_5_evaluate import evaluate

FUNCTIONS: dict[Kind, MakeStage] = {
    Kind.INGEST: ingest,
    Kind.BASE: prepare_base,
    Kind.TOKENS: tokenise,
    Kind.SEQUENCE: prepare_sequence,
    Kind.MODEL: prepare_second,
    Kind.EMBED: embed_model,
    Kind.SEARCH: search_to_mine,
    Kind.SOURCE: find_candidates,
    Kind.PAIRS: find_pairs,
    Kind.SCORE: score_pairs,
    Kind.NEAR: near_duplicates,
    Kind.TEACHER_PAIRS: choose_pairs,
    Kind.TEACHER_SCORES: ask_teacher,
    Kind.MINE: mine_negatives,
    Kind.REPORT: report_mining,
    Kind.TRAIN: train_model,
    Kind.MERGE: merge_models,
    Kind.HITS: search_to_measure,
    Kind.EVENTS: write_events,
    Kind.EVALUATE: evaluate,
    Kind.TRAIN_RERANKER: train_reranker,
    Kind.RERANKER_PAIRS: pairs_to_rerank,
    Kind.RERANK: score_with_reranker,
    Kind.RERANKED: compare_rerankers,
    Kind.FINISH: finish,
}
"""The function that runs each kind of stage."""


def run_rounds(context: Context) -> dict[str, Any]:
    """Run all stages; returns the summary. A stage that is committed is taken from its commit."""
    config = context.config
    stages, beside = plan_run(config), plan_beside(config)
    while stages:
        stage = stages[0]
        group = [other for other in beside.get(stage, []) if other in stages]
        ended = need_beside(context, stage, group) if group else need_each(context, [stage])
        if ended is not None:  # what is left is not ruled on
            for later in plan_after(config, ended):
                context.need(later)
            break
        stages = [later for later in stages if later not in context.done]
    return summary_of(context.need(Stage(Kind.FINISH)), context.store)


def plan_after(config: Config, ended: ModelName) -> list[Stage]:
    """The plan of a run that ended after a round: with rounds.background the next one is trained already."""
    return plan_run(config, mined=min(config.rounds.mined, ended.round + int(config.rounds.background)))


def refuse_unreached(context: Context, stage: Stage) -> None:
    """Raises ConfigError: the run ended before the round of this stage."""
    late = int(context.config.rounds.background)
    for number in range(1, stage.of.round - late if isinstance(stage.of, ModelName) and not stage.of.share else 0):
        ruling = rule_on(context, ModelName(number))
        if ruling.stops:
            raise ConfigError(f"{stage.name} is not reached: the run ended after round {number + late}. {ruling.reason}")
