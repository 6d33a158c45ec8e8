"""Every setting with its type, default, unit, meaning and an example, from the types and docstrings of the settings.

`hardmine settings` prints it; `make settings` writes docs/settings.md from it.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console

from cluster.errors import ConfigError
from jobs.config.config import Config
from jobs.config.units import EXAMPLES, NULLS, UNITS

HEAD = """# Settings

Every setting of a run. `hardmine settings training` prints a section of this page, `hardmine settings training.epochs` one
setting. The page is generated from the docstrings of the settings (`make settings`). On the command line a setting is written
`section.name=value`. Where the type says `null`, `section.name=null` (in a file `"off"`, or the setting left out) means what the
column "null" says.
"""


@dataclass(frozen=True)
class Setting:
    """A setting, for a person."""

    key: str
    """Full name; NAME stands for a key of the user's own, [] for an entry of a list."""
    type: str
    default: str
    null: str
    """What `null` resolves to; "": it is not allowed."""
    unit: str
    """ "": it is no number."""
    meaning: str
    example: str
    """As it is written: an override, or a line of the file."""

    @property
    def name(self) -> str:
        """Its name in its section."""
        return self.key.rpartition(".")[2]


def settings_page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## `{heading(path)}`\n\n{_table(path, model)}" for path, model in sections(Config, ""))


def heading(path: str) -> str:
    """A section as a file names it: "[training]", "[[mining.rules]]", "[training.label_sources.NAME]"."""
    return f"[[{path.removesuffix('[]')}]]" if path.endswith("[]") else f"[{path}]" if path else "top level"


def sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """(path, model) of a section and all below it: "", "training", "mining.rules[]", "training.label_sources.NAME"."""
    yield path, model
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        for inner, kind in models_in(field.annotation):
            yield from sections(inner, {"list": f"{key}[]", "dict": f"{key}.NAME"}.get(kind, key))


