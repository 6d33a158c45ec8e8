"""Reading a configuration: paths, overrides, suggestions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.errors import ConfigError
from jobs.config.config import Config, load_config, parse_config, set_by_user
from jobs.config.derived import with_settings
from jobs.config.errors import SHOWN, explain
from jobs.config.strict import Origin

SMALLEST = """
name = "catalogue"
output = "runs"
[data]
corpus = "corpus.parquet"
queries = "s3://bucket/queries.parquet"
qrels = "/data/qrels.parquet"
[encoder]
model = "sentence-transformers/all-MiniLM-L6-v2"
"""


def write(folder: Path, text: str = SMALLEST) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def values(**more: Any) -> dict[str, Any]:
    return {"name": "a", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | more


def test_relative_addresses_count_from_the_config_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(write(tmp_path))
    assert config.output == str(tmp_path / "runs")
    assert config.root == f"{tmp_path}/runs/catalogue"
    assert config.data.corpus == str(tmp_path / "corpus.parquet")
    assert config.data.queries == "s3://bucket/queries.parquet"
    assert config.data.qrels == "/data/qrels.parquet"
    assert config.data.folder is None


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ("organisation/name", "organisation/name"),
        ("organisation/there", "{folder}/organisation/there"),
        ("./nowhere", "{folder}/nowhere"),
        ("../up/model", "{parent}/up/model"),
        ("/models/minilm", "/models/minilm"),
        ("a/b/c", "{folder}/a/b/c"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_a_model_is_a_folder_where_it_looks_like_one(tmp_path: Path, model: str, want: str) -> None:
    (tmp_path / "organisation/there").mkdir(parents=True)
    config = load_config(write(tmp_path), [f"encoder.model={model}", f"mining.teacher.model={model}"])
    assert config.encoder.model == want.format(folder=tmp_path, parent=tmp_path.parent)
    assert config.mining.teacher is not None
    assert config.mining.teacher.model == config.encoder.model


@pytest.mark.parametrize(
    ("override", "key", "want"),
    [
        ("training.epochs=3", "training.epochs", 3),
        (" training.temperature = 0.07", "training.temperature", 0.07),
        ("training.gather=false", "training.gather", False),
        ("name=other", "name", "other"),
        ('name="quoted"', "name", "quoted"),
        ("encoder.query_prompt=query: ", "encoder.query_prompt", "query: "),
        ("encoder.query_prompt=a=b", "encoder.query_prompt", "a=b"),
        ("mining.rules=[{column='genres', keep='disjoint'}]", "mining.rules.0.column", "genres"),
        ("data.columns={group='franchise'}", "data.columns", {"group": "franchise"}),
        ("name=one\nname_two='x'", "name", None),
    ],
)
def test_override(tmp_path: Path, override: str, key: str, want: Any) -> None:
    if want is None:  # a line break cannot smuggle in a second setting
        with pytest.raises(ConfigError, match="allowed form"):
            load_config(write(tmp_path), [override])
        return
    found: Any = load_config(write(tmp_path), [override])
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == want


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMALLEST, encoding="utf-8-sig")
    assert load_config(path).name == "catalogue"


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert load_config(write(tmp_path), ["training.epochs=3", "training.epochs=5"]).training.epochs == 5


def test_an_unknown_key_is_told_before_the_key_that_it_should_have_been() -> None:
    with pytest.raises(ConfigError) as failed:
        parse_config(values(mining={"rules": [{"colum": "genres", "keep": "disjoint"}]}), source="here")
    first, second = str(failed.value).split("; did you mean 'column'?; ")
    assert first == "here: mining.rules.0.colum is not a setting"
    assert second.startswith("mining.rules.0.column is required but not set (A metadata column of the corpus")


def test_the_first_mistakes_are_told_and_the_rest_counted() -> None:
    with pytest.raises(ValidationError) as failed:
        Config.model_validate(values(rounds={f"key{number}": 1 for number in range(SHOWN + 2)}))
    message = explain(failed.value, Config, "here")
    assert message.count("is not a setting") == SHOWN
    assert message.endswith("(and 2 more)")


def test_every_setting_has_a_meaning() -> None:
    """`use_attribute_docstrings` is what messages show; a setting without a docstring would show nothing."""
    without = []
    for name, section in Config.model_fields.items():
        model: Any = section.annotation
        without += [f"{name}.{key}" for key, field in getattr(model, "model_fields", {}).items() if not field.description]
    assert without == []


def test_secrets_are_refused_by_name_wherever_they_stand() -> None:
    for place in (
        {"storage": {"key": "hush"}},
        {"storage": {"session_token": "hush"}},
        {"aws_access_key_id": "hush"},
        {"cluster": {"secret": "hush"}},
        {"data": {"folder": "/beir", "password": "hush"}},
    ):
        with pytest.raises(ConfigError, match="keys do not belong into a config file") as failed:
            parse_config(values(**place), source="here")
        assert "hush" not in str(failed.value)


def test_null_on_the_command_line_is_nothing_and_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('name = "a"\noutput = "o"\n[data]\nfolder = "b"\n[encoder]\nkind = "static"\n[cluster]\naddress = "auto"\n')
    config = load_config(path, ["cluster.address=null", "training.learning_rate=null", "mining.relative_margin=null"])
    assert (config.cluster.address, config.training.learning_rate, config.mining.relative_margin) == (None, None, None)
    with pytest.raises(ConfigError, match=r"training\.epochs: expected a whole number"):
        load_config(path, ["training.epochs=null"])


def test_a_configuration_knows_its_file_and_its_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('name = "a"\noutput = "o"\n[data]\nfolder = "b"\n[encoder]\nkind = "static"\n')
    config = load_config(path, ["training.epochs=2"])
    assert config.origin == Origin(str(path), ("training.epochs=2",))
    assert not config.derived
    changed = with_settings(config, {"training.epochs": 3}, source="test")
    assert (changed.origin, changed.derived) == (None, True)
    assert set_by_user(path, ["training.epochs=2", "encoder.kind=adapter"]) == {
        "name": "file",
        "output": "file",
        "data.folder": "file",
        "encoder.kind": "command line",
        "training.epochs": "command line",
    }
