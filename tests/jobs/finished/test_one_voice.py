"""What hardmine proposes: settings that exist, that differ from what is set, that a run accepts, and never both ways at once."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from eval.diagnosis.checks_fit import VALIDATED
from eval.diagnosis.commands import MOST
from eval.diagnosis.evidence import Evidence
from eval.diagnosis.experiments import (
    another_round,
    fewer_false_negatives,
    harder_negatives,
    more_capacity,
    more_dev,
    more_steps,
    other_settings,
    shorter,
    slower,
    usual_temperature,
    without_field,
)
from eval.diagnosis.filters import command_for_filter
from eval.diagnosis.rank import diagnose
from jobs.cli.app import app
from jobs.config.config import Config, load_config, set_by_user
from jobs.config.reference import all_settings
from jobs.finished.evidence import _flat
from mining.choice.filters import cures
from tests.eval.diagnosis.conftest import make  # noqa: F401  a fixture
from training.settings import VALIDATION_QUERIES

ROOT = Path(__file__).parents[3]
FILTERS = (
    "positive",
    "self",
    "duplicate",
    "rule:genres:disjoint",
    "min_score",
    "max_score",
    "relative_margin",
    "absolute_margin",
    "ceiling",
    "position",
    "teacher:unread",
    "teacher",
)
TEACHER = {"mining.teacher.model": "organisation/teacher"}
CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "adapter as wide as can be": {"encoder.kind": "adapter", "encoder.hidden": 65_536},
    "adapter": {"encoder.kind": "adapter"},
    "lora": {"encoder.kind": "transformer", "encoder.model": "organisation/model", "training.lora.rank": 512},
    "all positions": {"encoder.kind": "transformer", "encoder.model": "organisation/model", "encoder.max_length": 512},
    "many negatives": {"training.hard_negatives": 64, "mining.num_negatives": 64},
    "as many negatives as hits": {"training.hard_negatives": 100, "mining.num_negatives": 100},
    "most negatives": {"training.hard_negatives": 1024, "mining.num_negatives": 1024, "mining.num_hits": 2048},
    "no margin left": {"mining.relative_margin": 0.0, "mining.margin_reference": "lowest"},
    "mildest reference": {"mining.margin_reference": "highest", "mining.absolute_margin": 0.2},
    "calibrated": {"mining.target_discard_rate": 0.6},
    "off": {"mining.relative_margin": "off", "mining.near_duplicate": 0.9, "mining.positive_quantile": 0.9},
    "much random": {"training.random_fraction": 8.0, "training.random_popularity": 1.0},
    "learned τ": {"training.learn_temperature": True, "training.temperature": 0.05},
    "τ 0.1": {"training.temperature": 0.1},
    "few steps": {"training.max_steps": 10, "training.epochs": 1000},
    "few uses": {"mining.max_uses": 2},
    "long name": {"name": "n" * 100},
    "half for dev": {"data.dev_fraction": 0.45},
    "teacher": TEACHER | {"mining.teacher.max_score": 0.1, "mining.teacher.relative_margin": "off"},
    "teacher reads few": TEACHER | {"mining.teacher.depth": 32},
    "limits": {"mining.skip_first": 1, "mining.min_score": -1.0, "mining.max_score": 1.0},
    "templates": {"data.item_text": "{title} by {author} | {genres} | {text}", "data.query_text": "{genres}: {text}"},
    "most rounds": {"rounds.mined": 100},
    "decayed": {"training.weight_decay": 0.5, "training.gradient_clipping": 0.0},
}
"""Settings of runs of all kinds, and at the ends of what may be set."""


def written(folder: Path, changes: dict[str, Any]) -> Path:
    """A configuration file with some settings."""
    from tests.jobs.conftest import as_toml

    values: dict[str, Any] = {"name": "shop", "output": "runs", "data": {"folder": "beir"}, "encoder": {"kind": "static"}}
    for key, value in changes.items():
        *above, name = key.split(".")
        place = values
        for part in above[:1]:
            place = place.setdefault(part, {})
        for part in above[1:]:
            place = place.setdefault(part, {})
        place[name] = value
    path = folder / "shop.toml"
    path.write_text(as_toml(values))
    return path


def told(path: Path, **more: Any) -> Evidence:
    """What a diagnosis knows of a run that was started with a file."""
    config = load_config(path)
    values = dict(_flat(config.model_dump())) | {"model positions": 512, "run": "runs/shop"}
    return Evidence([], settings=values, config=(str(path),), items=400, training_queries=1000, **more)


def proposals(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """(who speaks, what it says) of everything that works from what a run was told."""
    yield "harder", harder_negatives(evidence, "mined")
    for starved in (True, False):
        yield "false", fewer_false_negatives(evidence, starved=starved)
    yield "τ", usual_temperature(evidence)
    yield "slower", slower(evidence, "slower", 1e-3, 10)
    yield "slower", slower(evidence, "slower", float("nan"), 10)
    yield "shorter", shorter(evidence, 1e-3, epochs=1)
    yield "capacity", more_capacity(evidence)
    for done in (0, 1, 3):
        yield "steps", more_steps(evidence, 3, 40, epochs_done=done)
    yield "dev", more_dev(evidence, 20, 50)
    yield "round", another_round(evidence)
    yield "settings", other_settings(evidence)
    for name in FILTERS:
        yield f"filter {name}", command_for_filter(evidence, name)


def commands(text: str) -> list[list[str]]:
    """The commands in a proposal, as words."""
    return [shlex.split(part) for part in re.findall(r"hardmine (?:run|sweep|gate|report|diagnose|probe) .*$", text)]


@functools.cache
def known_settings() -> set[str]:
    """What a proposal may name."""
    return {setting.key.replace("[]", "").replace("NAME", "synthetic") for setting in all_settings()} | {
        "mining.rules",
        "mining.teacher",
        "mining.sources",
    }


@functools.cache  # most illnesses get the same few proposals, and each has a configuration to load
def check(text: str, path: Path) -> None:
    """A proposal's commands are of settings that exist and differ, and load."""
    before = dict(_flat(load_config(path).model_dump()))
    for words in commands(text):
        assert words[2] == str(path)
        overrides = words[3:]
        config = load_config(path, overrides)
        after = dict(_flat(config.model_dump()))
        for key in set_by_user(path, overrides).keys() & {override.partition("=")[0] for override in overrides}:
            assert before.get(key) != after.get(key), f"{text}: {key} is set already"
    for key in re.findall(r"\b(?:data|encoder|rounds|mining|training|evaluation|cluster)\.[a-z_.0-9]*[a-z0-9]", text):
        assert key in known_settings(), f"{text}: {key} is no setting"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dev_is_cut", [True, False])
