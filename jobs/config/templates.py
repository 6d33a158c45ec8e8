"""Text templates over columns: "{title} by {author} | {genres} | {text}".

The words between two fields belong to the second one: where a row has no value for it, both vanish. Words before the
first value vanish as well, so a text never starts or ends with a loose separator.
"""

from __future__ import annotations

import difflib
import math
import string
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.errors import ConfigError

EXAMPLE = '"{title} by {author} | {text}"'


class Template:
    """A parsed template."""

    def __init__(self, text: str, setting: str) -> None:
        """Raises ConfigError: not a template, or it has no field."""
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(
                f"{setting}: expected fields in braces, e.g. {EXAMPLE}, found {text!r} ({error}); write "
                f"{{{{ and }}}} for braces that are meant as such"
            ) from error
        self._setting = setting
        self._pieces: list[tuple[str, str]] = []
        literal = ""
        for words, field, spec, conversion in parsed:  # words alone: an escaped brace, or what follows the last field
            literal += words
            if field is None:
                continue
            if not field or spec or conversion:
                raise ConfigError(
                    f"{setting}: expected nothing but a column's name in the braces, e.g. {EXAMPLE}, "
                    f"found {text!r}; take out what else is there"
                )
            self._pieces.append((literal, field))
            literal = ""
        self._tail = literal
        if not self._pieces:
            raise ConfigError(
                f"{setting}: {text!r} has no field in braces, so every text would be the same; name the columns, e.g. {EXAMPLE}"
            )

    @property
    def fields(self) -> list[str]:
        """The columns it reads."""
        return [field for _, field in self._pieces]

    def check(self, columns: Iterable[str], where: str) -> None:
        """Raises ConfigError: none of its fields is a column of the table, or one that is not title or text is missing.

        A missing title or text beside another field simply vanishes: the default template names both.
        """
        known = list(columns)
        unknown = [field for field in self.fields if field not in known]
        if unknown and (len(unknown) == len(self.fields) or any(field not in ("title", "text") for field in unknown)):
            missing = next((field for field in unknown if field not in ("title", "text")), unknown[0])
            close = difflib.get_close_matches(missing, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "name one of these"
            raise ConfigError(
                f"{self._setting}: expected a column {missing!r} in {where}, found {', '.join(sorted(known))}; {hint}"
            )

    def render(self, row: Mapping[str, Any]) -> str:
        """The text of one row; empty if no field has a value."""
        text = ""
        for literal, field in self._pieces:
            value = _as_text(row.get(field))
            if value:
                text += (literal if text else "") + value
        return text + self._tail if text and _as_text(row.get(self._pieces[-1][1])) else text

    def render_columns(self, columns: Mapping[str, Any]) -> Any:
        """The texts of all rows at once.

        Args:
            columns: field -> arrow array of texts without white space at their ends; "" where a row has no value. A field that is
                no column has no value in any row.
        """
        import pyarrow.compute as pc

        text: Any = None
        for literal, field in self._pieces:
            if field not in columns:
                continue
            value = columns[field]
            if text is None:
                text = value
                continue
            joined = pc.binary_join_element_wise(text, value, literal)
            text = pc.if_else(pc.equal(value, ""), text, pc.if_else(pc.equal(text, ""), value, joined))
        last = columns.get(self._pieces[-1][1])
        if self._tail and last is not None:
            text = pc.if_else(pc.equal(last, ""), text, pc.binary_join_element_wise(text, self._tail, ""))
        return text


def check_template(text: str, setting: str) -> None:
    """Raises ValueError: not a template, or it has no field."""
    try:
        Template(text, setting)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN is how pandas writes what is missing
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (_as_text(item) for item in value)))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(str(value).split())
