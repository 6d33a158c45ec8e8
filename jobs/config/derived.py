"""A configuration with other values in some places, checked as if a person had written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.config.config import Config, parse_config
from jobs.config.strict import Derived


def with_settings(config: Config, changes: Mapping[str, Any], *, source: str) -> Config:
    """`config` with other settings.

    Args:
        changes: "section.key" or "key" -> value; a whole section as a mapping of its settings.
        source: where the values are from, for messages.

    Raises:
        ConfigError: the changed settings do not fit each other or the rest.
    """
    values = config.model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[name] = value
    changed = parse_config(values, source=source)
    changed._origin = Derived()
    return changed
