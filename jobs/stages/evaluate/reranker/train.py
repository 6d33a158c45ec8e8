"""The re-ranker is trained on the negatives of the kept model's round."""

from __future__ import annotations

from cluster.commits import Commit, Outcome
from jobs.record.stages import Kind, ModelName, Second, Stage
from jobs.stages.context import Context
from jobs.stages.evaluate.reranker.retrievers import kept_model


def train_reranker(context: Context, stage: Stage) -> Commit:
    """PROVISIONAL: the model as it comes."""
    mined = context.need(Stage(Kind.MINE, ModelName(max(1, kept_model(context).round))))
    base = context.need(Stage(Kind.MODEL, Second.RERANKER))
    figures = {"prefix": base.figures["prefix"], "digest": base.figures["digest"], "steps": 0}
    return context.commit(
        stage, inputs={"negatives": mined.key, "base": base.key}, work=lambda _: Outcome(files=base.files, figures=figures)
    )
