"""Stage 5: figures of one model on the evaluated queries, and how sure it is that they are better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.commits import Commit, Outcome
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Scope, Stage
from jobs.stages.chosen import best_model, earlier_models, evaluated_model, parent_model, round_of
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.measure import EvaluateTask, measure
from jobs.stages.ingested import read_ingested

MEASURED_BY = {"num_hits", "primary", "confidence", "resamples", "bad_top1_column", "slices", "min_slice_queries"}
"""Settings that the figures depend on. Nothing is trained, embedded or searched again when one changes."""


def evaluate(context: Context, stage: Stage) -> Commit:
    """Figures of the stage's model on its evaluated queries, against other models of the run."""
    task, inputs = evaluation_task(context, stage)
    others = {key: context.need(stage_of_other) for key, stage_of_other in _others(context, stage).items()}
    model = evaluated_model(context, stage)

    def work(folder: str) -> Outcome:
        compared = {key: commit.parts("per_query") for key, commit in others.items()}
        ready = replace(task, folder=folder, others=compared, first="baseline" not in others)
        figures, part = in_worker(measure, context, ready)
        figures = {"round": model.round, "split": stage.split} | figures
        for path in (f"{folder}/evaluation.json", f"{stage.root}/evaluation.json"):
            context.store.write_json(path, figures)
        return Outcome(tables={"per_query": [part]}, figures=figures)

    inputs |= {key: others[key].key if key in others else None for key in ("baseline", "best", "previous")}
    return context.commit(stage, inputs=inputs | {"round": model.round}, work=work)


def evaluation_task(context: Context, stage: Stage) -> tuple[EvaluateTask, dict[str, Any]]:
    """(what an evaluation reads, without folder and other models; what its figures depend on besides these)."""
    config, scope = context.config, stage.scope
    settings, data = config.evaluation, read_ingested(context, scope)
    hits, vectors = context.need(stage.sibling(Kind.HITS)), context.need(stage.sibling(Kind.EMBED))
    column = settings.bad_top1_column or (config.mining.rules[0].column if config.mining.rules else None)
    popularity = config.mining.popularity
    if scope is Scope.GENERAL:  # columns of the run's corpus say nothing about another one
        column, popularity, settings = None, None, settings.model_copy(update={"bad_top1_column": None, "slices": None})
    task = EvaluateTask(
        context.store,
        "",
        hits.parts("hits"),
        data.codes,
        data.corpus,
        data.queries,
        data.labels,
        vectors.parts("corpus"),
        vectors.parts("queries"),
        settings,
        column,
        popularity,
        {},
        first=False,
    )
    return task, {
        "hits": hits.key,
        "tables": data.tables.key,
        "settings": settings.model_dump(include=MEASURED_BY),
        "column": column,
        "popularity": popularity,
    }


def _others(context: Context, stage: Stage) -> dict[str, Stage]:
    """What a model is compared with: the off-the-shelf one, the best so far, the one that it was trained or merged from.

    The random arm's "best" is the last mined round. On the test split and on the general set only the first is.
    """
    model = stage.of
    if isinstance(model, Chosen) or stage.scope is Scope.GENERAL:
        first = replace(stage, of=Chosen.BASELINE if isinstance(model, Chosen) else BASELINE)
        return {} if stage == first else {"baseline": first}
    assert isinstance(model, ModelName)
    if model == BASELINE:
        return {}
    best = ModelName(model.round) if model.random else best_model(context, earlier_models(context, model))
    parent = ModelName(round_of(context, model)) if model.share else parent_model(context.config, model)
    others = {"baseline": BASELINE, "best": best, "previous": parent}
    return {key: replace(stage, of=other) for key, other in others.items()}
