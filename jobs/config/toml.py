"""A configuration as the TOML that a person, or another machine, can run."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from pydantic import BaseModel

from jobs.config.config import Config, parse_config


def to_toml(config: Config) -> str:
    """`config` as TOML with every default written out; reads back as an equal config."""
    values = _written(config)
    sections = {name: section for name, section in values.items() if isinstance(section, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if name not in sections]
    for name, section in sections.items():
        lines += ["", f"[{name}]", *(f"{_toml_key(key)} = {_toml(value)}" for key, value in section.items())]
    text = "\n".join(lines) + "\n"
    assert parse_config(tomllib.loads(text), source="the TOML of a configuration") == config
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


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # json would write an infinity that TOML does not know
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character only TOML escapes


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
