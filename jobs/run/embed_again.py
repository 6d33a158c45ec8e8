"""Vectors of a finished run that are gone, made again: as `hardmine embed` makes them, with the run's own settings."""

from __future__ import annotations

from cluster.errors import ConfigError
from cluster.session.progress import Progress
from cluster.storage.store import Store
from jobs.config.config import parse_config
from jobs.record.origin import CONFIG, read_config
from jobs.record.stages import ModelName
from jobs.run.driver import embed_round


def embed_again(store: Store, model: ModelName, progress: Progress) -> None:
    """Embed items and queries of the run at `store` with one of its models.

    Raises:
        ConfigError: the run's settings, its data or its base model are not here any more.
    """
    values = read_config(store)
    if not values:
        raise ConfigError(
            f"the vectors of {store.root} are gone, and so is its {CONFIG}; run `hardmine embed` with your own file"
        )
    output, _, name = store.root.rpartition("/")  # the folder may have moved
    config = parse_config(values | {"output": output, "name": name}, source=store.url(CONFIG))
    embed_round(config, model, progress=progress)
