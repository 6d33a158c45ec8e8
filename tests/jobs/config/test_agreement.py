"""Settings that contradict each other are refused with their numbers; settings without effect are warned about."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import ConfigError
from jobs.config.config import Config, parse_config
from jobs.config.without_effect import without_effect
from jobs.trials.probe import probe_config
from tests.support.configs import config_with


def config(**changes: Any) -> Config:
    """A configuration; `section__key` is a setting."""
    return config_with({key.replace("__", "."): value for key, value in changes.items()})


TEACHER = {"model": "organisation/name"}
OWN = {"kind": "reranker"}
SLICE = {"min_slice": 0.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mining__skip_first": 90}, ["skip_first = 90", "num_hits = 100", "at most 10", "num_negatives = 32"]),
        ({"mining__skip_first": 100}, ["skip_first = 100", "at most 0 candidates"]),
        ({"mining__sources": []}, ["mining.sources = []", "no source", 'kind = "model"']),
        ({"mining__sources": [{"kind": "bm25"}], "mining__skip_first": 90}, ["mining.sources", '"model" once', "found bm25"]),
        ({"mining__num_hits": 20}, ["num_negatives = 32", "num_hits = 20", "at least 128"]),
        ({"mining__min_score": 0.5, "mining__max_score": 0.4}, ["min_score = 0.5", "max_score = 0.4"]),
        ({"mining__teacher": TEACHER | {"depth": 8}}, ["teacher.depth = 8", "num_negatives = 32", "depth to 64"]),
        ({"mining__teacher": TEACHER | {"relative_margin": "off"}}, ["neither max_score nor relative_margin"]),
        (
            {"mining__teacher": TEACHER | {"relative_margin": "off", "relabel": 0.9}},
            ["teacher.relabel takes from what the teacher drops", "neither max_score nor relative_margin"],
        ),
        ({"mining__choose": "stratified"}, ['choose = "stratified"', "no [mining.teacher]"]),
        ({"mining__choose": "stratified", "mining__teacher": TEACHER, "mining__popularity": "sales"}, ["none at random"]),
        ({"training__distil": {}}, ["training.distil", "no [mining.teacher]"]),
        ({"mining__teacher": {"kind": "encoder"}}, ['kind = "encoder" needs mining.teacher.model', 'kind = "reranker"']),
        ({"mining__teacher": OWN}, ["the re-ranker that this run trains", "no [reranker]"]),
        ({"mining__teacher": OWN, "reranker": TEACHER, "rounds__mined": 1}, ["from round 2 on", "rounds.mined = 1"]),
        ({"mining__teacher": OWN, "reranker": TEACHER, "rounds__background": True}, ["rounds.background = true would do beside"]),
        ({"mining__teacher": OWN, "reranker": TEACHER | {"loss": "margin_mse"}}, ["learns from a teacher's scores"]),
        ({"reranker": TEACHER | {"kind": "late_interaction", "loss": "bce"}}, ['loss = "bce"', '"lambda", "listnet"']),
        (
            {"mining__rules": [{"column": "tags", "keep": "disjoint"}, {"column": "tags", "keep": "overlap"}]},
            ['"disjoint" and "overlap"', '"tags"'],
        ),
        (
            {"mining__rules": [{"column": "year", "keep": "different"}, {"column": "year", "keep": "equal"}]},
            ['"different" and "equal"', '"year"'],
        ),
        ({"mining__near_duplicate": 0}, ["near_duplicate", "greater than 0.5", "Default: only equal texts"]),
        ({"training__hard_negatives": 40}, ["hard_negatives = 40", "num_negatives = 32"]),
        ({"training__hard_negatives": 0}, ["hard_negatives = 0", "rounds.mined = 0"]),
        (
            {"training__hard_negatives": 0, "training__in_batch": False, "rounds__mined": 0},
            ["in_batch = false", "hard_negatives = 0", "no negatives at all"],
        ),
        ({"training__matryoshka": [64, 300]}, ["[64, 300]", "dimension = 256", "above 256"]),
        ({"rounds__mined": 0, "rounds__warmup_epochs": 0}, ["rounds.warmup_epochs = 0", "rounds.mined = 0"]),
        ({"rounds__mined": 0, "rounds__compare_random": True}, ["compare_random = true", "rounds.mined = 0"]),
        ({"rounds__merge": [50, 25]}, ["rounds.merge = [25, 50]", 'kind = "static" without encoder.model', "random weights"]),
        ({"encoder__kind": "sequence", "rounds__merge": [50]}, ["rounds.merge = [50]", 'kind = "sequence" starts with random']),
        ({"encoder__kind": "sequence", "data__mix": {"folder": "/m"}}, ["data.mix", 'found encoder.kind = "sequence"']),
        ({"rounds__mined": 0, "reranker": {"model": "/m"}}, ["[reranker]", "rounds.mined = 0", "1 or more"]),
        ({"encoder__kind": "sequence", "reranker": {"model": "/m"}}, ["[reranker]", 'kind = "sequence"', "history"]),
        ({"evaluation__gate": SLICE | {"slices": False}}, ["min_slice = 0.5", "evaluation.gate.slices = false"]),
        ({"evaluation__gate": SLICE, "evaluation__slices": []}, ["min_slice = 0.5", "evaluation.slices = []"]),
    ],
)
def test_a_contradiction_is_one_paragraph_with_its_numbers(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**changes)
    message = str(refused.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    "changes",
    [
        {"mining__skip_first": 68},
        {"mining__skip_first": 90, "mining__sources": [{"kind": "model"}, {"kind": "bm25"}]},
        {"mining__teacher": TEACHER | {"depth": 32}},
        {"mining__rules": [{"column": "tags", "keep": "disjoint"}, {"column": "year", "keep": "equal"}]},
        {"mining__near_duplicate": 0.98},
        {"training__hard_negatives": 40, "rounds__mined": 0},
        {"training__matryoshka": [64, 256]},
        {"mining__sources": [{"kind": "model"}, {"kind": "baseline"}], "rounds__mined": 1},
        {"evaluation__gate__metrics": {"mrr@10": {"min": 0.5, "max": 0.5}, "bad_top1": {"max": 0.1}}},
    ],
)
def test_what_just_fits_is_accepted_without_a_warning(changes: dict[str, Any]) -> None:
    assert without_effect(config(**changes)) == []


SOURCES = [{"kind": "model", "share": 1.0}, {"kind": "bm25", "share": 0.01}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training__hard_negatives": 1}, ["random_fraction = 0.25", "hard_negatives = 1", "to 1 for one"]),
        ({"training__margin": 0.3}, ["training.margin = 0.3", '"triplet"']),
        ({"mining__choice_temperature": 0.1}, ["choice_temperature = 0.1", 'choose = "top"', '"softmax"']),
        ({"mining__popularity_power": 1.0}, ["popularity_power = 1", "mining.popularity"]),
        (
            {"mining__target_discard_rate": 0.1, "mining__relative_margin": 0.2},
            ["relative_margin = 0.2", "target_discard_rate = 0.1"],
        ),
        ({"mining__relative_margin": "off", "mining__margin_reference": "lowest"}, ['"lowest"', "no margin is set"]),
        ({"mining__sources": SOURCES}, ['"bm25"', "0.01 of 1.01", "num_negatives = 32", "to 0.032 or more"]),
        (
            {"mining__sources": [{"kind": "model"}, {"kind": "earlier"}], "rounds__mined": 1},
            ['"earlier" gives nothing before round 2', "rounds.mined = 1"],
        ),
        (
            {"mining__sources": [{"kind": "model"}, {"kind": "baseline"}], "rounds__mined": 1, "rounds__warmup_epochs": 0},
            ['"baseline" gives nothing before round 2', "rounds.mined = 1"],
        ),
        ({"mining__teacher": TEACHER | {"depth": 200}}, ["depth = 200", "the 100 candidates"]),
        ({"encoder__repeats": True}, ["encoder.repeats", '"static"', '"sequence"']),
        ({"cluster__address": "auto", "cluster__cpus": 4}, ["cluster.cpus = 4", "cluster.address"]),
    ],
)
def test_a_setting_without_effect_is_a_warning(changes: dict[str, Any], words: list[str]) -> None:
    (warning,) = without_effect(config(**changes))
    assert [word for word in words if word not in warning] == [], warning


@pytest.mark.parametrize(
    "changes",
    [
        {"mining__teacher": TEACHER | {"relative_margin": "off", "weak_positive": 9}},
        {"mining__teacher": TEACHER | {"relative_margin": "off"}, "mining__choose": "stratified"},
        {"mining__teacher": TEACHER | {"relative_margin": "off"}, "training__distil": {"loss": "margin_mse"}},
    ],
)
def test_a_teacher_that_drops_nothing_may_do_something_else(changes: dict[str, Any]) -> None:
    assert config(**changes).mining.teacher is not None


def test_what_a_teacher_should_judge_is_not_dropped_before_it_reads() -> None:
    changes = {"mining__teacher": TEACHER | {"relabel": 0.9, "weak_positive": 20}}
    told = [text for text in without_effect(config(**changes)) if "nearest to the relevant items" in text]
    assert [text.split(" = ")[0] for text in told] == ["mining.teacher.relabel", "mining.teacher.weak_positive"]
    off = without_effect(config(**changes, mining__relative_margin="off"))
    assert not [text for text in off if "mining.teacher" in text]


def test_late_interaction_has_a_loss_of_its_own_unless_one_is_set() -> None:
    for own, want in (({}, "lambda"), ({"loss": "listnet"}, "listnet")):
        settings = config(reranker=TEACHER | {"kind": "late_interaction"} | own).reranker
        assert settings is not None
        assert settings.loss == want


def test_mining_alone_has_no_re_ranker_of_its_own_to_ask() -> None:
    values = config(mining__teacher=OWN, reranker=TEACHER).model_dump()
    with pytest.raises(ConfigError, match="without --round trains nothing"):
        parse_config(values, source="test", trains=False)


def test_a_probe_of_a_run_that_trains_its_teacher_has_none() -> None:
    changes = {"mining__teacher": OWN, "mining__choose": "stratified", "reranker": TEACHER, "training__distil": {}}
    trial = probe_config(config(**changes))
    assert (trial.mining.teacher, trial.mining.choose, trial.training.distil, trial.reranker) == (None, "top", None, None)
