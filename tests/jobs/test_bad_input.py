"""Mistakes on the command line and in the config file: one clear paragraph and exit code 2, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Spoil = Callable[[Any], Any]
"""Spoils a case; returns the answer, or None: `hardmine run` it."""


def setting(key: str, value: Any) -> Spoil:
    """A setting with this value; None takes it out."""
    return lambda case: case.set(key, value)


def settings(**values: Any) -> Spoil:
    """Several settings, with "__" for the dot."""

    def spoil(case: Any) -> None:
        for key, value in values.items():
            case.set(key.replace("__", "."), value)

    return spoil


def words(*overrides: str) -> Spoil:
    """`hardmine run` with these words after the config file."""
    return lambda case: case.run(*overrides)


def command(*words: str) -> Spoil:
    """Another command line altogether."""
    return lambda case: case.hardmine(*words)


def config_text(text: str | bytes) -> Spoil:
    """A config file with exactly this content."""
    return lambda case: case.files.update({"run.toml": text.encode() if isinstance(text, str) else text})


MISTAKES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    # the command line
    "unknown command": (command("rnu"), ("rnu", "Did you mean 'run'?", "--help")),
    "no config named": (command("run"), ("config", "--help")),
    "unknown option": (command("run", "x.toml", "--dryrun"), ("--dryrun", "--help")),
    "round below the first": (command("evaluate", "x.toml", "--round", "-5"), ("--round", "equal to -1")),
    "round to embed below the first": (command("embed", "x.toml", "--round", "-2"), ("--round", "equal to -1")),
    "round to judge below the first": (command("gate", "out/run", "--round", "-2"), ("--round", "equal to -1")),
    "round to mine below the first": (command("mine", "x.toml", "--round", "-1"), ("--round", "equal to 0")),
    "round is no number": (command("mine", "x.toml", "--round", "one"), ("--round", "integer")),
    "demo with an unknown encoder": (command("demo", "--encoder", "bert"), ("--encoder", "static", "'bert'")),
    "demo with too few titles": (command("demo", "--titles", "3"), ("--titles", "200")),
    # the file
    "missing config file": (command("run", "nowhere.toml"), ("no config file nowhere.toml", "hardmine demo")),
    "config is a folder": (command("run", "/"), ("expected a text file", "directory")),
    "config nested without end": (config_text("a = " + "[" * 5_000 + "]" * 5_000), ("run.toml", "a few levels deep")),
    "config in UTF-16": (config_text("name = 'a'".encode("utf-16")), ("expected a text file in UTF-8", "run.toml")),
    "NUL in the config's name": (command("run", "a\0b.toml"), ("config", "null byte")),
    "config is not text": (config_text(b"\xff\xfe\x00name"), ("expected a text file in UTF-8", "run.toml")),
    "not TOML": (config_text("name = catalogue\n"), ("run.toml", "not valid TOML", "line 1", "quotes")),
    "a section twice": (config_text("[data]\n[data]\n"), ("run.toml", "not valid TOML", "line 2")),
    # keys
    "unknown section": (setting("traning.epochs", 2), ("traning is not a setting", "did you mean 'training'?")),
    "misspelt key": (setting("training.epoch", 2), ("training.epoch is not a setting", "did you mean 'epochs'?")),
    "key of another section": (setting("training.num_hits", 20), ("training.num_hits", "did you mean 'mining.num_hits'?")),
    "key like no other": (setting("rounds.zzz", 2), ("rounds.zzz", "known here", "warmup_epochs")),
    "misspelt key of a rule": (
        setting("mining.rules", [{"colum": "genres", "keep": "disjoint"}]),
        ("mining.rules.0.colum", "did you mean 'column'?"),
    ),
    "no name": (setting("name", None), ("name is required", "folder below `output`")),
    # values
    "text for a number": (setting("training.epochs", "many"), ("training.epochs", "a whole number", "'many'")),
    "fraction for a whole number": (setting("training.epochs", 1.5), ("training.epochs", "a whole number", "1.5")),
    "number for a text": (setting("name", 5), ("name", "a text in quotes", "found 5")),
    "text for true or false": (setting("training.gather", "maybe"), ("training.gather", "true or false", "'maybe'")),
    "value for a section": (setting("cluster", 3), ("cluster", "expected a section", "found 3")),
    "out of range": (setting("training.temperature", 5), ("training.temperature", "at most 1", "found 5", "τ of InfoNCE")),
    "below the range": (setting("rounds.patience", 0), ("rounds.patience", "at least 1", "found 0")),
    "not one of the choices": (setting("cluster.device", "tpu"), ("cluster.device", "'auto', 'cpu' or 'gpu'", "'tpu'")),
    "name with a slash": (setting("name", "a/b"), ("name", "'a/b'", "Letters, digits, dots, dashes, underscores")),
    "name of dots": (setting("name", ".."), ("name", "'..'", "a letter or a digit first")),
    "name of a dot": (setting("name", "."), ("name", "'.'", "a letter or a digit first")),
    "name like an option": (setting("name", "-x"), ("name", "'-x'", "a letter or a digit first")),
    "name without end": (setting("name", "r" * 300), ("name", "'rrr", "(300 characters)", "at most 100")),
    "empty output": (setting("output", ""), ("output", "a text that is not empty")),
    "http output": (setting("output", "http://host/x"), ("output", "s3://bucket/prefix", "'http://host/x'")),
    "s3 address without a bucket": (setting("output", "s3:///runs"), ("output", "'s3:///runs'", "without a bucket")),
    "endpoint without http": (setting("storage.endpoint", "minio:9000"), ("storage.endpoint", "http://", "'minio:9000'")),
    "five mistakes at once": (
        settings(rounds__a=1, rounds__b=1, rounds__c=1, rounds__d=1, rounds__e=1),
        ("rounds.a", "rounds.c", "(and 2 more)"),
    ),
    # overrides
    "override without =": (words("training.epochs"), ("section.key=value", "'training.epochs'", "training.epochs=2")),
    "override without a key": (words("=2"), ("section.key=value", "training.epochs=2")),
    "override of a value as a section": (words("rounds.mined.most=2"), ("rounds.mined", "to be a section", "a value")),
    "override inside a list": (
        lambda case: [case.set("mining.rules", [{"column": "genres", "keep": "disjoint"}]), case.run("mining.rules.0=2")][1],
        ("mining.rules", "a list", "in the file"),
    ),
    "override of a section": (words("training=2"), ("training", "this is a section", "training.key=value")),
    "override with a misspelt key": (words("training.epoch=2"), ("training.epoch from the command line", "'epochs'")),
    "override out of range": (words("training.temperature=5"), ("at most 1", "found 5", "from the command line")),
    # rules across settings
    "no data": (setting("data", None), ("data is required",)),
    "data without labels": (setting("data.qrels", None), ("data.qrels not set", "data.folder")),
    "folder and corpus": (setting("data.folder", "beir"), ("data.folder and data.corpus are both set",)),
    "transformer without a model": (setting("encoder.kind", "transformer"), ("encoder.model", "a hub name")),
    "more negatives than hits": (
        settings(mining__num_hits=10, mining__num_negatives=20),
        ("mining.num_negatives = 20", "mining.num_hits = 10", "at least 80"),
    ),
    "skips all hits": (settings(mining__num_hits=40, mining__skip_first=40), ("mining.skip_first = 40", "mining.num_hits = 40")),
    "empty score band": (settings(mining__min_score=0.9, mining__max_score=0.7), ("mining.min_score = 0.9", "0.7")),
    "more negatives per step than mined": (
        settings(training__hard_negatives=40),
        ("training.hard_negatives = 40", "mining.num_negatives = 32"),
    ),
    "mined for nothing": (setting("training.hard_negatives", 0), ("training.hard_negatives = 0", "rounds.mined = 0")),
    "nothing to train": (settings(rounds__mined=0, rounds__warmup_epochs=0), ("rounds.warmup_epochs = 0", "raise one")),
    "template without a field": (setting("data.item_text", "text"), ("data.item_text", "'text'", "no field in braces")),
    "template with an open brace": (setting("data.query_text", "{text"), ("data.query_text", "'{text'", "braces")),
    "template with an empty field": (setting("data.item_text", "{title} {}"), ("data.item_text", "column's name")),
    # nothing is turned into something else
    "true as a number": (setting("training.epochs", True), ("training.epochs", "a whole number", "found True")),
    "a text as a number": (setting("training.epochs", "2"), ("training.epochs", "a whole number", "found '2'")),
    "a text as a number in an override": (words("training.epochs='2'"), ("training.epochs", "a whole number", "found '2'")),
    "a fraction as a whole number": (setting("training.epochs", 2.0), ("training.epochs", "a whole number", "found 2.0")),
    "true as a fraction": (setting("training.temperature", True), ("training.temperature", "a number", "found True")),
    "a text as a fraction": (setting("training.temperature", "0.05"), ("training.temperature", "a number", "'0.05'")),
    "a number as true": (setting("rounds.compare_random", 1), ("rounds.compare_random", "true or false", "found 1")),
    "a text as true": (setting("rounds.compare_random", "yes"), ("rounds.compare_random", "true or false", "'yes'")),
    "a number as a text": (setting("data.query_text", 5), ("data.query_text", "a text in quotes", "found 5")),
    "a text as a list": (setting("evaluation.slices", "genres"), ("evaluation.slices", "a list", "'genres'")),
    "a list as a section": (setting("training", [1]), ("training", "a section", "[1]")),
    "clipping without an end": (words("training.gradient_clipping=inf"), ("training.gradient_clipping", "finite", "found inf")),
    "not a number": (words("mining.low_hit_rate=nan"), ("mining.low_hit_rate", "finite", "found nan")),
    "infinite inside a list": (words("sweep.temperature=[0.05, inf]"), ("sweep.temperature.1", "finite", "found inf")),
    "a date": (words("name=2026-01-01"), ("name", "a text in quotes", "2026-01-01")),
    "NUL in the output": (words('output="a\\u0000b"'), ("output", "without NUL", "a\\x00b")),
    "NUL in a data address": (words('data.corpus="a\\u0000b"'), ("data.corpus", "without NUL")),
    "NUL in a template": (words('data.item_text="{text}\\u0000"'), ("data.item_text", "without NUL")),
    "an override that is no UTF-8": (words("output=a\udcffb"), ("output", "Unicode characters")),
    "an empty address": (setting("encoder.model", ""), ("encoder.model", "an address, found ''")),
    "an address of spaces": (setting("output", " "), ("output", "an address, found ' '")),
    "a name that is too long": (setting("encoder.model", "./" + "x" * 5_000), ("encoder.model", "at most 255 bytes")),
    "an output that is too long": (setting("output", "out/" + "é" * 200), ("output", "at most 255 bytes")),
    "relevant from 0": (setting("data.relevant_from", 0), ("data.relevant_from", "greater than 0", "found 0")),
    # keys do not belong here
    "keys in [storage]": (setting("storage.secret_key", "hush"), ("storage.secret_key", "AWS_SECRET_ACCESS_KEY")),
    "keys in a section of their own": (setting("aws_secret_access_key", "hush"), ("storage.profile", "do not belong")),
    "keys in the output's address": (setting("output", "s3://KEY:hush@bucket/runs"), ("output", "must not hold keys")),
    "keys in a data address": (setting("data.corpus", "s3://KEY:hush@bucket/c.jsonl"), ("data.corpus", "AWS_ACCESS_KEY_ID")),
    "keys in the model's address": (setting("encoder.model", "s3://KEY:hush@bucket/m"), ("encoder.model", "hold keys")),
    "keys in the endpoint": (setting("storage.endpoint", "http://KEY:hush@host"), ("storage.endpoint", "hold keys")),
    "keys as an override": (words("storage.secret_key=hush"), ("storage.secret_key", "do not belong into a config file")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_gets_one_paragraph(name: str, case: Any, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, expected = MISTAKES[name]
    answer = spoil(case) or case.run()
    refused(answer, 2, expected)
    assert "hush" not in answer.err, "a secret was printed"
    assert not (tmp_path / "out").exists(), "refused before anything was written"


def test_no_command_shows_the_help(case: Any) -> None:
    answer = case.hardmine()
    assert answer.code == 2
    assert "Commands" in answer.out
    assert answer.err.startswith("hardmine: no command given; ")


def test_the_same_mistake_with_json_prints_nothing_on_standard_output(case: Any, refused: Any) -> None:
    case.set("training.temperature", 5)
    refused(case.run("--json"), 2, ["training.temperature"])
    refused(case.run("--json", "--dry-run"), 2, ["training.temperature"])


def test_the_unspoilt_case_is_a_good_one(case: Any) -> None:
    answer = case.run("--json", "--dry-run")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["rows"] == {"corpus": 12, "queries": 10, "labels": 10}


def test_a_setting_without_effect_is_told_by_a_dry_run(case: Any) -> None:
    case.set("mining.choice_temperature", 0.2)
    assert "choice_temperature = 0.2 has no effect" in json.loads(case.run("--json", "--dry-run").out)["warnings"][0]
    assert "! mining.choice_temperature = 0.2 has no effect" in case.run("--dry-run").out.replace("\n", " ")
