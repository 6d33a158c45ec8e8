"""Text templates: what is missing vanishes with the words before it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.errors import ConfigError
from jobs.config.templates import Template, check_template

ROW = {"title": "Dune", "author": "Herbert", "genres": ["sf", "epic"], "text": "Sand.", "none": None, "empty": " ", "year": 1965}


@pytest.mark.parametrize(
    ("template", "want"),
    [
        ("{title}", "Dune"),
        ("{title} by {author} | {genres} | {text}", "Dune by Herbert | sf, epic | Sand."),
        ("{title} by {none} | {text}", "Dune | Sand."),
        ("{title} ({empty}) {text}", "Dune) Sand."),  # words belong to the field after them: close brackets do not pair
        ("{none} by {author}", "Herbert"),
        ("by {author}", "Herbert"),
        ("{title}, {year}.", "Dune, 1965."),
        ("{title}, {none}.", "Dune"),
        ("{none}{empty}{unknown}", ""),
        ("{title} {{x}} {author}", "Dune {x} Herbert"),
        ("{title}{{x}}", "Dune{x}"),
        ("{title} {title}", "Dune Dune"),
    ],
)
def test_render(template: str, want: str) -> None:
    assert Template(template, "here").render(ROW) == want


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (None, ""),
        (math.nan, ""),
        ("  a \n b ", "a b"),
        ([], ""),
        (["a", None, " ", "b"], "a, b"),
        ([["a"], "b"], "a, b"),
        (0, "0"),
        (False, "False"),
        (1.5, "1.5"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff", "\ufffd"),
        ([math.nan, 2.0], "2.0"),
    ],
)
def test_values_as_text(value: Any, want: str) -> None:
    assert Template("{x}", "here").render({"x": value}) == want


@pytest.mark.parametrize("template", ["", "no field", "{", "{title", "title}", "{}", "{title} {}", "{title!r}", "{title:>5}"])
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.item_text.*e\.g\."):
        Template(template, "data.item_text")
    with pytest.raises(ValueError, match=r"data\.item_text"):
        check_template(template, "data.item_text")


@pytest.mark.parametrize(
    ("template", "columns", "missing"),
    [
        ("{title} {text}", ["text"], None),
        ("{title} {text}", ["title"], None),
        ("{title} {genres}", ["genres"], None),
        ("{title} {text}", ["id"], "title"),
        ("{title} {genre}", ["title", "genres"], "genre"),
        ("{title.name}", ["title"], "title.name"),
        ("{0}", ["title"], "0"),
    ],
)
def test_check(template: str, columns: list[str], missing: str | None) -> None:
    parsed = Template(template, "data.item_text")
    if missing is None:
        parsed.check(columns, "corpus.jsonl")
        return
    with pytest.raises(ConfigError, match=f"expected a column {missing!r} in corpus.jsonl"):
        parsed.check(columns, "corpus.jsonl")
