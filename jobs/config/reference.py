"""docs/settings.md, the reference of all settings, from their types and docstrings: `make settings` writes it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.config.config import Config

HEAD = """# Settings

Every setting of a run, with its type, its default and its meaning. This page is generated from the docstrings of the settings
(`make settings`). On the command line a setting is written `section.name=value`; `null` takes an optional one back to nothing.
"""


def settings_page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## {title}\n\n{_table(model)}" for title, model in sections(Config, ""))


def sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """(heading, model) of a section and all below it: "[training]", "[[mining.rules]]", "[training.label_sources.NAME]"."""
    yield (f"`[{path}]`" if path else "Top level"), model
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        for inner, kind in models_in(field.annotation):
            heading = {"list": f"[{key}]", "dict": f"{key}.NAME"}.get(kind, key)
            yield from sections(inner, heading)


def models_in(annotation: Any, kind: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The settings models in a type, and whether they stand in a list or a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, kind
    origin = typing.get_origin(annotation)
    containers: dict[Any, str] = {list: "list", tuple: "list", dict: "dict"}
    below = containers.get(origin, kind)
    for argument in typing.get_args(annotation):
        yield from models_in(argument, below)


def _table(model: type[BaseModel]) -> str:
    rows = [(name, field) for name, field in model.model_fields.items() if not list(models_in(field.annotation))]
    lines = [f"| `{name}` | {_type(field)} | {_default(field)} | {_meaning(field)} |" for name, field in rows]
    return "\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *lines]) + "\n" if lines else ""


def _type(field: FieldInfo) -> str:
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    limits = [f"{signs[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in _constraints(field) if type(m) in signs]
    return " ".join([_name(field.annotation), *([f"({', '.join(limits)})"] if limits else [])]).replace("|", "\\|")


def _constraints(field: FieldInfo) -> list[Any]:
    inner = [m for argument in typing.get_args(field.annotation) for m in getattr(argument, "__metadata__", ())]
    unpacked = [m for item in inner for m in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return [*field.metadata, *unpacked]


def _name(annotation: Any) -> str:
    """A type as a person writes it: "number", "text", "true or false", "one of a, b"."""
    plain = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in plain:
        return plain[annotation]
    if origin is Annotated:
        return _name(arguments[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(argument) for argument in arguments))
    if origin in (list, tuple, set, frozenset):
        return f"list of {' and '.join(dict.fromkeys(_name(a) for a in arguments if a is not Ellipsis))}"
    return f"table of {_name(arguments[-1])}" if origin is dict else getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "null" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    return re.sub(r"\s+", " ", field.description or "").replace("|", "\\|")


if __name__ == "__main__":
    import sys

    sys.stdout.write(settings_page())
