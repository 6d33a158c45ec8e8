"""Several findings may hold: causes come first, what they alone bring about is left out, and "healthy" must be earned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eval.diagnosis.evidence import Evidence
from eval.diagnosis.rank import diagnose

Make = Callable[..., Evidence]
DOWN = (-0.04, -0.07, -0.01)


def names(evidence: Evidence, arm: str = "mined") -> list[str]:
    return [finding.name for finding in diagnose(evidence) if finding.arm == arm]


def test_a_healthy_run_is_called_healthy_with_its_vital_signs(make: Make) -> None:
    [found] = diagnose(make())
    assert (found.name, found.severity) == ("healthy", "note")
    assert {"gradient left", "effective_negatives", "loss", "recall@3"} <= {figure.figure for figure in found.evidence}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 20}, "20 steps"),
        ({"positive_probability": None}, "probability of the positive"),
        ({"queries": 10}, "not measured"),
    ],
)
def test_too_little_evidence_is_said_and_not_called_healthy(change: dict[str, object], word: str, make: Make) -> None:
    [found] = diagnose(make(**change))
    assert found.name == "not_enough_evidence"
    assert word in found.summary
    assert found.next


def test_a_fall_that_nothing_explains_is_not_called_healthy(make: Make) -> None:
    [found] = diagnose(make(previous=DOWN))
    assert (found.name, found.severity) == ("not_enough_evidence", "warning")
    assert "fell beyond doubt" in found.summary


def test_illnesses_are_named_even_where_health_could_not_be(make: Make) -> None:
    assert names(make(queries=10, mean_pairwise_cosine=0.99)) == ["collapse"]


def test_a_cause_leaves_out_what_it_alone_brings_about(make: Make) -> None:
    still: dict[str, Any] = {"loss": (3.85, 3.8), "previous": (0.0, -0.01, 0.01), "against_mined": (0.0, -0.01, 0.01)}
    assert names(make(**still)) == ["capacity_plateau"]
    assert names(make(**still, temperature=0.5, effective_negatives=150.0, hardest_weight=0.02)) == ["temperature_too_soft"]
    easy = {"positive_probability": 0.97, "previous": (0.0, -0.01, 0.01)}
    assert names(make(**easy)) == ["negatives_too_easy"]
    assert names(make(**easy, mining={"hit_rate": 0.01})) == ["low_hit_rate"]


def test_a_rate_that_throws_the_model_off_explains_the_negatives_above_the_positive(make: Make) -> None:
    thrown: dict[str, Any] = {"previous": DOWN, "above_hard": 0.15, "positive_probability": 0.2, "validation": (0.1, 0.15, 0.2)}
    assert names(make(**thrown)) == ["negatives_too_hard_or_false"]
    assert names(make(**thrown, above_random=0.04)) == ["learning_rate_too_high"]


def test_a_model_that_learns_by_heart_is_not_told_to_grow(make: Make) -> None:
    still: dict[str, Any] = {"loss": (2.0, 1.0), "previous": (-0.01, -0.02, 0.01), "recall": 0.19}
    assert names(make(**still | {"loss": (2.0, 1.5)})) == ["capacity_plateau"]
    assert names(make(**still)) == ["overfitting"]


def test_several_illnesses_are_ranked_by_severity(make: Make) -> None:
    evidence = make(validation=(0.5, 0.6, 0.5, 0.4), general=(-0.1, -0.12, -0.08), mining={"hit_rate": 0.01})
    assert names(evidence) == ["forgetting", "overfitting", "low_hit_rate"]


def test_each_arm_is_judged_by_itself(make: Make) -> None:
    mined = make().arms[0]
    random = make(arm="random", positive_probability=0.97, validation=(0.5, 0.6, 0.6, 0.6)).arms[0]
    both = replace(make(), arms=[mined, random])
    assert (names(both), names(both, "random")) == (["healthy"], ["negatives_too_easy"])
    # worst first, whatever the arm
    assert [finding.name for finding in diagnose(both)] == ["negatives_too_easy", "healthy"]


def test_results_are_charged_to_the_arm_that_would_be_shipped(make: Make) -> None:
    evidence = make(general=DOWN)
    assert names(replace(evidence, arms=[evidence.arms[0], make(arm="random").arms[0]]), "random") == ["healthy"]


def test_nothing_trained_is_nothing_to_say() -> None:
    assert diagnose(Evidence([])) == []


def test_findings_are_plain_json(make: Make) -> None:
    [found] = diagnose(make(mean_pairwise_cosine=0.99))
    value = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert set(value) == {"name", "arm", "severity", "evidence", "next", "summary"}
    assert set(value["evidence"][0]) == {"figure", "value", "threshold", "where", "text"}
    assert value["evidence"][0] | {"where": "", "text": ""} == {
        "figure": "mean_pairwise_cosine",
        "value": 0.99,
        "threshold": 0.9,
        "where": "",
        "text": "",
    }


@pytest.mark.parametrize("probability", [0.6, 0.97])
@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_said_of_the_mined_negatives_of_an_arm_that_has_none(make: Make, probability: float, both: bool) -> None:
    nothing = {"above_hard": 0.0, "gradient_share_hard": 0.0, "dead_hard": 0.0, "cosine_hard": 0.0}
    random = make(arm="random", positive_probability=probability, validation=(0.5, 0.6, 0.6, 0.6), **nothing)
    evidence = replace(random, arms=[make().arms[0], random.arms[0]]) if both else random
    for finding in diagnose(evidence):
        said = [figure.text for figure in finding.evidence if "mined" in figure.text]
        if finding.arm == "random":
            assert all("for comparison" in text for text in said), said
