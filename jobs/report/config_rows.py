"""The configuration as rows: all settings, and those that differ from the defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

Json = dict[str, Any]
QUIET = ("probe", "sweep", "name", "output")
"""Settings of other commands, or shown elsewhere."""


def setting_rows(config: Json) -> list[Json]:
    """{"setting": "section.key", "value"} of every setting, in the order of the configuration."""
    return [{"setting": name, "value": _text(value)} for name, value in _flat(config).items()]


def changed_settings(config: Json) -> list[Json]:
    """{"setting", "value", "default"} of settings that differ from their defaults; default None: it has none."""
    from jobs.config.config import Config

    rows: list[Json] = []
    for section, field in Config.model_fields.items():
        values, model = config.get(section), field.annotation
        if not isinstance(values, Mapping) or not isinstance(model, type) or not issubclass(model, BaseModel):
            continue
        for name, value in values.items():
            default = _default(model, name)
            if section not in QUIET and value != default:
                rows.append(
                    {
                        "setting": f"{section}.{name}",
                        "value": _text(value),
                        "default": None if default is PydanticUndefined else _text(default),
                    }
                )
    return rows


def _default(model: type[BaseModel], name: str) -> Any:
    field = model.model_fields.get(name)
    if field is None or field.is_required():
        return PydanticUndefined
    return to_jsonable_python(field.get_default(call_default_factory=True))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Json:
    flat: Json = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and not prefix:
            flat |= _flat(value, f"{key}.")
        elif key.split(".", maxsplit=1)[0] not in QUIET:
            flat[key] = value
    return flat


def _text(value: Any) -> str:
    """A value roughly as TOML writes it."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
