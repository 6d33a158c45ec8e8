"""The settings of a run as they hold: which of them the user set, and what `null` and `auto` come to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from cluster.errors import ConfigError
from cluster.session.resources import ClusterSize, train_pool, uses_gpu
from jobs.config.config import Config, set_by_user
from jobs.config.reference import all_settings
from jobs.config.without_effect import TABLE
from jobs.record.stages import Kind, Stage
from jobs.stages.context import size_for

IDLE = "no effect here"


def set_settings(config: Config) -> dict[str, str]:
    """Full name of each setting that the user set -> "file" or "command line"; {}: the configuration is from no file."""
    from pathlib import Path

    return set_by_user(Path(config.origin.path), config.origin.overrides) if config.origin else {}


def resolved(config: Config, size: ClusterSize) -> dict[str, str]:
    """Full name of each setting that is null, or "auto" -> what it comes to in this run, as far as that is known before it runs.

    Args:
        size: the cluster that is assumed.
    """
    known = dict(_known(config, size))
    texts = {setting.key: setting.null for setting in all_settings()}
    idle = {key for needs in TABLE if not needs.met(config) for key in needs.settings}
    nulls = {key for key, value in leaves(config) if value is None}
    return {
        key: IDLE if key in idle else known.get(key) or texts.get(key) or "none" for key in sorted(nulls | known.keys() | idle)
    }


def leaves(section: BaseModel, above: str = "") -> Iterator[tuple[str, Any]]:
    """(full name, value) of every setting; a section that is not there is one null, a list one value."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _known(config: Config, size: ClusterSize) -> Iterator[tuple[str, str]]:
    encoder, mining, training = config.encoder, config.mining, config.training
    if encoder.model is None:
        yield "encoder.model", "a new model" if encoder.kind == "static" else "the data's vectors"
    column = mining.rules[0].column if mining.rules else None
    if training.learning_rate is None:
        yield "training.learning_rate", f"{training.peak_learning_rate(encoder.kind):g}"
    if encoder.max_length is None and encoder.kind == "sequence":
        yield "encoder.max_length", "200"
    if mining.confusion is None:
        yield "mining.confusion", column or "no table: there is no rule"
    if config.evaluation.bad_top1_column is None:
        yield "evaluation.bad_top1_column", column or "none: every irrelevant first result is bad"
    if mining.teacher is not None and mining.teacher.depth is None:
        yield "mining.teacher.depth", str(2 * mining.num_negatives)
    if training.guide is not None and training.guide.model is None:
        yield "training.guide.model", encoder.model or "the data's vectors"
    if config.storage.endpoint is None:
        yield "storage.endpoint", config.storage.resolved_endpoint() or "AWS itself"
    if config.storage.region is None:
        yield "storage.region", config.storage.resolved_region()
    yield from _of_cluster(config, size)


def _of_cluster(config: Config, size: ClusterSize) -> Iterator[tuple[str, str]]:
    cluster = config.cluster
    if cluster.address is None:
        yield "cluster.address", os.environ.get("RAY_ADDRESS") or "a local Ray that ends with the command"
        if cluster.cpus is None:
            yield "cluster.cpus", str(size.cpus)
    try:
        gpu, ranks = uses_gpu(cluster, size), train_pool(cluster, size_for(config, Stage(Kind.TRAIN), size)).count
    except ConfigError:  # told by the run, which asks the cluster itself
        return
    if cluster.device == "auto":
        yield "cluster.device", "gpu" if gpu else "cpu"
    if cluster.train_workers is None:
        yield "cluster.train_workers", str(ranks)


def settings_lines(config: Config, chosen: Mapping[str, str], null: Mapping[str, str]) -> list[str]:
    """The settings by section: those that the user set, those that null or auto resolves, and the defaults in one line.

    Args:
        chosen: as of `set_settings`. null: as of `resolved`.
    """
    sections: dict[str, list[tuple[str, Any]]] = {}
    for key, value in leaves(config):
        sections.setdefault(key.rpartition(".")[0], []).append((key, value))
    lines = []
    for section, entries in sections.items():
        lines.append(f"[{section}]" if section else "settings (* set by you; → what null or auto comes to)")
        rest = []
        for key, value in entries:
            name, comes_to = key.rpartition(".")[2], f" → {null[key]}" if key in null else ""
            where = next((place for other, place in chosen.items() if other == key or other.startswith(f"{key}.")), None)
            if where:
                lines.append(f"* {name} = {_shown(value)}{comes_to}   ({where})")
            elif comes_to and null[key] not in (IDLE, "none", "no such limit", "no such check"):
                lines.append(f"  {name} = {_shown(value)}{comes_to}")
            else:
                rest.append(f"{name} {_shown(value)}")
        lines += [f"  defaults: {', '.join(rest)}"] if rest else []
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list) and any(isinstance(item, BaseModel) for item in value):
        return f"[{', '.join(str(item.model_dump(exclude_defaults=True)) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
