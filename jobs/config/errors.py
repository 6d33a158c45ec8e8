"""Mistakes in a configuration, as a person understands them: the key, what was expected, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

KEYS_ADVICE = (
    "keys do not belong into a config file: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in storage.profile"
)
SHOWN = 3
"""Mistakes that one message names."""

EXPECTED = {
    "model_type": "a section",
    "dict_type": "a section",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "a text of the allowed form",
}
"""pydantic's kinds of errors in plain words; the messages of the others are plain enough."""


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """One sentence for each of the first mistakes.

    Args:
        model: the root of the tree, for suggestions and meanings.
        source: where the values are from.
    """
    # an unknown key first: it is often why another one is missing
    mistakes = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    messages = list(dict.fromkeys(_explain_one(item, model) for item in mistakes))
    more = f" (and {len(messages) - SHOWN} more)" if len(messages) > SHOWN else ""
    return f"{source}: " + "; ".join(messages[:SHOWN]) + more


def _explain_one(item: Any, root: type[BaseModel]) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return _explain_unknown(location, root)
    if item["type"] == "missing":
        return f"{key} is required but not set{_meaning(location, root)}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    expected = EXPECTED.get(item["type"]) or _plain(item["msg"])
    shown = f"{item['input']!r:.100}"
    if isinstance(item["input"], str) and len(item["input"]) > len(shown):
        shown += f"… ({len(item['input'])} characters)"
    return f"{key}: expected {expected}, found {shown}{_meaning(location, root)}"


def _plain(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("String should ").removeprefix("Value error, ")
    text = text.replace("less than or equal to", "at most").replace("greater than or equal to", "at least")
    return text[0].lower() + text[1:]


def _meaning(location: Sequence[str], root: type[BaseModel]) -> str:
    field = None
    for field in _fields(location, root):  # noqa: B007  the last one is the setting itself
        pass
    return f" ({' '.join(field.description.split()).rstrip('.')})" if field is not None and field.description else ""


def _explain_unknown(location: list[str], root: type[BaseModel]) -> str:
    key, name = ".".join(location), location[-1].lower()
    secret = (
        "access_key" in name
        or "secret" in name
        or "password" in name
        or (location[0] in ("storage", "data") and ("token" in name or "key" in name))
    )
    if secret:
        return f"{key}: {KEYS_ADVICE}"
    known = _known_keys(location[:-1], root)
    close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    elsewhere = next(
        (f"{section}.{location[-1]}" for section in root.model_fields if location[-1] in _known_keys([section], root)), None
    )
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"did you mean {elsewhere!r}?"
        if elsewhere
        else (f"known here: {', '.join(sorted(known))}")
    )
    return f"{key} is not a setting; {hint}"


def _known_keys(location: Sequence[str], root: type[BaseModel]) -> list[str]:
    model: type[BaseModel] | None = root
    for field in _fields(location, root):
        model = _model_of(field)
    return list(model.model_fields) if model is not None else []


def _fields(location: Sequence[str], root: type[BaseModel]) -> Iterator[FieldInfo]:
    """The fields on the way to a key in the tree."""
    model: type[BaseModel] | None = root
    for part in location:
        if part.isdigit():  # of a list
            continue
        if model is None or part not in model.model_fields:
            return
        field = model.model_fields[part]
        yield field
        model = _model_of(field)


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
