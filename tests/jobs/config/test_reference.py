"""docs/settings.md is what `make settings` writes now, and says what every setting means."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs.config.config import Config, RoundsSettings, put_override
from jobs.config.reference import all_settings, heading, models_in, sections, settings_page
from jobs.config.strict import validate
from jobs.config.units import EXAMPLES, NULLS, UNITS

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


def test_every_number_has_a_unit_and_every_null_is_explained() -> None:
    for setting in all_settings():
        assert setting.unit or "number" not in setting.type, f"{setting.key} needs a line in jobs/config/units.py"
        assert setting.null or "null" not in setting.type, f"{setting.key}: what does null mean?"
        assert setting.example, setting.key


def test_units_examples_and_nulls_are_of_settings_that_exist() -> None:
    keys = {setting.key for setting in all_settings()}
    names = {setting.name for setting in all_settings()}
    assert {name for group in UNITS.values() for name in group} <= keys | names
    assert set(NULLS) <= keys
    assert set(EXAMPLES) <= keys | names
    assert [key for key in NULLS if "null" not in next(s.type for s in all_settings() if s.key == key)] == []


COMPLETE: dict[str, Any] = {
    "name": "shop",
    "output": "runs",
    "data": {"folder": "beir", "mix": {"folder": "mix"}},
    "encoder": {"kind": "transformer", "model": "organisation/model"},
    "mining": {"teacher": {"model": "organisation/teacher"}, "choose": "uniform"},
    "reranker": {"model": "organisation/reranker"},
    "evaluation": {"general": {"folder": "general"}},
}


@pytest.mark.parametrize("key", [setting.key for setting in all_settings() if "=" in setting.example.split(" ")[0]])
def test_every_example_is_a_setting_that_is_accepted(key: str) -> None:
    (setting,) = [setting for setting in all_settings() if setting.key == key]
    values = copy.deepcopy(COMPLETE)
    (override,) = shlex.split(setting.example)
    if key.rpartition(".")[2] in ("corpus", "queries", "qrels"):
        section = values
        for part in key.split(".")[:-1]:
            section = section[part]
        section.clear()
        section.update(dict.fromkeys(("corpus", "queries", "qrels"), "x.parquet"))
    if key == "encoder.kind":
        del values["encoder"]["model"]
    if key == "mining.teacher.url":
        values["mining"]["teacher"]["kind"] = "http"
    if key == "training.in_batch":
        values["training"] = {"symmetric": False}
    put_override(values, override)
    config = validate(Config, values, source="test", context={"trains": False})
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    assert found is not None


def test_the_command_explains_a_section_a_setting_and_a_bare_name(case: Any) -> None:
    answer = case.hardmine("settings", "rounds")
    assert (answer.code, answer.err) == (0, "")
    for name in RoundsSettings.model_fields:
        assert f"rounds.{name}  " in answer.out
    one = case.hardmine("settings", "training.learning_rate").out
    for words in ("number or null (> 0.0, ≤ 1.0)", "null: transformer 2e-5", "example: training.learning_rate=2e-05"):
        assert words in one
    both = json.loads(case.hardmine("settings", "temperature", "--json").out)["settings"]
    assert [setting["key"] for setting in both] == ["training.temperature", "training.distil.temperature", "sweep.temperature"]
    assert len(json.loads(case.hardmine("settings", "--json").out)["settings"]) == len(all_settings())


def test_a_section_that_is_not_there_is_one_paragraph_with_the_nearest(case: Any, refused: Any) -> None:
    refused(case.hardmine("settings", "training.epoch"), 2, ["'training.epoch'", "did you mean 'training.epochs'?"])


def test_json_is_free_of_markdown(case: Any) -> None:
    every = json.loads(case.hardmine("settings", "--json").out)["settings"]
    assert not [setting for setting in every if any("`" in text for text in setting.values())]
    (epochs,) = json.loads(case.hardmine("settings", "training.epochs", "--json").out)["settings"]
    assert epochs["default"] == "1"
