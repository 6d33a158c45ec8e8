"""The round loop's policy, case by case."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.significance import Interval
from eval.verdict import Decision, Verdict, decide, verdict


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
