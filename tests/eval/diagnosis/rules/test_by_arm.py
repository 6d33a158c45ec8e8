"""Every rule fires on its illness, is silent just beside each of its thresholds, and silent where a figure is missing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eval.diagnosis.case import MIN_QUERIES, MIN_STEPS, Case
from eval.diagnosis.evidence import Arm, Evidence, Training
from eval.diagnosis.findings import Finding
from eval.diagnosis.rank import diagnose
from eval.diagnosis.rules.by_arm import GRADIENT_RULES, RESULT_RULES
from eval.diagnosis.rules.fit import COLLAPSE_COSINE, PLATEAU_GRADIENT, RATE_GRADIENT, RATE_RANDOM
from eval.diagnosis.rules.negatives import EASY_GRADIENT, FALSE_ABOVE, FALSE_GRADIENT
from eval.diagnosis.rules.temperature import MIN_NEGATIVES, SHARP_ALONE, SHARP_HARDEST, SHARP_TEMPERATURE, SOFT_EFFECTIVE

Make = Callable[..., Evidence]
RULES = {rule.__name__: rule for rule in (*GRADIENT_RULES, *RESULT_RULES)}
UP, FLAT, DOWN = (0.04, 0.01, 0.07), (0.0, -0.02, 0.02), (-0.04, -0.07, -0.01)

ILL: dict[str, dict[str, Any]] = {
    "negatives_too_easy": {"arm": "random", "positive_probability": 0.97, "previous": FLAT, "validation": (0.5, 0.6, 0.6, 0.605)},
    "negatives_too_hard_or_false": {"above_hard": 0.3, "previous": DOWN},
    "temperature_too_soft": {"temperature": 0.5, "loss": (5.0, 3.8), "effective_negatives": 150.0, "hardest_weight": 0.02},
    "temperature_too_sharp": {"temperature": 0.005, "hardest_weight": 0.5, "effective_negatives": 8.0, "previous": DOWN},
    "capacity_plateau": {"loss": (2.0, 1.5), "previous": FLAT, "against_mined": FLAT},
    "overfitting": {"validation": (0.5, 0.6, 0.5, 0.45)},
    "learning_rate_too_high": {
        "previous": DOWN,
        "above_random": 0.04,
        "positive_probability": 0.3,
        "validation": (0.1, 0.15, 0.2),
        "loss": (3.0, 1.5),
    },
    "collapse": {"mean_pairwise_cosine": 0.97},
    "forgetting": {"general": DOWN},
    "popularity_collapse": {"results": {"popularity": 0.9, "relevant_popularity": 0.6}, "before": {"popularity": 0.6}},
    "narrow_results": {"results": {"similarity": 0.95, "coverage": 0.1}, "before": {"similarity": 0.5, "coverage": 0.1}},
    "synthetic_drift": {"slices": [("synthetic", (0.1, 0.08, 0.12), 200), ("click", FLAT, 200)]},
    "metadata_leakage": {"leakage": {"shelf": {"positives": 0.9, "random": 0.05, "pairs": 500}}},
    "low_hit_rate": {"mining": {"hit_rate": 0.05, "dropped": {"relative_margin": 9000, "positive": 100}}},
}
BESIDE: list[tuple[str, dict[str, Any]]] = [
    ("negatives_too_easy", {"positive_probability": 1 - EASY_GRADIENT - 0.01}),
    ("negatives_too_easy", {"loss": (2.0, 1.95)}),
    ("negatives_too_easy", {"previous": UP, "validation": (0.5, 0.55, 0.6, 0.65)}),
    ("negatives_too_easy", {"recall": 0.96}),
    ("negatives_too_easy", {"recall": 0.5, "attainable": 0.51}),  # as good as a perfect model
    ("negatives_too_easy", {"steps": MIN_STEPS - 1}),
    ("negatives_too_easy", {"settings": {"training.loss": "triplet"}}),
    ("negatives_too_hard_or_false", {"above_hard": FALSE_ABOVE - 0.01}),
    ("negatives_too_hard_or_false", {"previous": FLAT, "positive_probability": 1 - FALSE_GRADIENT + 0.01}),
    ("negatives_too_hard_or_false", {"arm": "random"}),
    ("temperature_too_soft", {"temperature": 0.1}),
    ("temperature_too_soft", {"effective_negatives": 200 * SOFT_EFFECTIVE - 1}),
    ("temperature_too_soft", {"negatives_per_query": 4.0, "effective_negatives": 3.9, "loss": (1.0, 0.6)}),
    ("temperature_too_sharp", {"hardest_weight": SHARP_HARDEST - 0.01}),
    ("temperature_too_sharp", {"previous": UP}),
    ("temperature_too_sharp", {"previous": UP, "hardest_weight": SHARP_ALONE - 0.01}),
    ("temperature_too_sharp", {"previous": None, "hardest_weight": SHARP_ALONE - 0.01}),
    ("temperature_too_sharp", {"temperature": SHARP_TEMPERATURE + 0.001}),
    ("temperature_too_sharp", {"negatives_per_query": MIN_NEGATIVES - 1.0}),
    ("capacity_plateau", {"loss": (2.0, 0.1)}),
    ("capacity_plateau", {"previous": UP}),
    ("capacity_plateau", {"previous": (0.0, -0.06, 0.06)}),
    ("capacity_plateau", {"against_mined": DOWN}),
    ("capacity_plateau", {"against_mined": UP}),
    ("capacity_plateau", {"against_mined": (0.0, -0.06, 0.06)}),  # equal as far as is known, and little is known
    ("capacity_plateau", {"positive_probability": 1 - PLATEAU_GRADIENT + 0.01}),
    ("overfitting", {"validation": (0.5, 0.6, 0.59, 0.59)}),
    ("overfitting", {"validation": (0.5, 0.6, 0.45, 0.61)}),  # the last is best
    ("overfitting", {"validation": (0.5, 0.6, 0.45, 0.595)}),  # one bad validation is no fall
    ("overfitting", {"loss": (2.0, 2.0)}),
    ("overfitting", {"queries": 50, "validation": (0.5, 0.6, 0.57, 0.55)}),  # so few queries prove nothing
    ("overfitting", {"queries": 200, "validation": (0.5, 0.6, 0.57, 0.565)}),
    ("learning_rate_too_high", {"previous": FLAT}),
    ("learning_rate_too_high", {"above_random": RATE_RANDOM - 0.001}),
    ("learning_rate_too_high", {"positive_probability": 1 - RATE_GRADIENT + 0.01}),
    ("learning_rate_too_high", {"validation": (0.2, 0.2, 0.2)}),
    ("collapse", {"mean_pairwise_cosine": COLLAPSE_COSINE - 0.01}),
    ("forgetting", {"general": FLAT}),
    ("forgetting", {"general": (-0.005, -0.008, -0.002)}),
    ("forgetting", {"queries": MIN_QUERIES - 1}),
    ("popularity_collapse", {"results": {"popularity": 0.9, "relevant_popularity": 0.81}}),
    ("popularity_collapse", {"before": {"popularity": 0.88}}),
    ("narrow_results", {"results": {"similarity": 0.84, "coverage": 0.1}}),
    ("narrow_results", {"before": {"similarity": 0.93, "coverage": 0.1}}),
    ("synthetic_drift", {"slices": [("synthetic", (0.1, 0.08, 0.12), 200), ("click", UP, 200)]}),
    ("synthetic_drift", {"slices": [("synthetic", (0.1, 0.08, 0.12), 200), ("click", (0.05, -0.01, 0.1), 200)]}),
    ("synthetic_drift", {"slices": [("synthetic", (0.1, 0.08, 0.12), 200), ("click", FLAT, 20)]}),
    ("metadata_leakage", {"leakage": {"shelf": {"positives": 0.79, "random": 0.05, "pairs": 500}}}),
    ("metadata_leakage", {"leakage": {"shelf": {"positives": 0.9, "random": 0.5, "pairs": 500}}}),
    ("metadata_leakage", {"leakage": {"shelf": {"positives": 0.9, "random": 0.05, "pairs": 10}}}),
    ("low_hit_rate", {"mining": {"hit_rate": 0.11}}),
]
MISSING: list[tuple[str, dict[str, Any]]] = [
    ("negatives_too_easy", {"positive_probability": None}),
    ("negatives_too_easy", {"loss": None}),
    ("negatives_too_easy", {"previous": None, "validation": ()}),
    ("negatives_too_hard_or_false", {"above_hard": None}),
    ("temperature_too_soft", {"temperature": None}),
    ("temperature_too_soft", {"loss": None}),
    ("temperature_too_soft", {"negatives_per_query": None}),
    ("temperature_too_soft", {"effective_negatives": None}),
    ("temperature_too_sharp", {"temperature": None}),
    ("temperature_too_sharp", {"hardest_weight": None}),
    ("capacity_plateau", {"loss": None}),
    ("capacity_plateau", {"positive_probability": None}),
    ("capacity_plateau", {"previous": None}),
    ("overfitting", {"loss": None}),
    ("overfitting", {"validation": ()}),
    ("learning_rate_too_high", {"previous": None}),
    ("learning_rate_too_high", {"above_random": None}),
    ("learning_rate_too_high", {"positive_probability": None}),
    ("learning_rate_too_high", {"validation": (), "loss": None}),
    ("collapse", {"mean_pairwise_cosine": None}),
    ("forgetting", {"general": None}),
    ("popularity_collapse", {"results": None}),
    ("popularity_collapse", {"before": None}),
    ("narrow_results", {"results": None}),
    ("narrow_results", {"before": None}),
    ("synthetic_drift", {"slices": ()}),
    ("metadata_leakage", {"leakage": None}),
    ("low_hit_rate", {"mining": {"candidates": 0}}),
]


def rule_on(name: str, evidence: Evidence) -> Finding | None:
    return RULES[name](Case(evidence, evidence.arms[0]))


def test_every_rule_has_an_illness() -> None:
    assert RULES.keys() == ILL.keys()


@pytest.mark.parametrize("name", ILL)
def test_a_rule_fires_on_its_illness_and_says_why_and_what_next(name: str, make: Make) -> None:
    found = rule_on(name, make(**ILL[name]))
    assert found is not None
    assert found.name == name
    assert found.severity in ("critical", "warning")
    assert any(figure.threshold is not None for figure in found.evidence)
    assert all(figure.where and figure.text and np.isfinite(figure.value) for figure in found.evidence)
    assert "hardmine run run.toml name=run-" in found.next
    assert found.summary.endswith(".")


@pytest.mark.parametrize("name", ILL)
def test_a_healthy_run_has_no_illness(name: str, make: Make) -> None:
    assert rule_on(name, make()) is None


@pytest.mark.parametrize(("name", "change"), BESIDE)
def test_a_rule_is_silent_just_beside_its_threshold(name: str, change: dict[str, Any], make: Make) -> None:
    assert rule_on(name, make(**ILL[name])) is not None
    assert rule_on(name, make(**{**ILL[name], **change})) is None


@pytest.mark.parametrize(("name", "change"), MISSING)
def test_a_rule_is_silent_where_its_figures_are_missing(name: str, change: dict[str, Any], make: Make) -> None:
    assert rule_on(name, make(**{**ILL[name], **change})) is None


def test_a_rule_says_nothing_about_an_arm_that_was_not_trained(make: Make) -> None:
    bare = Evidence([Arm("mined")])
    assert all(rule(Case(bare, bare.arms[0])) is None for rule in RULES.values())
    empty = Evidence([Arm("mined", None, [Training("round-01", 1, {})])])
    assert all(rule(Case(empty, empty.arms[0])) is None for rule in RULES.values())


def test_early_steps_do_not_count(make: Make) -> None:
    evidence = make()
    training = evidence.arms[0].trainings[0]
    early = {**training.steps, "mean_pairwise_cosine": np.where(np.arange(200) < 150, 1.0, 0.1)}
    arm = Arm("mined", None, [Training("round-01", 1, early)], evidence.arms[0].measurements)
    assert rule_on("collapse", Evidence([arm])) is None


def test_easy_negatives_show_behind_the_mined_arm_too(make: Make) -> None:
    behind = {**ILL["negatives_too_easy"], "previous": UP, "validation": (0.5, 0.6), "against_mined": DOWN}
    found = rule_on("negatives_too_easy", make(**behind))
    assert found is not None
    assert any("last mined round" in figure.where for figure in found.evidence)
    assert rule_on("negatives_too_easy", make(**{**behind, "against_mined": FLAT})) is None


def test_a_loss_at_its_floor_is_as_good_as_one_that_falls(make: Make) -> None:
    assert rule_on("negatives_too_easy", make(**{**ILL["negatives_too_easy"], "loss": (0.05, 0.05)})) is not None


def test_false_negatives_without_harm_are_a_warning_and_with_harm_critical(make: Make) -> None:
    name = "negatives_too_hard_or_false"
    severities = [
        found.severity for previous in (FLAT, DOWN) if (found := rule_on(name, make(**{**ILL[name], "previous": previous})))
    ]
    assert severities == ["warning", "critical"]
    # many suspected candidates are a reason only where mining did harm
    assert rule_on(name, make(previous=DOWN, mining={"suspected": 2000})) is not None
    assert rule_on(name, make(previous=FLAT, mining={"suspected": 2000})) is None
    # random negatives beat the mined ones
    assert rule_on(name, make(above_hard=0.3, previous=FLAT, against_mined=UP)) is not None


def test_one_negative_that_carries_nearly_everything_is_too_sharp_even_where_recall_gained(make: Make) -> None:
    assert rule_on("temperature_too_sharp", make(temperature=0.01, hardest_weight=0.9, previous=UP)) is not None
    assert rule_on("temperature_too_sharp", make(temperature=0.05, hardest_weight=0.9, previous=DOWN)) is None


def test_without_a_random_arm_the_warm_up_is_the_contrast(make: Make) -> None:
    plateau = {**ILL["capacity_plateau"], "against_mined": None}
    assert rule_on("capacity_plateau", make(**plateau)) is not None
    assert rule_on("capacity_plateau", make(**plateau, arm="random")) is None


def test_results_in_a_narrow_cone_are_compared_with_random_items(make: Make) -> None:
    narrow = ILL["narrow_results"]
    assert rule_on("narrow_results", make(**narrow, scores={"random_p50": 0.8})) is None
    assert rule_on("narrow_results", make(**narrow, scores={"random_p50": 0.2})) is not None


def test_tags_in_a_querys_text_are_named(make: Make) -> None:
    found = rule_on("metadata_leakage", make(leakage={"text:author": {"positives": 0.9, "random": 0.01, "pairs": 500}}))
    assert found is not None
    assert "the item's author stand in the query's text" in found.evidence[0].text
    assert found.next.startswith("write queries as people do")


def test_narrow_results_show_in_coverage_too(make: Make) -> None:
    found = rule_on("narrow_results", make(results={"coverage": 0.05}, before={"coverage": 0.1}))
    assert found is not None
    assert rule_on("narrow_results", make(results={"coverage": 0.07}, before={"coverage": 0.1})) is None


def test_collapse_shows_in_the_scores_of_random_items_too(make: Make) -> None:
    assert rule_on("collapse", make(mean_pairwise_cosine=None, scores={"random_p50": 0.95})) is not None
    assert rule_on("collapse", make(mean_pairwise_cosine=None, scores={"random_p50": 0.2})) is None


TOLD: dict[str, Any] = {
    "encoder.kind": "static",
    "encoder.dimension": 128,
    "rounds.mined": 2,
    "training.temperature": 0.05,
    "training.epochs": 4,
    "training.weight_decay": 0.01,
    "training.hard_negatives": 7,
    "training.random_fraction": 0.25,
    "training.random_popularity": 0.0,
    "training.gradient_clipping": 0.0,
    "training.label_sources.synthetic.cap": 0.2,
    "mining.num_hits": 100,
    "mining.num_negatives": 8,
    "mining.skip_first": 4,
    "mining.relative_margin": 0.05,
    "mining.margin_reference": "mean",
}
"""What a run tells of itself."""


@pytest.mark.parametrize("name", ILL)
def test_whoever_follows_the_advice_is_never_told_to_set_what_is_set(name: str, make: Make) -> None:
    told = dict(TOLD)
    for _ in range(12):
        found = rule_on(name, make(**ILL[name] | {"settings": {**told, "run": "x"}, "learning_rate": 0.001}))
        assert found is not None
        assert found.next
        words = [
            word.partition("=")
            for word in shlex.split(found.next)
            if re.fullmatch(r"(training|mining|rounds|encoder)\..+=.+", word)
        ]
        for key, _, text in words:
            value = json.loads(text) if re.fullmatch(r"-?[\d.e-]+|true|false", text) else text
            assert told.get(key) != value, f"{key} is {value} already"
            told[key] = value
        told = {key: value for key, value in told.items() if value != "off"}  # as a run's settings tell it


@pytest.mark.parametrize("name", ILL)
def test_the_diagnosis_of_an_illness_names_it_first(name: str, make: Make) -> None:
    findings = diagnose(make(**ILL[name]))
    assert findings[0].name == name
    assert "healthy" not in [finding.name for finding in findings if finding.arm == findings[0].arm]