def test_every_proposal_is_of_a_setting_that_exists_and_differs_and_a_run_accepts_it(
    tmp_path: Path, name: str, dev_is_cut: bool
) -> None:
    path = written(tmp_path, CONFIGS[name])
    for speaker, text in proposals(told(path, dev_is_cut=dev_is_cut)):
        assert text, speaker
        check(text, path)


def test_a_dev_fraction_is_proposed_only_where_dev_is_cut_from_the_training_queries(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    assert "data.dev_fraction=" not in more_dev(told(path), 20, 50)
    assert "label more dev queries" in more_dev(told(path), 20, 50)
    assert "data.dev_fraction=0.07" not in more_dev(told(path, dev_is_cut=True), 900, 50), "more than there is already"
    few = Evidence([], settings=told(path).settings, config=("shop.toml",), training_queries=200, dev_is_cut=True)
    assert "data.dev_fraction=0.3" in more_dev(few, 20, 50)


def test_a_training_that_stopped_early_gets_smaller_batches_and_no_more_epochs(tmp_path: Path) -> None:
    path = written(tmp_path, {"training.epochs": 5})
    assert more_steps(told(path), 32, 40, epochs_done=5).endswith(" training.epochs=7")
    assert more_steps(told(path), 32, 40, epochs_done=4).endswith(" training.batch_size=25")
    small = written(tmp_path, {"training.epochs": 5, "training.batch_size": 8})
    assert more_steps(told(small), 32, 40, epochs_done=4).endswith(" training.patience=5")


def test_a_longer_text_is_not_proposed_where_the_model_has_no_more_positions(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIGS["all positions"])
    assert "encoder.max_length" not in more_capacity(told(path))
    assert "larger encoder.model" in more_capacity(told(path))


def test_a_column_is_taken_out_of_the_templates_that_have_it_and_of_no_other(tmp_path: Path) -> None:
    evidence = told(written(tmp_path, CONFIGS["templates"]))
    assert without_field(evidence, "genres") == {"data.item_text": "{title} by {author} | {text}", "data.query_text": "{text}"}
    assert without_field(evidence, "author") == {"data.item_text": "{title} | {genres} | {text}"}
    assert without_field(evidence, "shelf") == {}, "no template has it"


def test_without_a_file_of_the_run_no_file_is_made_up() -> None:
    evidence = Evidence([], settings={"training.temperature": 0.5})
    assert usual_temperature(evidence) == "set training.temperature=0.05, under another name"
    assert not [text for _, text in proposals(evidence) if "hardmine run" in text or ".toml" in text]


def test_what_is_raised_is_raised_to_the_settings_own_limits() -> None:
    limits = {
        setting.key: float(found.group(1)) for setting in all_settings() if (found := re.search(r"≤ ([\d.]+)", setting.type))
    }
    assert VALIDATED == VALIDATION_QUERIES
    assert {key: limits[key] for key in MOST} == {key: float(value) for key, value in MOST.items()}


DIRECTION = {"lower": -1, "remove": -1, "raise": 1}


def turns(text: str, before: dict[str, Any]) -> dict[str, float]:
    """Setting -> which way a text turns it: 1 up, -1 down; a value that is no number counts as itself."""
    found: dict[str, Any] = {}
    for verb, key in re.findall(r"\b(raise|lower|remove) ((?:mining|training|data|rounds|encoder)\.[a-z_.]*[a-z])", text):
        found[key] = DIRECTION[verb]
    for words in commands(text):
        for word in words[3:]:
            key, _, value = word.partition("=")
            try:
                found[key] = 1 if float(value) > float(before[key]) else -1
            except (TypeError, ValueError, KeyError):
                found[key] = value
    return found


ILL: tuple[dict[str, Any], ...] = (
    {"positive_probability": 0.95},
    {"positive_probability": 0.3, "above_hard": 0.3, "previous": (-0.05, -0.08, -0.02)},
    {"mining": {"hit_rate": 0.03, "dropped": {"relative_margin": 9_000}}},
    {
        "mining": {"hit_rate": 0.03, "dropped": {"relative_margin": 9_000}},
        "above_hard": 0.3,
        "positive_probability": 0.3,
        "previous": (-0.05, -0.08, -0.02),
    },
    {"mean_pairwise_cosine": 0.95},
    {"temperature": 0.5, "hardest_weight": 0.01, "effective_negatives": 150.0, "loss": (5.0, 4.9)},
    {"temperature": 0.01, "hardest_weight": 0.9},
    {"validation": (0.5, 0.6, 0.5, 0.45), "loss": (2.0, 0.5)},
    {"general": (-0.05, -0.08, -0.02)},
    {"results": {"popularity": 0.9, "relevant_popularity": 0.5, "coverage": 0.2}, "before": {"popularity": 0.5, "coverage": 0.9}},
    {"leakage": {"genres": {"positives": 0.99, "random": 0.01, "pairs": 900}}},
    {"slices": [("synthetic", (0.2, 0.15, 0.25), 90), ("click", (0.0, -0.02, 0.02), 90)]},
    {"steps": 10},
    {"queries": 10},
    {"previous": (0.0, -0.005, 0.005), "loss": (2.0, 1.9)},
    {"previous": (0.0, -0.04, 0.04)},
)
"""What may be wrong, one thing or several at a time."""


@pytest.mark.parametrize("name", CONFIGS)
def test_all_that_is_said_of_one_run_turns_a_setting_one_way(tmp_path: Path, make: Callable[..., Evidence], name: str) -> None:  # noqa: F811
    path = written(tmp_path, CONFIGS[name])
    base, names = told(path), set()
    before = dict(_flat(load_config(path).model_dump()))
    for ill in ILL:
        for rival in (None, (0.05, 0.02, 0.08)):
            made = make(**ill, against_mined=rival)
            evidence = Evidence(
                made.arms,
                baseline=made.baseline,
                general=made.general,
                leakage=made.leakage,
                settings=base.settings,
                config=base.config,
                items=base.items,
                training_queries=base.training_queries,
            )
            findings = diagnose(evidence)
            names |= {finding.name for finding in findings}
            said: dict[str, Any] = {}
            for finding in findings:
                if not finding.next.startswith(("hardmine gate", "hardmine report")):
                    check(finding.next, path)
                for key, way in turns(finding.next, before).items():
                    if key != "name":
                        assert said.setdefault(key, way) == way, f"{key} is turned both ways: {[f.next for f in findings]}"
    assert len(names) > 10, "the cases show most illnesses"


def test_the_advice_of_a_mining_and_of_a_diagnosis_turn_a_filter_the_same_way(tmp_path: Path) -> None:
    for name, changes in CONFIGS.items():
        path = written(tmp_path, changes)
        config = load_config(path)
        before = dict(_flat(config.model_dump()))
        for filtered in FILTERS:
            if filtered.startswith("rule"):
                continue
            of_mining = turns("; ".join(cures(filtered, config.mining, num_items=400)), before)
            of_diagnosis = turns(command_for_filter(told(path), filtered), before)
            for key in of_mining.keys() & of_diagnosis.keys():
                assert of_mining[key] == of_diagnosis[key], (name, filtered, key)


CODE_IN_TEXTS = {"training/encoders/sequence.py", "jobs/stages/finish/model_card.py", "jobs/record/usage.py"}
"""They hold code for users."""


@functools.cache
def literals() -> list[tuple[str, str]]:
    """(file, text) of every string in the code that stands alone in no line, as docstrings do."""
    texts = []
    for folder in ("jobs", "mining", "training", "eval", "cluster"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
                    texts.append((str(path.relative_to(ROOT)), node.value))
    return texts


def test_every_setting_that_a_message_names_exists() -> None:
    names = {setting.key.replace("[]", "").replace(".NAME", "") for setting in all_settings()}
    names |= {".".join(key.split(".")[:depth]) for key in names for depth in (1, 2, 3)}
    sections = "data|encoder|rounds|mining|training|evaluation|storage|probe|sweep"
    named = re.compile(rf"(?<![\w./-])(?:{sections})\.[a-z_][a-z_0-9]*(?:\.[a-z_][a-z_0-9]*)*(?![\w(/])")
    seen = set()
    for file, text in literals():
        for key in named.findall(text) if file not in CODE_IN_TEXTS else ():
            own_key = key.startswith(("data.columns.", "training.label_sources.synthetic.")) or key == "evaluation.gate.key"
            is_file = key.endswith((".json", ".toml", ".py", ".md", ".parquet")) or (ROOT / key.replace(".", "/")).is_dir()
            assert key in names or own_key or is_file, f"{file} names {key}, which is no setting"
            seen.add(key)
    assert len(seen) > 80, "it finds what it looks for"


def test_every_command_that_a_message_names_exists_with_its_options() -> None:
    command = typer.main.get_command(app)
    known = command.commands  # type: ignore[attr-defined]
    for file, text in literals():
        for name, rest in re.findall(r"`hardmine ([a-z][a-z-]+)([^`]*)`", text):
            assert name in known, f"{file}: {text!r} names `hardmine {name}`"
            options = {option for parameter in known[name].params for option in getattr(parameter, "opts", [])}
            for option in re.findall(r"--[a-z-]+", rest):
                assert option in options | {"--help"}, f"{file}: {text!r} names {option}"


def test_the_settings_tree_is_the_configurations_own() -> None:
    assert {setting.key.partition(".")[0] for setting in all_settings()} == set(Config.model_fields)
