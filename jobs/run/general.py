"""A general set that is only measured: does a model forget what it could, while it learns the run's own data?

Its stages are the run's own, under names with "general-" before them: tables and tokens once, then for the off-the-shelf
model and for each round vectors, hits and figures (general/<baseline, round-NN>/). Nothing is trained or decided on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cluster.commits import Commit
from cluster.errors import DataError
from jobs.config.config import Config
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.stage_0_ingest import make_tables, make_tokens
from jobs.stages.stage_1_embed import Model, embed_model
from jobs.stages.stage_2_search import search_queries
from jobs.stages.stage_5_evaluate import evaluate
from jobs.stages.summary import GENERAL

SPLIT = "general"
"""Of all its labelled queries."""


@dataclass(frozen=True)
class General:
    """The general set of a run."""

    context: Context
    """The run's, without the settings that are about the run's own data."""
    ingested: Ingested

    def measure(self, model: Model | None, measured: Commit, baseline: Commit | None) -> Commit:
        """The figures of a model here.

        Args:
            model: None: the data's own vectors.
            measured: its evaluation on the run's data. baseline: the off-the-shelf model's evaluation here.
        """
        name = f"{GENERAL}{measured.name.removesuffix('-evaluate')}"
        folder = f"general/{name.removeprefix(GENERAL)}"
        vectors = embed_model(self.context, self.ingested, model)
        hits = search_queries(
            self.context,
            self.ingested,
            vectors,
            name=f"{name}-hits",
            folder=f"{folder}/hits",
            split=SPLIT,
            num_hits=self.context.config.evaluation.num_hits + 1,
        )
        return evaluate(
            self.context,
            self.ingested,
            hits,
            vectors,
            name=f"{name}-evaluate",
            folder=folder,
            split=SPLIT,
            number=int(measured.figures["round"]),
            baseline=baseline,
            best=None,
            previous=None,
        )


def general_set(context: Context, ingested: Ingested, prints: dict[str, Any]) -> General | None:
    """The general set of a whole run, its tables and tokens made; None: there is none, or one stage is run alone.

    Raises:
        DataError: what is wrong with it; names file, row or id, and the count.
        ConfigError: its templates or columns do not fit it.
    """
    settings = context.config.evaluation.general
    if settings is None or context.only is not None:
        return None
    own = replace(context, config=_without_own_data(context.config))
    tables = make_tables(own, settings, prints["general"], prefix=GENERAL)
    figures = tables.figures
    context.progress.say(f"  general set: {figures['splits'][SPLIT]:,} labelled queries among {figures['items']:,} items")
    if ingested.tokens is not None:
        return General(own, Ingested(tables, ingested.base, make_tokens(own, tables, ingested.base, prefix=GENERAL), None))
    if figures["dimension"] != ingested.dimension:
        found = "none" if figures["dimension"] is None else f"vectors of {figures['dimension']} numbers"
        raise DataError(
            f"the general set: the encoder reads vectors of {ingested.dimension} numbers, so corpus and queries need "
            f"a `vector` column of that length, found {found}; make them with the model that made the run's, or take "
            f"[evaluation.general] out"
        )
    return General(own, Ingested(tables, ingested.base, None, figures["dimension"]))


def _without_own_data(config: Config) -> Config:
    """Rules and columns of the run's corpus say nothing about another one."""
    evaluation = config.evaluation.model_copy(update={"bad_top1_column": None, "slices": None, "general": None, "events": None})
    mining = config.mining.model_copy(update={"rules": (), "popularity": None})
    return config.model_copy(update={"evaluation": evaluation, "mining": mining})
