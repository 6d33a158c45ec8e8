"""The retrievers that a re-ranker is measured behind: the off-the-shelf model and the kept one, on the evaluated split."""

from __future__ import annotations

from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Stage
from jobs.stages.chosen import best_model, measured_models
from jobs.stages.context import Context


def kept_model(context: Context) -> ModelName:
    """The model that dev chose."""
    return best_model(context, measured_models(context))


def retrievers(context: Context) -> dict[ModelName, Stage]:
    """Model -> its evaluation on the split that the run reports, the off-the-shelf one first; one where that is kept."""
    tested, kept = context.config.evaluation.split == "test", kept_model(context)
    stages = {BASELINE: Stage(Kind.EVALUATE, Chosen.BASELINE if tested else BASELINE)}
    return stages | ({kept: Stage(Kind.EVALUATE, Chosen.BEST if tested else kept)} if kept != BASELINE else {})
