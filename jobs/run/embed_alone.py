"""The embed stage alone: its commit is named after the model's content, so it is found by round here."""

from __future__ import annotations

from cluster.commits import Commit
from cluster.errors import ConfigError
from cluster.progress import Progress
from jobs.config.config import Config
from jobs.run.driver import open_run, run_context
from jobs.stages.context import Context
from jobs.stages.stage_0_ingest import ingest
from jobs.stages.stage_1_embed import Model, base_model, embed_model, start_model, trained_model


def embed_round(config: Config, number: int, *, progress: Progress, takeover: bool = False) -> Commit:
    """Embed with the model that round `number` trained; -1: off the shelf.

    Raises:
        ConfigError: that round is not trained.
    """
    store, prints = open_run(config)
    with run_context(config, store, prints, progress, takeover) as context:
        ingested = ingest(context, prints)
        if number < 0:
            return embed_model(context, ingested, base_model(ingested))
        return embed_model(context, ingested, _trained(context, number, start_model(ingested)))


def _trained(context: Context, number: int, start: Model) -> Model:
    name = f"round-{number:02d}-train"
    commit = context.ledger.find(name)
    if commit is None:
        raise ConfigError(
            f"round {number} is not trained: {name} is not committed in {context.store.root}; run `hardmine train` for it first"
        )
    return trained_model(commit, start)
