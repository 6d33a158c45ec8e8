"""Text templates over columns: "{title} by {author} | {genres} | {text}".

The words between two fields belong to the second one: where a row has no value for it, both vanish. Words before the
first value vanish as well, so a text never starts or ends with a loose separator.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import ConfigError


class Template:
    """A parsed template."""

    def __init__(self, text: str, setting: str) -> None:
        """Raises ConfigError: not a template, or it has no field."""
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"{setting}: {text!r} is not a template ({error}); expected fields in braces, e.g. "
                              f"\"{{title}} {{text}}\"") from error
        self._pieces = [(literal, field) for literal, field, _, _ in parsed if field]
        self._tail = parsed[-1][0] if parsed and parsed[-1][1] is None else ""
        self._setting = setting
        if not self._pieces:
            raise ConfigError(f"{setting}: {text!r} has no field in braces, so every text would be the same")

    @property
    def fields(self) -> list[str]:
        """The columns it reads."""
        return [field for _, field in self._pieces]

    def check(self, columns: Sequence[str], where: str) -> None:
        """Raises ConfigError: none of its fields is a column of the table (one that is missing simply vanishes)."""
        unknown = [field for field in self.fields if field not in columns]
        if unknown and (len(unknown) == len(self.fields) or any(field not in ("title", "text") for field in unknown)):
            raise ConfigError(f"{self._setting}: there is no column {unknown[0]!r} in {where}; it has "
                              f"{', '.join(sorted(columns))}")

    def render(self, row: Mapping[str, Any]) -> str:
        """The text of one row; empty if no field has a value."""
        text = ""
        for literal, field in self._pieces:
            value = _as_text(row.get(field))
            if value:
                text += (literal if text else "") + value
        return text + self._tail if text and _as_text(row.get(self._pieces[-1][1])) else text


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (_as_text(item) for item in value)))
    return " ".join(str(value).split())
