"""The policy of rounds and epochs, case by case."""

from __future__ import annotations

import math
import pickle
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.significance import Comparison, Interval
from eval.verdict import Decision, Verdict, decide, decide_epochs, verdict, verdicts_by_best


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0.01, 0.03, "improved"),
        (0.0, 0.03, "flat"),
        (-0.01, 0.03, "flat"),
        (-0.03, 0.0, "flat"),
        (0.0, 0.0, "flat"),
        (-0.03, -0.01, "worse"),
    ],
)
def test_verdict_needs_the_whole_interval_on_one_side_of_zero(low: float, high: float, want: Verdict) -> None:
    assert verdict(Interval((low + high) / 2, low, high, queries=100)) == want


def test_a_difference_that_was_tested_must_be_significant_too() -> None:
    above = Interval(0.02, 0.01, 0.03, queries=100)
    assert verdict(Comparison(above, p=0.001, p_adjusted=0.002, significant=True)) == "improved"
    assert verdict(Comparison(above, p=0.04, p_adjusted=0.2, significant=False)) == "flat"


@pytest.mark.parametrize(
    ("verdicts", "patience", "want"),
    [
        ([], 1, Decision.NEXT),
        (["improved"], 1, Decision.NEXT),
        (["flat"], 1, Decision.STOP_FLAT),
        (["flat"], 2, Decision.NEXT),
        (["flat", "flat"], 2, Decision.STOP_FLAT),
        (["flat", "improved", "flat"], 2, Decision.NEXT),
        (["flat", "flat", "improved"], 2, Decision.NEXT),
        (["worse"], 5, Decision.STOP_WORSE),
        (["improved", "worse"], 5, Decision.STOP_WORSE),
        (["worse", "improved"], 1, Decision.NEXT),
        (["worse", "flat"], 2, Decision.STOP_FLAT),
        (["worse", "flat"], 3, Decision.NEXT),
    ],
)
def test_decision_follows_the_newest_rounds(verdicts: list[Verdict], patience: int, want: Decision) -> None:
    assert decide(verdicts, patience=patience).decision is want


def test_reason_names_the_count_and_the_setting() -> None:
    assert decide(["flat", "flat"], patience=2).reason == (
        "No improvement in 2 rounds in a row (patience 2); the best round is kept."
    )
    assert "1 round in a row, fewer than patience 3" in decide(["flat"], patience=3).reason


@given(verdicts=st.lists(st.sampled_from(get_args(Verdict)), max_size=8), patience=st.integers(1, 8))
def test_only_an_improvement_or_patience_left_goes_on(verdicts: list[Verdict], patience: int) -> None:
    got = decide(verdicts, patience=patience)
    tail = verdicts[-patience:]
    exhausted = len(tail) == patience and "improved" not in tail
    assert (got.decision is Decision.NEXT) == (not exhausted and verdicts[-1:] != ["worse"])
    assert got.reason.endswith(".")


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1 round, found 0"):
        decide([], patience=0)
    with pytest.raises(ValueError, match="found 'better'"):
        decide(["better"], patience=1)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("recalls", "want"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.3], True),
        ([0.5, 0.5, 0.5], True),  # equal is no improvement
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.4, 0.6, 0.5, 0.55], True),
        ([0.1, 0.2, 0.3, 0.4], False),
        ([0.1, 0.1001, 0.1002, 0.1003], False),  # a slow climb goes on, however small its steps
        ([0.5, math.nan, math.nan], True),
        ([math.nan, 0.5, 0.4], False),
    ],
)
def test_training_stops_after_two_epochs_without_a_new_best(recalls: list[float], want: bool) -> None:
    assert decide_epochs(recalls, patience=2).stops is want


@given(recalls=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), max_size=9), patience=st.integers(1, 4))
def test_epochs_stop_by_the_same_function_as_rounds(recalls: list[float], patience: int) -> None:
    got = decide_epochs(recalls, patience=patience)
    assert got.decision is decide(verdicts_by_best(recalls), patience=patience).decision
    best, since = -math.inf, 0  # the slow reference
    for recall in recalls:
        best, since = (recall, 0) if recall > best else (best, since + 1)
    assert got.stops == (since >= patience)
    assert got.decision is not Decision.STOP_WORSE, "without an interval nothing is worse"


def test_the_policy_of_epochs_travels_to_workers_and_speaks_of_epochs() -> None:
    policy = pickle.loads(pickle.dumps(decide_epochs))
    assert policy([0.5, 0.4], patience=1).reason == "No improvement in 1 epoch in a row (patience 1); the best epoch is kept."
    with pytest.raises(ValueError, match="at least 1 epoch, found 0"):
        policy([0.5], patience=0)
