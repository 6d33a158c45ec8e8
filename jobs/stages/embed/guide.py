"""The guide of a loss: an encoder whose vectors say which candidates are likely false negatives."""

from __future__ import annotations

from cluster.commits import Commit
from cluster.errors import ConfigError
from jobs.record.stages import BASELINE, Kind, Second, Stage
from jobs.stages.context import Context


def guide_vectors(context: Context) -> Commit | None:
    """The vectors of `training.guide` for all items and queries; None: there is no guide.

    Raises:
        ConfigError: the run starts from nothing that could guide.
    """
    guide = context.config.training.guide
    if guide is None:
        return None
    if guide.model is not None:
        return context.need(Stage(Kind.EMBED, Second.GUIDE))
    if context.config.encoder.kind == "static" and context.config.encoder.model is None:
        raise ConfigError(
            "training.guide without a model means the model that the run starts from, but this run starts from "
            "random vectors; set training.guide.model to an embedding model, or take the guide out"
        )
    return context.need(Stage(Kind.EMBED, BASELINE))
