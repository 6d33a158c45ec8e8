"""`hardmine submit`: a run as a job on a Ray cluster, its log followed, its exit code returned.

What travels is a folder made for this job: the Python files of the five packages and one config with everything
resolved. Data, outputs, environments and keys stay where they are: the nodes read s3:// with keys of their own.
The job may be submitted again at any time: its driver goes on from what is committed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import EXIT_CLUSTER, ClusterError, ConfigError, one_paragraph
from cluster.progress import Progress
from cluster.session import QUIET
from cluster.storage import is_s3
from jobs.config import Config, load_config, parse_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "eval", "jobs", "mining", "training")
SHIPPED = frozenset({".py", ".html", ".css", ".js", ".svg"})
"""Endings of the files that travel: code, and what a report is made of. No format that holds data or keys."""
MAX_BYTES = 100 * 2**20
"""What Ray's dashboard takes in one upload (ray#55877)."""
CONFIG_NAME = "job.toml"
COMMAND = f"-m jobs run {CONFIG_NAME}"
CONNECT_S, ANSWER_S = 10.0, 60.0
POLL_S, SLOW_POLL_S, SLOW_FROM_CHARS = 2.0, 15.0, 1_000_000
"""The log is fetched whole each time, so a long one is fetched less often."""
PATIENCE_S = 180.0
"""How long a dashboard that stopped answering is asked again."""


def submit_run(config: Path, overrides: Sequence[str], *, address: str) -> int:
    """Run `config` on the cluster whose dashboard is at `address`; returns the run's exit code.

    Raises:
        ConfigError: the config or the address is wrong, or a local path would have to be read on another machine.
        ClusterError: nothing answers, the token is refused, or the dashboard is gone for `PATIENCE_S` seconds.
    """
    settings = load_config(config, overrides)
    loopback = is_loopback(address)
    if not loopback:
        refuse_local_paths(settings, f"the cluster at {address} is another machine")
    progress = Progress()
    with _client_environment(loopback):
        client = _connect(address)
        here = loopback and _nodes_are_here(address)
        if loopback and not here:
            refuse_local_paths(settings, f"{address} leads to a cluster on other machines (a tunnel or port-forward?)")
        job = _submit(client, settings, here=here, address=address)
        at = f"{job} --address {address}"
        progress.say(f"submitted {settings.name} as {job}; stop it with `ray job stop {at}`")
        try:
            details = _follow(client, job, address)
        except KeyboardInterrupt:
            progress.say(f"no longer following {job}: it goes on. See its log with `ray job logs --follow {at}`, stop "
                         f"it with `ray job stop {at}`")
            return 130
    code = exit_code(str(details.status), details.driver_exit_code)
    progress.say(_last_words(job, details, code, settings))
    return code


def is_loopback(address: str) -> bool:
    """Whether `address` names this machine. Raises ConfigError: it is no address of a Ray dashboard."""
    url = urlsplit(address)
    if url.username or url.password:
        raise ConfigError("--address must not hold a name or a password; Ray's token is read from RAY_AUTH_TOKEN, "
                          "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"--address: expected the cluster's dashboard, such as http://HEAD:8265, found {address!r}")
    try:
        return ipaddress.ip_address(url.hostname).is_loopback
    except ValueError:
        return url.hostname == "localhost"


def refuse_local_paths(config: Config, why: str) -> None:
    """Raises ConfigError: `config` names local paths, which no node of a remote cluster could read."""
    places = {f"data.{name}": getattr(config.data, name) for name in ("corpus", "queries", "qrels", "folder")}
    places["output"] = config.output
    model = config.encoder.model  # a hub name is neither on S3 nor local
    if model is not None and model.startswith(("/", ".", "~")):
        places["encoder.model"] = model
    local = [f"{name} = {value}" for name, value in places.items() if value is not None and not is_s3(value)]
    if local:
        raise ConfigError(f"{why}, and its nodes cannot read {', '.join(local)}; copy the data to s3:// and name that, "
                          f"e.g. output=s3://bucket/runs")


def stage_job(config: Config, folder: Path, *, root: Path = ROOT) -> None:
    """Put into the empty `folder` what the job needs and nothing else: the packages' files and the resolved config.

    Raises:
        ConfigError: it is more than a cluster takes.
    """
    for package in PACKAGES:
        for source in sorted((root / package).rglob("*")):
            inside = source.relative_to(root)
            if source.suffix not in SHIPPED or source.is_symlink() or any(p.startswith((".", "__py")) for p in inside.parts):
                continue
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (folder / CONFIG_NAME).write_text(to_toml(config), encoding="utf-8")
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if sum(sizes.values()) >= MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path]).relative_to(folder)
        raise ConfigError(f"the job's folder is {sum(sizes.values()) / 2**20:.0f} MiB, and a cluster takes less than "
                          f"{MAX_BYTES / 2**20:.0f}; the largest file is {largest}: move it out of the packages")


def to_toml(config: Config) -> str:
    """`config` as TOML, every default written out. `cluster.address` is left out: a job belongs to its own cluster."""
    values = config.model_dump(mode="json", exclude_none=True, exclude={"cluster": {"address"}})
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in plain.items()]
    for section in values.keys() - plain.keys():
        lines += ["", f"[{section}]", *(f"{_key(key)} = {_toml(value)}" for key, value in values[section].items())]
    text = "\n".join(lines) + "\n"
    assert to_toml.__wrapped__(text) == config if hasattr(to_toml, "__wrapped__") else True
    return text
