"""What tells a data set and a model apart: fingerprints of their files, which commits depend on. Reads no data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.commits import digest
from cluster.errors import ConfigError, DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store, is_s3
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.stages.ingest.data import Sources
from jobs.stages.ingest.reading.files import fingerprint

BESIDE = ("model", "general", "mix")
"""Fingerprints that the run's own tables do not depend on."""


def sources(data: DatasetSettings) -> Sources:
    """Table -> (address, the split its file stands for)."""
    if data.folder is None:
        assert data.corpus is not None
        assert data.queries is not None
        assert data.qrels is not None
        return {"corpus": [(data.corpus, None)], "queries": [(data.queries, None)], "labels": [(data.qrels, None)]}
    root = data.folder.rstrip("/")
    return {
        "corpus": [(f"{root}/corpus.jsonl", None)],
        "queries": [(f"{root}/queries.jsonl", None)],
        "labels": [(f"{root}/qrels/{split}.tsv", split) for split in ("train", "dev", "test")],
    }


def fingerprints(config: Config) -> dict[str, Any]:
    """Source file -> what tells its content apart, for every file of the data; those of a general set under "general", of
    one that is mixed in under "mix".

    Raises:
        DataError: a file is missing.
    """
    beside = {"general": config.evaluation.general, "mix": config.data.mix}
    found = _of_data(config.data, config.storage)
    return found | {name: _of_data(data, config.storage) for name, data in beside.items() if data is not None}


def _of_data(data: DatasetSettings, storage: StorageSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with naming_section(data):
        for table, places in sources(data).items():
            for url, split in places:
                try:
                    found[f"{table}:{split or 'all'}"] = fingerprint(url, storage)
                except DataError:
                    if split is None or split in data.needed_splits:  # of a BEIR folder, other splits may be missing
                        raise
        if not any(name.startswith("labels:") for name in found):
            raise DataError(
                f"{data.section}.folder: expected train.tsv, dev.tsv or test.tsv in {data.folder}/qrels, found none "
                f"of them; check the address"
            )
    return found


def second_set(data: DatasetSettings) -> str:
    """What a person calls a data set beside the run's own."""
    return "mixed-in set" if data.section == "data.mix" else "general set"


@contextmanager
def naming_section(data: DatasetSettings) -> Iterator[None]:
    """Raises what is raised inside, for a set beside the run's own with its section where the run's is named."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if data.section == "data":
            raise
        text = str(error).replace("[data]", f"[{data.section}]")
        text = re.sub(r"\bdata\.(columns|item_text|query_text|relevant_from)\b", rf"{data.section}.\1", text)
        raise type(error)(f"the {second_set(data)}: {text}") from error


def model_fingerprint(config: Config) -> str | None:
    """What tells the base model apart: the content of a folder that is here, else the model's name."""
    return folder_fingerprint(config.encoder.model)


def folder_fingerprint(name: str | None) -> str | None:
    """The content of a model folder that is here; of what is elsewhere, its name."""
    if name is None or is_s3(name) or not Path(name).is_dir():
        return name
    store = Store(name)
    return digest({path: store.fingerprint(path) for path in store.list()})
