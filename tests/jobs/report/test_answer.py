"""The first screen says what the figures say, and no more."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from jobs.report.answer import answer, interval_text, p_text, state


def interval(mean: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "queries": 100} | more


@pytest.mark.parametrize(
    ("found", "metric", "want"),
    [
        (interval(0.1, 0.05, 0.15), "recall@3", "better"),
        (interval(0.1, -0.01, 0.2), "recall@3", "open"),
        (interval(-0.1, -0.2, -0.05), "recall@3", "worse"),
        (interval(-0.1, -0.2, -0.05), "bad_top1", "better"),
        (interval(0.1, 0.05, 0.15, significant=False, p_adjusted=0.08), "recall@3", "open"),
        (interval(0.1, 0.05, 0.15, significant=True), "bad_top1", "worse"),
        (interval(0.0, 0.0, 0.0), "recall@3", "open"),
        (None, "recall@3", "open"),
    ],
)
def test_only_a_significant_difference_has_a_verdict(found: Any, metric: str, want: str) -> None:
    assert state(found, metric) == want


def with_primary(report: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(report)
    model = next(model for model in changed["models"] if model["name"] == changed["best"])
    model["against_baseline"]["recall@3"] = found
    return changed


def test_a_proven_gain_is_told_with_its_interval(report: dict[str, Any]) -> None:
    got = answer(with_primary(report, interval(0.1, 0.05, 0.15, significant=True, p_adjusted=0.0004)))
    assert got["headline"].startswith("Yes, it got better: Recall@3 ")
    assert got["certainty"] == (
        "95% interval of the difference: +5.0 to +15.0 points, over 100 dev queries; p < 0.001 (paired permutation test)."
    )
    assert any("was chosen on these queries" in note for note in got["notes"])


def test_equal_texts_are_told_with_their_counts(report: dict[str, Any]) -> None:
    assert not any("text" in note for note in answer(report)["notes"])
    changed = copy.deepcopy(report)
    changed["data"]["equal_texts"] = {
        "queries": 5,
        "across_splits": {"train": 3, "dev": 2},
        "queries_that_are_items": 0,
        "queries_that_look_for_themselves": 0,
        "unlike_queries": None,
        "unlike_items": None,
        "items": 4,
        "copies_of_relevant_items": 1,
    }
    model = next(model for model in changed["models"] if model["name"] == changed["best"])
    model["equal_texts"] = {"queries_with_copies": 7, "first_hits_of_own_text": 6}
    notes = answer(changed)["notes"]
    assert any(note.startswith("Queries with one text are in two splits (3 of train, 2 of dev)") for note in notes)
    assert any("with another one: 5;" in note for note in notes)
    assert any("hits of 7 queries were unlabelled copies" in note for note in notes)
    assert any("first hit of 6 queries is an item with the query's own text" in note for note in notes)


def test_no_better_without_significance(report: dict[str, Any]) -> None:
    got = answer(with_primary(report, interval(0.1, -0.01, 0.2, significant=False)) | {"gate": None})
    assert got["headline"].startswith("Not proven: ")
    assert got["ship"] == "Do not ship: there is no proven gain."
    assert "better" not in got["headline"]


def with_gate(report: dict[str, Any], passed: bool | None, *outcomes: str, **more: Any) -> dict[str, Any]:
    names = ("gain:recall@3", "added_latency_ms", "gini")
    return report | {
        "gate": {"passed": passed, "checks": [{"name": n, "outcome": o} for n, o in zip(names, outcomes, strict=True)]} | more
    }


def test_the_gate_decides_where_there_is_one(report: dict[str, Any]) -> None:
    better = with_primary(report, interval(0.1, 0.05, 0.15, significant=True))
    assert answer(with_gate(better, False, "failed", "not checked", "passed"))["ship"] == (
        "Do not ship yet: 1 of 3 gate checks failed (gain:recall@3)."
    )
    got = answer(with_gate(better, True, "passed", "not checked", "passed"))
    assert (got["ship_state"], got["ship"]) == ("better", "Ship it: no check of the gate failed (2 passed, 1 not checked).")
    got = answer(with_gate(better, None, "passed", "inconclusive", "passed"))
    assert (got["ship_state"], got["ship"]) == (
        "open",
        "Your decision: no check of the gate failed (2 passed, 1 inconclusive), but added_latency_ms may be chance.",
    )


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("passed", [True, None])
@pytest.mark.parametrize("mean", [0.1, -0.1])
def test_no_yes_below_a_headline_that_does_not_say_better(
    report: dict[str, Any], passed: bool | None, pending: bool, mean: float
) -> None:
    for significant in (False, True):
        found = interval(mean, mean - 0.05, mean + 0.05, significant=significant, p_adjusted=0.26)
        outcomes = ("passed", "inconclusive" if passed is None else "passed", "passed")
        got = answer(with_gate(with_primary(report, found), passed, *outcomes, latency_pending=pending))
        may = mean > 0 and significant and passed is True and not pending
        assert got["ship"].startswith("Ship it") == may == (got["ship_state"] == "better")
        assert got["headline"].startswith("Yes") == (mean > 0 and significant)


def test_a_gain_in_doubt_is_your_decision_though_the_gate_lets_it_pass(report: dict[str, Any]) -> None:
    # two real runs: Recall@3 +2.5 points [0.0, +5.8], p = 0.26, and +0.2 [-2.9, +3.3], p = 1.00
    found = with_primary(report, interval(0.025, 0.0, 0.058, significant=False, p_adjusted=0.26))
    got = answer(with_gate(found, None, "inconclusive", "not checked", "passed"))
    assert got["headline"].startswith("Not proven: ")
    assert (got["ship_state"], got["ship"]) == (
        "open",
        "Your decision: no check of the gate failed (1 passed, 1 inconclusive, 1 not checked), but the gain in Recall@3 may be "
        "chance.",
    )


def test_a_time_that_the_gate_has_not_measured_yet_is_pending(report: dict[str, Any]) -> None:
    better = with_primary(report, interval(0.1, 0.05, 0.15, significant=True))
    got = answer(with_gate(better, True, "passed", "not checked", "passed", latency_pending=True))
    assert got["ship_state"] == "open"
    assert got["ship"] == (
        "Not decided yet: no check of the gate failed (2 passed, 1 not checked), but query times are not measured yet:"
    )
    assert got["ship_command"] == f"hardmine gate {report['output']}"


def test_a_metric_that_lost_asks_for_care(report: dict[str, Any]) -> None:
    lost = with_primary(report, interval(0.1, 0.05, 0.15))
    next(model for model in lost["models"] if model["name"] == lost["best"])["against_baseline"]["ndcg@10"] = interval(
        -0.1, -0.2, -0.05
    )
    assert answer(lost | {"gate": None, "diagnosis": None})["ship"] == "Decide with care: NDCG@10 got worse."


def test_a_run_whose_start_was_best_says_so(report: dict[str, Any]) -> None:
    got = answer(report | {"best": "baseline"})
    assert got["headline"] == "No: no round had a higher Recall@3 than the off-the-shelf model, so that one is kept."


def test_a_run_without_figures_says_so(report: dict[str, Any]) -> None:
    got = answer(report | {"models": [], "best": None, "finished": False, "gate": None, "diagnosis": None})
    assert got["headline"] == "Nothing is measured yet."
    assert got["cards"] == []
    assert got["ship"] == "Not yet: the run is not finished."


def test_the_test_split_answers_where_it_was_looked_at(report: dict[str, Any]) -> None:
    metrics = {"recall@3": 0.5, "ndcg@10": 0.4}
    test = {
        "baseline": {"metrics": metrics, "against_baseline": None},
        "best": {
            "metrics": {"recall@3": 0.51, "ndcg@10": 0.41},
            "against_baseline": {"recall@3": interval(0.01, -0.02, 0.04, significant=False), "verdict": "flat"},
        },
    }
    got = answer(report | {"test": test})
    assert got["headline"] == "Not proven: Recall@3 0.500 → 0.510, +1.0 points, which may be chance."
    assert "test queries" in got["certainty"]


def test_mining_is_judged_against_the_random_arm_by_significance(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    arm = next(model for model in changed["models"] if model["arm"] == "random")
    arm["against_best"]["recall@3"] = interval(-0.02, -0.05, 0.01, significant=False)
    assert "not distinguishable from random ones over 40 steps: Recall@3 +2.0 points [−1.0, +5.0]" in answer(changed)["mining"]
    arm["against_best"]["recall@3"] = interval(-0.02, -0.03, -0.01, significant=True)
    assert "were better than random ones" in answer(changed)["mining"]


def test_too_few_steps_or_queries_give_no_verdict_about_mining(report: dict[str, Any]) -> None:
    for few, told in (
        ({"steps": 12}, "12 optimizer step(s), fewer than 40"),
        ({"queries": 7}, "7 evaluated queries, fewer than 50"),
    ):
        changed = copy.deepcopy(report)
        arm = next(model for model in changed["models"] if model["arm"] == "random")
        arm["against_best"]["recall@3"] = interval(-0.2, -0.3, -0.1, significant=True) | {"queries": few.get("queries", 100)}
        arm["steps"] = few.get("steps", 100)
        assert answer(changed)["mining"] == f"Cannot tell: {told}."


def test_a_difference_on_few_queries_says_that_it_is_not_to_be_relied_on(report: dict[str, Any]) -> None:
    few = interval(0.1, 0.05, 0.15, significant=True) | {"queries": 49}
    assert "too few to rely on: 49 evaluated queries, fewer than 50" in answer(with_primary(report, few))["certainty"]


def test_what_a_perfect_model_gets_stands_beside_the_figure(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    for model in changed["models"]:
        model["attainable"] = {"recall@3": 0.509}
    card = next(card for card in answer(changed)["cards"] if card["metric"] == "recall@3")
    assert card["attainable"] == 0.509


def test_numbers_read_as_in_the_field() -> None:
    assert interval_text(interval(0.034, -0.0002, 0.057)) == "+3.4 points [0.0, +5.7]"
    assert [p_text(p) for p in (0.0001, 0.032, 0.4)] == ["< 0.001", "= 0.032", "= 0.40"]
