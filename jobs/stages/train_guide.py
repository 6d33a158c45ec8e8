"""The guide of a loss: a second encoder's vectors of all items and queries, made once per run."""

from __future__ import annotations

from cluster.commits import Commit
from cluster.errors import ConfigError
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.mine.teacher import second_model, second_vectors
from jobs.stages.stage_1_embed import base_model, embed_model
from mining.settings import TeacherSettings


def guide_vectors(context: Context, ingested: Ingested) -> Commit | None:
    """The vectors of `training.guide`; None: there is no guide.

    Raises:
        ConfigError: the guide's model is missing, damaged or no embedding model; or the run starts from nothing that could
            guide.
    """
    guide = context.config.training.guide
    if guide is None:
        return None
    if guide.model is not None:
        settings = TeacherSettings(model=guide.model, kind="encoder")
        return second_vectors(context, ingested, second_model(context, settings, name="guide", section="training.guide"))
    if context.config.encoder.kind == "static" and context.config.encoder.model is None:
        raise ConfigError(
            "training.guide without a model means the model that the run starts from, but this run starts from "
            "random vectors; set training.guide.model to an embedding model, or take the guide out"
        )
    return embed_model(context, ingested, base_model(ingested))