def models_in(annotation: Any, kind: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The settings models in a type, and whether they stand in a list or a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, kind
    origin = typing.get_origin(annotation)
    containers: dict[Any, str] = {list: "list", tuple: "list", dict: "dict"}
    below = containers.get(origin, kind)
    for argument in typing.get_args(annotation):
        yield from models_in(argument, below)


def settings_of(path: str, model: type[BaseModel]) -> list[Setting]:
    """The settings of a section, without the sections below it."""
    fields = [(name, field) for name, field in model.model_fields.items() if not list(models_in(field.annotation))]
    return [_setting(f"{path}.{name}" if path else name, field) for name, field in fields]


def all_settings() -> list[Setting]:
    """Every setting."""
    return [setting for path, model in sections(Config, "") for setting in settings_of(path, model)]


def find_settings(wanted: str | None) -> list[Setting]:
    """The settings of a section and of those below it, or a single setting; all without a name.

    Raises:
        ConfigError: there is no such section or setting.
    """
    known = all_settings()
    if wanted is None:
        return known
    name = wanted.strip("[]")
    plain = {setting: setting.key.replace("[]", "") for setting in known}
    chosen = [setting for setting in known if plain[setting] == name or plain[setting].startswith(f"{name}.")]
    chosen = chosen or [setting for setting in known if setting.name == name]
    if not chosen:
        names = {
            *plain.values(),
            *(setting.name for setting in known),
            *(path.replace("[]", "") for path, _ in sections(Config, "")),
        }
        close = difflib.get_close_matches(name.rpartition(".")[2], names, n=1) or difflib.get_close_matches(name, names, n=1)
        full = next((key for key in plain.values() if key == (close or [""])[0] or key.endswith(f".{(close or ['-'])[0]}")), None)
        hint = f"did you mean {full or close[0]!r}?" if close else "`hardmine settings` lists the sections"
        raise ConfigError(f"expected a section or a setting, found {wanted!r}; {hint}")
    return chosen


def show_settings(console: Console, chosen: list[Setting], wanted: str | None) -> None:
    """Print settings; without a name the sections only."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if wanted is None:
        for path, model in sections(Config, ""):
            summary = " ".join((model.__doc__ or "").split()).partition(". ")[0].rstrip(".")
            say(f"{heading(path):32} {len(settings_of(path, model)):3}  {summary}")
        say("\n`hardmine settings SECTION` prints the settings of one, `hardmine settings SECTION.NAME` a single one")
        return
    for setting in chosen:
        unit = f"; unit: {setting.unit}" if setting.unit else ""
        say(f"{setting.key}  {setting.type.replace('`', '')}; default {setting.default.strip('`')}{unit}")
        say(f"    {setting.meaning.replace('`', '')}")
        if setting.null:
            say(f"    null: {setting.null}")
        say(f"    example: {setting.example}\n")


def settings_json(chosen: list[Setting]) -> dict[str, Any]:
    """What `hardmine settings --json` prints."""
    texts = ({name: str(value).replace("`", "") for name, value in asdict(setting).items()} for setting in chosen)
    return {"settings": list(texts)}


def _table(path: str, model: type[BaseModel]) -> str:
    cells = [
        (f"`{s.name}`", s.type, s.default, s.null or "–", s.unit or "–", s.meaning, f"`{s.example}`")
        for s in settings_of(path, model)
    ]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    names = "| setting | type | default | null | unit | meaning | example |"
    return "\n".join([names, "|---" * 7 + "|", *lines]) + "\n" if lines else ""


def _setting(key: str, field: FieldInfo) -> Setting:
    meaning = re.sub(r"\s+", " ", field.description or "")
    nullable = types.NoneType in _types(field.annotation)
    null = ""
    if nullable:
        said = re.search(r'(?:Default|null|"off"): (.+?)\.(?= [A-Z"a-z]+:? |$)', meaning)
        if said and key not in NULLS:  # said once is enough
            meaning = meaning.replace(said.group(0), "").replace("  ", " ").strip()
        null = NULLS.get(key) or (said.group(1) if said else "no such check" if key.startswith("evaluation.gate.") else "")
    numbers = {int, float} & _types(field.annotation)
    unit = next((unit for unit, names in UNITS.items() if key in names or key.rpartition(".")[2] in names), "")
    return Setting(key, _type(field), _default(field), null, unit if numbers else "", meaning, _example(key, field))


def _types(annotation: Any) -> set[Any]:
    """The plain types in a type."""
    inner = [kind for argument in typing.get_args(annotation) for kind in _types(argument)]
    return {annotation, *inner} if isinstance(annotation, type) else set(inner)


def _type(field: FieldInfo) -> str:
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    limits = [f"{signs[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in _constraints(field) if type(m) in signs]
    return " ".join([_name(field.annotation), *([f"({', '.join(limits)})"] if limits else [])])


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


def _example(key: str, field: FieldInfo) -> str:
    """The setting as one writes it: a value of the table, the first choice but the default, or the default itself."""
    value = EXAMPLES.get(key, EXAMPLES.get(key.removeprefix("evaluation.general.").removeprefix("data.mix.")))
    if value is None:
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        choices = [choice for literal in _literals(field.annotation) for choice in typing.get_args(literal)]
        value = next((choice for choice in choices if choice != value), value) if not isinstance(value, list) else value
        value = not value if isinstance(value, bool) else value
    if "[]" in key or "NAME" in key:  # an entry of a list, or of a table: a line of the file
        return f"{key.rpartition('.')[2]} = {json.dumps(value)}"
    shown = value if isinstance(value, str) else _toml(value)
    return f"{key}='{shown}'" if re.search(r"[^\w.@/:-]", shown) else f"{key}={shown}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


def _literals(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for argument in typing.get_args(annotation):
            yield from _literals(argument)


if __name__ == "__main__":
    import sys

    sys.stdout.write(settings_page())
