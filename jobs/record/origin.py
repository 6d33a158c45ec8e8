"""The configuration that a run was started with: the user's file, and a copy of all settings in the run's folder."""

from __future__ import annotations

import json
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
SUBMITTED = "submitted.json"
"""Beside the configuration of a submitted job: the command that sent it."""
DEEPSPEED = "deepspeed.json"
"""DeepSpeed's file in a job's folder."""
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


def write_submitted(folder: Path, config: Config, address: str) -> None:
    """Leave beside a job's configuration which command sent it, for `command_of`."""
    if config.origin is not None:
        command = {
            "config": config.origin.path,
            "overrides": list(config.origin.overrides),
            "shown": shown(Path(config.origin.path)),
            "address": address,
        }
        (folder / SUBMITTED).write_text(json.dumps(command), encoding="utf-8")


def command_of(config: Config) -> dict[str, Any] | None:
    """The command that started a run, for identity.json; None: it was started from no file."""
    if config.origin is None:
        return None
    sent = Path(config.origin.path).with_name(SUBMITTED)
    if sent.exists():
        submitted: dict[str, Any] = json.loads(sent.read_text(encoding="utf-8"))
        return submitted
    return {"config": config.origin.path, "overrides": list(config.origin.overrides)}


def as_submitted(config: Config) -> Config:
    """What a job gets of a configuration: it joins the cluster that runs it, and DeepSpeed's file lies beside it."""
    training = config.training
    if training.deepspeed:  # the cluster cannot see this machine's file
        training = training.model_copy(update={"deepspeed": DEEPSPEED})
    cluster = config.cluster.model_copy(update={"address": None})
    return config.model_copy(update={"cluster": cluster, "training": training})


def run_verb(store: Store) -> tuple[str, ...]:
    """The command that starts the run at `store` again, before `run_words`: ("run",), or ("submit", "--address", …)."""
    address = _started(store).get("address")
    return ("submit", "--address", str(address)) if address else ("run",)


def _started(store: Store) -> dict[str, Any]:
    command: dict[str, Any] = (read_if_there(store, IDENTITY) or {}).get("command") or {}
    return command


def run_words(store: Store) -> tuple[str, ...]:
    """What follows `run_verb` in a command that starts the run at `store` again, here; (): no file of it is here.

    The user's own file and overrides, if they still say what the run was told; else the copy in the run's folder. The file of
    a submitted job is on the machine that sent it: where it is not here, it is named as it was there.
    """
    started = _started(store)
    path, overrides = Path(started.get("config", "")), tuple(started.get("overrides", ()))
    if "address" in started and not path.is_file():
        return (str(started["shown"]), *overrides)
    if started and path.is_file() and store.exists(CONFIG):
        try:
            config = load_config(path, overrides)
            told = as_submitted(config) if "address" in started else config
            same = (HEAD + to_toml(told)).encode() == store.read_bytes(CONFIG)
        except ConfigError:
            same = False
        if same:
            return (shown(path), *overrides)
    return () if store.remote or not store.exists(CONFIG) else (shown(Path(store.url(CONFIG))),)


def shown(path: Path) -> str:
    """A path as a person writes it: from here, where it lies below."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
