"""The configuration that a run was started with: the user's file, and a copy of all settings in the run's folder."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError
from cluster.storage.records import read_if_there
from cluster.storage.store import Store
from jobs.config.config import Config, load_config
from jobs.config.toml import to_toml

CONFIG = "config.toml"
IDENTITY = "identity.json"
HEAD = "# All settings of this run, as they were read. `hardmine run THIS_FILE name=another …` starts a run from them.\n"


def write_config(config: Config, store: Store) -> None:
    """Leave a copy of the settings in the run's folder, if it is another one than there is."""
    text = (HEAD + to_toml(config)).encode()
    if not store.exists(CONFIG) or store.read_bytes(CONFIG) != text:
        store.write_bytes(CONFIG, text)


def read_config(store: Store) -> dict[str, Any]:
    """The settings of a run, as a tree of values; {}: it has not begun, or its copy was edited beyond reading."""
    try:
        return tomllib.loads(store.read_bytes(CONFIG).decode()) if store.exists(CONFIG) else {}
    except ValueError:
        return {}


def run_words(store: Store) -> tuple[str, ...]:
    """What follows `hardmine run` in a command that starts the run at `store` again, here; (): no file of it is here.

    The user's own file and overrides, if they still say what the run was told; else the copy in the run's folder.
    """
    started = (read_if_there(store, IDENTITY) or {}).get("command") or {}
    path, overrides = Path(started.get("config", "")), tuple(started.get("overrides", ()))
    if started and path.is_file() and store.exists(CONFIG):
        try:
            same = (HEAD + to_toml(load_config(path, overrides))).encode() == store.read_bytes(CONFIG)
        except ConfigError:
            same = False
        if same:
            return (shown(path), *overrides)
    return () if store.remote or not store.exists(CONFIG) else (shown(Path(store.url(CONFIG))),)


def shown(path: Path) -> str:
    """A path as a person writes it: from here, where it lies below."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
