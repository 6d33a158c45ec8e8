"""Values from a file or the command line as a model: nothing is turned into something else, and a mistake is one paragraph."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cluster.errors import ConfigError
from jobs.config.errors import explain

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Origin:
    """Where a configuration was read."""

    path: str
    """Absolute, of the TOML file."""
    overrides: tuple[str, ...] = ()
    """As they were written on the command line."""


@dataclass(frozen=True)
class Derived:
    """In place of where it was read: it was made from another configuration."""


def validate(model: type[M], values: Mapping[str, Any], *, source: str, context: Mapping[str, Any] | None = None) -> M:
    """`values` as a `model`: true is no number, "2" neither, and no number is infinite.

    Args:
        source: where the values are from, for messages.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; names it, what was expected and found.
    """
    for key, value, expected in _unusable(values, ""):
        raise ConfigError(f"{source}: {key}: expected {expected}, found {value!r:.100}; correct it, or take it out")
    try:
        # as JSON, where a list may become a tuple although nothing else is converted
        return model.model_validate_json(json.dumps(values), strict=True, context=dict(context or {}))
    except ValidationError as error:
        raise ConfigError(explain(error, model, source)) from None


def _unusable(value: Any, key: str) -> Iterator[tuple[str, Any, str]]:
    """(key, value, what was expected) of what no setting holds."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _unusable(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _unusable(item, f"{key}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, value, "a finite number"
    elif isinstance(value, str) and ("\0" in value or (not value.isascii() and not _is_unicode(value))):
        yield key, value, "a text of Unicode characters without NUL"
    elif value is not None and not isinstance(value, bool | int | float | str):  # TOML has dates and times
        yield key, str(value), "a number, a text in quotes, true or false"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # what the shell gave was no UTF-8
        return False
    return True
