"""A configuration as the TOML that a person, or another machine, can run."""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w
from pydantic import BaseModel

from jobs.config.config import Config, parse_config


def to_toml(config: Config) -> str:
    """`config` as TOML with every default written out; reads back as an equal config."""
    text = tomli_w.dumps(_written(config))
    again = parse_config(tomllib.loads(text), source="the TOML of a configuration")
    assert again.model_dump() == config.model_dump()
    return text


def _written(section: BaseModel) -> dict[str, Any]:
    """A section's values; a None is left out, or "off" where that is not what leaving it out would mean."""
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            values[name] = _written(value)
        elif isinstance(value, dict):
            values[name] = {key: _written(item) if isinstance(item, BaseModel) else item for key, item in value.items()}
        elif isinstance(value, tuple):
            values[name] = [_written(item) if isinstance(item, BaseModel) else item for item in value]
        elif value is not None or field.default is not None:
            values[name] = "off" if value is None else value
    return values
