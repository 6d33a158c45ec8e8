"""What is known of a run's models before it starts: which are not on this machine, how long their vectors are. Loads none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.storage.store import is_s3
from jobs.config.config import Config

LENGTHS = ("out_features", "word_embedding_dimension", "embedding_dimension", "hidden_size", "d_model", "n_embd", "dim")
"""What the configuration of a module, or of a model of transformers, calls the length of its vectors."""

TABLES = ("embedding.weight", "embeddings")
"""What a static model's table of token vectors is called."""


def models_elsewhere(config: Config) -> Iterator[str]:
    """A sentence for each model that the run has to download, or cannot find."""
    for setting, name in config.models.items():
        if name is None or is_s3(name) or local_folder(name) is not None:
            continue
        if is_path(name):
            yield f"{setting}: there is no folder {name} on this machine; without it the run stops when it needs the model"
        elif offline():
            yield (
                f"{setting}: {name!r} is not on this machine, and HF_HUB_OFFLINE forbids its download: the run stops when it "
                f"needs the model. Unset it, or give a folder with the model"
            )
        else:
            yield f"{setting}: {name!r} is not on this machine; the run downloads it from the Hugging Face hub"


def offline() -> bool:
    """Whether the hub may not be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def is_path(name: str) -> bool:
    """Whether a model's name can only be a folder's: hub names are NAME or OWNER/NAME."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def local_folder(name: str) -> Path | None:
    """The folder of a model on this machine, its own or the hub client's; None: there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if is_path(name) or is_s3(name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in ("modules.json", "config.json"):
        try:
            cached = try_to_load_from_cache(name, file)
        except HFValidationError:
            return None
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def vector_length(folder: Path) -> int | None:
    """Length of the vectors of a model in `folder`; None: its configuration does not say."""
    entries = _read(folder / "modules.json")
    paths = [str(entry.get("path", "")) for entry in entries] if isinstance(entries, list) else [""]
    for path in reversed(paths):  # the last module that says a length makes the vectors
        config = _read(folder / path / "config.json")
        if not isinstance(config, dict):
            continue
        for values in (config, config.get("text_config") or {}):
            length = next((values[key] for key in LENGTHS if isinstance(values.get(key), int)), None)
            if length is not None:
                return int(length)
    return _of_table(folder / paths[0])


def _of_table(folder: Path) -> int | None:
    """Of a static model: its weights are one table."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as weights:
            table = next((name for name in weights.keys() if name in TABLES), None)  # noqa: SIM118  it is no mapping
            return int(weights.get_slice(table).get_shape()[1]) if table else None
    except (OSError, SafetensorError):
        return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
