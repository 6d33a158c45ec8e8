"""What a finding proposes: changes of what the run was told, never of what it did not tell."""

from __future__ import annotations

import math

import pytest

from eval.diagnosis.commands import Turn, run_command
from eval.diagnosis.evidence import Evidence
from eval.diagnosis.experiments import fewer_false_negatives, harder_negatives, more_capacity, shorter, slower, usual_temperature
from eval.diagnosis.filters import command_for_filter


def told(**settings: float | str | bool) -> Evidence:
    return Evidence(
        [], config=("run.toml",), settings={"name": "run"} | {key.replace("__", "."): value for key, value in settings.items()}
    )


def test_a_command_leaves_out_what_is_set_already() -> None:
    evidence = told(training__temperature=0.05, training__epochs=4)
    changes = {"training.temperature": 0.05, "training.epochs": 2}
    assert run_command(evidence, "x", changes) == "hardmine run run.toml name=run-x training.epochs=2"
    assert run_command(evidence, "x", {"training.epochs": 4}, otherwise="look elsewhere") == "look elsewhere"
    assert "training.epochs" in run_command(evidence, "x", {"training.epochs": 4})


def test_off_is_set_where_a_section_is_told_without_it() -> None:
    off = {"mining.relative_margin": "off"}
    assert "relative_margin=off" in run_command(told(mining__relative_margin=0.1), "x", off)
    assert "relative_margin=off" in run_command(told(), "x", off)
    assert "hardmine" not in run_command(told(mining__num_hits=100), "x", off)


def test_a_setting_that_is_not_known_is_turned_in_words() -> None:
    assert run_command(told(), "x", {"mining.num_hits": Turn("raise")}) == (
        "raise mining.num_hits, then: hardmine run run.toml name=run-x"
    )
    for text in (
        harder_negatives(told(), "mined"),
        more_capacity(told(encoder__kind="static")),
        command_for_filter(told(), "relative_margin"),
        fewer_false_negatives(told(), starved=False),
        slower(told(), "slower", math.nan, 10),
    ):
        assert text.startswith(("raise ", "lower ")), text
        assert ", then: hardmine run run.toml name=run-" in text


def test_a_learned_temperature_is_no_longer_learned() -> None:
    assert usual_temperature(told(training__temperature=0.05, training__learn_temperature=True)) == (
        "hardmine run run.toml name=run-tau-0.05 training.learn_temperature=false"
    )


def test_one_epoch_is_made_gentler_and_several_are_made_fewer() -> None:
    assert shorter(told(training__epochs=4), 1e-3, epochs=1).endswith("training.epochs=1 training.weight_decay=0.1")
    one = shorter(told(training__epochs=1, training__weight_decay=0.1), 3e-3, epochs=1)
    assert one == "hardmine run run.toml name=run-gentler training.learning_rate=0.001"


def test_gradients_that_are_not_clipped_are_clipped() -> None:
    assert "training.gradient_clipping=1" in slower(told(training__gradient_clipping=0.0), "slower", 1.0, 10)
    assert "clipping" not in slower(told(training__gradient_clipping=1.0), "slower", 1.0, 10)


@pytest.mark.parametrize(
    ("kind", "setting", "value", "change"),
    [
        ("adapter", "encoder.hidden", 512, "encoder.hidden=1024"),
        ("static", "encoder.dimension", 128, "encoder.dimension=256"),
        ("transformer", "training.lora.rank", 8, "training.lora.rank=32"),
        ("transformer", "encoder.max_length", 64, "encoder.max_length=128"),
        ("transformer", "encoder.model", "small", "choose a larger encoder.model"),
    ],
)
def test_more_capacity_fits_the_encoder(kind: str, setting: str, value: float | str, change: str) -> None:
    text = more_capacity(Evidence([], config=("run.toml",), settings={"name": "run", "encoder.kind": kind, setting: value}))
    assert change in text
    assert "hardmine run run.toml name=run-" in text
