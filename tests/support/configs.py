"""A small configuration that is accepted, for tests that change some of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.config.config import Config, parse_config


def config_with(changes: Mapping[str, Any]) -> Config:
    """The configuration with other settings, by full name."""
    values: dict[str, Any] = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}}
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return parse_config(values, source="test")
