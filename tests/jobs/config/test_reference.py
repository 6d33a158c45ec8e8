"""docs/settings.md is what `make settings` writes now, and says what every setting means."""

from __future__ import annotations

from pathlib import Path

from jobs.config.config import Config
from jobs.config.reference import heading, models_in, sections, settings_page

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == settings_page(), "run `make settings`"


def test_every_setting_has_a_meaning() -> None:
    silent = [
        f"{title} {name}"
        for title, model in sections(Config, "")
        for name, field in model.model_fields.items()
        if not field.description and not list(models_in(field.annotation))
    ]
    assert silent == []


def test_sections_are_named_as_a_file_names_them() -> None:
    titles = [heading(path) for path, _ in sections(Config, "")]
    assert {"[data]", "[mining.search]", "[[mining.rules]]", "[evaluation.gate]"} <= set(titles)
    assert len(set(titles)) == len(titles)
