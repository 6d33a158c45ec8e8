"""A configuration as TOML with the reason behind each line: pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jobs.init.choices import Choice

WIDTH = 130
COLUMN = 36
"""Where reasons begin."""


def to_lines(head: Sequence[str], choices: Sequence[Choice]) -> list[str]:
    """The file's lines: `head` as comments, then the choices by section."""
    lines = [f"# {line}" for line in head]
    sections = dict.fromkeys(choice.key.rpartition(".")[0] for choice in choices)
    for section in sorted(sections, key=bool):  # what belongs to no section stands before the first
        own = [choice for choice in choices if choice.key.rpartition(".")[0] == section]
        if section:
            commented = all(choice.off for choice in own)
            lines += ["", f"{'# ' if commented else ''}[{section}]"]
        for choice in own:
            lines += _line(choice)
    return lines


def _line(choice: Choice) -> list[str]:
    text = f"{'# ' if choice.off else ''}{choice.key.rpartition('.')[2]} = {written(choice.value)}"
    if not choice.reason:
        return [text]
    line = f"{text:<{COLUMN}} # {choice.reason}"
    return [line] if len(line) <= WIDTH else [f"# {choice.reason}", text]


def written(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {written(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)
