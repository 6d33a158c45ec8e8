"""The gate's checks on figures worked by hand: just above, just below, missing, unsure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from eval.diagnosis.evidence import Slice
from eval.gate.check import Check
from eval.gate.figures import GateFigures
from eval.gate.latency import Latency, compare_latency
from eval.gate.settings import GateSettings
from eval.gate.verdict import make_checks, passed, verdict
from eval.significance import Interval

OFF: dict[str, Any] = dict.fromkeys(
    ("min_gain", "max_added_ms", "max_added_p95", "max_popularity_gain", "min_coverage", "max_gini_gain", "max_forgetting"), "off"
) | {"slices": False}
"""Every check switched off."""


def only(**settings: Any) -> GateSettings:
    return GateSettings.model_validate(OFF | settings)


def near(mean: float, half: float = 0.0) -> Interval:
    return Interval(mean, mean - half, mean + half, 100)


def least(recall: float, **settings: Any) -> GateSettings:
    return only(metrics={"recall@3": {"min": recall}}, **settings)


def figures(**values: Any) -> GateFigures:
    return replace(GateFigures(primary="recall@3", metrics={}), **values)


def on(settings: GateSettings, found: GateFigures) -> list[Check]:
    """The checks that are not switched off, but for that of losses, which needs a comparison and has no switch."""
    checks = [check for check in make_checks(settings, found) if not str(check.why).endswith(" is off")]
    return [check for check in checks if check.name != "losses" or found.worse is not None]


def one(settings: GateSettings, found: GateFigures) -> Check:
    checks = on(settings, found)
    assert len(checks) == 1, [check.name for check in checks]
    return checks[0]


@pytest.mark.parametrize(("mean", "want"), [(0.7999, False), (0.8, True), (0.8 - 1e-12, True), (0.8001, True)])
def test_a_figure_passes_at_its_threshold_and_above(mean: float, want: bool) -> None:
    check = one(least(0.8), figures(metrics={"recall@3": near(mean)}))
    assert check.passed is want
    assert (check.name, check.value, check.threshold, check.uncertain) == ("recall@3:min", mean, 0.8, False)


@pytest.mark.parametrize(("mean", "want"), [(0.0799, True), (0.08, True), (0.0801, False)])
def test_bad_first_results_pass_at_their_threshold_and_below(mean: float, want: bool) -> None:
    check = one(only(metrics={"bad_top1": {"max": 0.08}}), figures(metrics={"bad_top1": near(mean)}))
    assert check.passed is want
    assert "(at most 8.0%)" in check.text


def test_the_defaults_are_a_gain_and_guards_and_the_absolute_bar_is_a_preset_beside_them() -> None:
    known = figures(
        gains={"recall@3": near(0.1)}, missing={"latency": "off", "results": "old", "slices": "old", "general": "none"}
    )
    found = {
        bar: {check.name: check.threshold for check in make_checks(GateSettings.model_validate({"bar": bar}), known)}
        for bar in ("gain", "mature_catalogue")
    }
    assert GateSettings().bar == "gain"
    assert found["mature_catalogue"] == {"recall@3": 0.80, "ndcg@10": 0.78, "bad_top1": 0.08} | found["gain"]
    assert found["gain"] == {
        "gain:recall@3": 0.0,
        "losses": 0.0,
        "added_latency_ms": 2.0,
        "added_latency_p95": 0.20,
        "popularity": 10.0,
        "coverage": 0.7,
        "gini": 15.0,
        "slices": 0.0,
        "general": -2.0,
    }


def test_a_figure_that_reaches_its_threshold_by_chance_is_inconclusive_and_may_be_made_to_fail() -> None:
    unsure = figures(metrics={"recall@3": near(0.81, 0.02)})
    check = one(least(0.8), unsure)
    assert (check.outcome, check.passed, check.uncertain) == ("inconclusive", None, True)
    assert "inconclusive, as the interval crosses the threshold" in check.text
    assert passed([check]) is None
    assert verdict([check]) == "your decision: 0 checks passed and none failed, but recall@3:min may be chance"
    strictly = one(least(0.8, require_significance=True), unsure)
    assert strictly.outcome == "failed"
    assert "require_significance" in strictly.text
    sure = one(least(0.8, require_significance=True), figures(metrics={"recall@3": near(0.83, 0.02)}))
    assert sure.outcome == "passed"
    failed = one(least(0.8), figures(metrics={"recall@3": near(0.79, 0.02)}))
    assert failed.outcome == "failed", "it does not reach what it has to"
    assert failed.uncertain, "a failure may be chance as well"


@pytest.mark.parametrize(
    ("low", "want"), [(-0.01, "inconclusive"), (0.0, "inconclusive"), (1e-13, "inconclusive"), (0.001, "passed")]
)
def test_an_interval_that_ends_on_the_threshold_crosses_it(low: float, want: str) -> None:
    gain = figures(gains={"recall@3": Interval(0.025, low, 0.058, 120)})
    assert one(only(min_gain=0.0), gain).outcome == want
    strictly = one(only(min_gain=0.0, require_significance=True), gain)
    assert strictly.outcome == ("passed" if want == "passed" else "failed")


def test_a_gain_that_is_not_significant_is_no_proof_whatever_its_interval() -> None:
    above = figures(gains={"recall@3": Interval(0.031, 0.006, 0.057, 120)}, not_significant={"recall@3": 0.074})
    check = one(only(min_gain=0.0), above)
    assert check.outcome == "inconclusive"
    assert "not significant (p = 0.074), so it may be chance" in check.text
    assert one(only(min_gain=0.0, require_significance=True), above).outcome == "failed"
    allowed = one(only(metrics={"recall@3": {"min_gain": -2.0}}), above)
    assert allowed.outcome == "passed", "a metric that may fall need not gain"
    assert one(only(min_gain=4.0), above).outcome == "failed"


def test_a_time_fails_only_where_the_whole_interval_is_beyond_the_threshold() -> None:
    # the reader's own machine: +7.58 ms [-47.64, +33.45], of a median of 122 ms
    def outcomes(added: Interval, increase: Interval) -> list[str]:
        latency = Latency(120, 129.0, 150.0, 122.0, 140.0, added, increase)
        return [check.outcome for check in on(only(max_added_ms=2.0, max_added_p95=0.2), figures(latency=latency))]

    noise = Interval(7.58, -47.64, 33.45, 120)
    assert outcomes(noise, Interval(0.07, -0.3, 0.4, 120)) == ["inconclusive", "inconclusive"]
    assert outcomes(Interval(7.58, 6.0, 9.0, 120), Interval(0.3, 0.25, 0.4, 120)) == ["failed", "failed"]
    assert outcomes(Interval(0.1, -0.2, 0.5, 120), Interval(0.0, -0.05, 0.1, 120)) == ["passed", "passed"]


def test_a_missing_figure_is_not_checked_for_a_reason_and_fails_when_strict() -> None:
    settings = {"max_added_ms": 2.0, "metrics": {"recall@3": {"min": 0.5}}}
    found = figures(metrics={"recall@3": near(0.6)}, worse=[], missing={"latency": "--no-latency was given"})
    recall, _, latency = on(only(**settings), found)
    assert recall.passed
    assert latency.passed is None
    assert latency.value is None
    assert "--no-latency was given" in latency.text
    assert passed([recall, latency])
    assert "not checked: added_latency_ms (--no-latency was given)" in verdict([recall, latency])
    strictly = on(only(**settings, strict=True), found)
    assert [check.passed for check in strictly] == [True, True, False]
    assert not passed(strictly)
    assert verdict(strictly).startswith("no: added_latency_ms was not checked")


def test_nothing_checked_is_no_pass() -> None:
    assert not passed([])
    assert verdict([]).startswith("no: nothing was checked")
    assert not passed(make_checks(only(max_added_ms=2.0), figures(missing={"latency": "none"})))


def test_gains_are_in_points_and_other_metrics_have_thresholds_of_their_own() -> None:
    settings = only(min_gain=3.0, metrics={"mrr@10": {"min": 0.5, "max": 0.9, "min_gain": 2.0}, "bad_top1": {"min_gain": 1.0}})
    found = figures(
        metrics={"mrr@10": near(0.6)},
        gains={"recall@3": near(0.029, 0.01), "mrr@10": near(0.05, 0.01), "bad_top1": near(-0.02, 0.001)},
    )
    checks = {check.name: check for check in on(settings, found)}
    assert {name: check.passed for name, check in checks.items()} == {
        "mrr@10:min": True,
        "mrr@10:max": True,
        "gain:recall@3": False,
        "gain:mrr@10": True,
        "gain:bad_top1": False,
    }
    assert checks["gain:recall@3"].value == pytest.approx(2.9)
    assert checks["gain:recall@3"].interval == Interval(pytest.approx(2.9), pytest.approx(1.9), pytest.approx(3.9), 100)
    assert checks["gain:mrr@10"].text == (
        "gain in MRR@10 over the off-the-shelf model: +5.0 points [+4.0, +6.0] (at least +2.0 points): passed"
    )


def test_a_threshold_above_what_a_perfect_model_gets_is_called_unreachable() -> None:
    known = figures(metrics={"recall@3": near(0.4)}, attainable={"recall@3": 0.509})
    check = one(least(0.8), known)
    assert check.as_json()["attainable"] == 0.509
    assert (
        "(the threshold is unreachable: a perfect model gets 0.509 on these queries, so ask for less, or for a gain)"
        in check.text
    )
    assert "unreachable" not in one(least(0.509), known).text, "a perfect model reaches it"
    most = one(only(metrics={"recall@3": {"max": 0.8}}), known)
    assert most.passed
    assert "unreachable" not in most.text


def test_a_gain_beyond_what_is_left_is_called_unreachable() -> None:
    known = figures(
        metrics={"recall@3": near(0.4), "bad_top1": near(0.3)},
        gains={"recall@3": near(0.1), "bad_top1": near(0.05)},
        attainable={"recall@3": 0.5, "bad_top1": 0.0},
        worse=[],
    )
    settings = {"min_gain": 21.0, "metrics": {"bad_top1": {"min_gain": 36.0}}}
    checks = {check.name: check for check in on(only(**settings), known)}
    # off the shelf 0.3 and 0.35: 20 points are left of 0.5, and 35 wrong first results in a hundred
    assert checks["gain:recall@3"].attainable == pytest.approx(20.0)
    assert checks["gain:bad_top1"].attainable == pytest.approx(35.0)
    assert all("unreachable" in checks[name].text for name in ("gain:recall@3", "gain:bad_top1"))


def test_a_significant_loss_in_any_metric_fails_unless_it_has_a_threshold_of_its_own() -> None:
    lost = figures(worse=["recall@10", "hit@1"], gains={"hit@1": near(-0.01)})
    check = one(only(), lost)
    assert (check.name, check.value, check.passed) == ("losses", 2.0, False)
    assert "(Recall@10, Hit@1): 2 (at most 0): not passed" in check.text
    allowed = {check.name: check for check in on(only(metrics={"hit@1": {"min_gain": -2.0}}), lost)}
    assert (allowed["gain:hit@1"].passed, allowed["losses"].value) == (True, 1.0)
    assert one(only(), figures(worse=[])).passed


def test_popularity_is_held_against_the_higher_of_the_baseline_and_the_relevant_items() -> None:
    def check(now: float, was: float, relevant: float) -> Check:
        return one(
            only(max_popularity_gain=10.0),
            figures(
                results={"popularity": now, "relevant_popularity": relevant},
                baseline_results={"popularity": was, "relevant_popularity": relevant},
            ),
        )

    assert check(0.75, 0.50, 0.70).passed, "relevant items are that popular"
    worse = check(0.81, 0.50, 0.70)
    assert worse.passed is False
    assert worse.value == pytest.approx(11.0)
    assert check(0.59, 0.50, 0.40).passed


def test_coverage_and_gini_are_held_against_the_baseline() -> None:
    settings = only(min_coverage=0.7, max_gini_gain=15.0)
    now, was = {"coverage": 0.34, "gini": 0.7}, {"coverage": 0.5, "gini": 0.5}
    checks = {check.name: check for check in on(settings, figures(results=now, baseline_results=was))}
    assert {name: check.passed for name, check in checks.items()} == {"coverage": False, "gini": False}
    assert [checks[name].value for name in checks] == pytest.approx([0.68, 20.0])
    same = on(settings, figures(results=was, baseline_results=was))
    assert all(check.passed for check in same)


def test_data_without_popularity_and_an_old_evaluation_are_told_apart() -> None:
    settings = only(max_popularity_gain=10.0, strict=True)
    without = one(settings, figures(results={"coverage": 0.5}, baseline_results={"coverage": 0.5}))
    assert (without.passed, without.why) == (None, "the items have no popularity")
    assert one(settings, figures(missing={"results": "an old version"})).passed is False


def slice_of(value: str, change: float, *, queries: int = 100, significant: bool = True, recall: float = 0.5) -> Slice:
    change_of = Interval(change, change - 0.01, change + 0.01, queries)
    return Slice("genre", value, queries, {"recall@3": recall}, change_of, significant)


def test_a_slice_that_is_significantly_worse_fails_if_it_is_large_enough() -> None:
    settings = only(slices=True)
    harmless = [slice_of("drama", 0.1), slice_of("crime", -0.1, significant=False), slice_of("war", -0.3, queries=49)]
    good = one(settings, figures(slices=harmless))
    assert good.passed
    assert "of 2 slices with at least 50 queries: 0 (at most 0): passed" in good.text
    bad = one(settings, figures(slices=[*harmless, slice_of("noir", -0.04), slice_of("farce", -0.2)]))
    assert bad.passed is False
    assert bad.value == 2
    assert "genre = farce (-20.0 points over 100 queries), genre = noir" in bad.text, "the worst one first"


def test_slices_that_are_too_small_or_missing_are_not_checked() -> None:
    settings = only(slices=True, strict=True)
    small = one(settings, figures(slices=[slice_of("war", -0.3, queries=49)]))
    assert small.passed is False
    assert "none of 1 slices has 50 queries" in small.text
    none = one(settings, figures())
    assert (none.passed, none.why) == (None, "the queries have no slices (evaluation.slices)")
    assert one(settings, figures(missing={"slices": "an old version"})).passed is False


def test_the_floor_is_of_the_lowest_slice() -> None:
    found = figures(
        slices=[
            slice_of("drama", 0.1, recall=0.6),
            slice_of("crime", 0.1, recall=0.3),
            slice_of("war", 0.1, queries=3, recall=0.0),
        ]
    )
    check = one(only(min_slice=0.31), found)
    assert (check.name, check.value, check.passed) == ("slice_floor", 0.3, False)
    assert "genre = crime" in check.text


def test_forgetting_is_a_fall_on_the_general_set() -> None:
    settings = only(max_forgetting=2.0)
    assert one(settings, figures(general=near(-0.019, 0.0005))).passed
    assert one(settings, figures(general=near(-0.021, 0.0005))).passed is False
    assert one(settings, figures()).why == "there is no general set (evaluation.general)"
    assert one(settings, figures(missing={"general": "it was not measured"})).passed is None


def test_latency_is_held_against_the_baseline() -> None:
    times = np.full(50, 10.0)
    settings = only(max_added_ms=2.0, max_added_p95=0.2)
    slow = on(settings, figures(latency=compare_latency(times + 2.5, times)))
    assert [(check.name, check.passed) for check in slow] == [("added_latency_ms", False), ("added_latency_p95", False)]
    assert [check.value for check in slow] == pytest.approx([2.5, 0.25])
    assert all(check.passed for check in on(settings, figures(latency=compare_latency(times + 1.9, times))))
    alone = on(settings, figures(latency=compare_latency(times / 10, None), missing={"latency:p95": "no base"}))
    assert [check.passed for check in alone] == [True, None]


def test_the_baseline_is_judged_by_its_own_figures_only_and_nothing_new_is_no_pass() -> None:
    found = figures(metrics={"recall@3": near(0.9), "ndcg@10": near(0.9), "bad_top1": near(0.0)}, is_baseline=True)
    checks = make_checks(GateSettings(bar="mature_catalogue"), found)
    assert [check.name for check in checks if check.passed] == ["recall@3", "ndcg@10", "bad_top1"]
    assert {check.why for check in checks if check.passed is None} == {"the off-the-shelf model is not compared with itself"}
    assert passed(checks)
    assert not passed(make_checks(GateSettings(bar="mature_catalogue"), replace(found, nothing_new=True)))


def test_a_check_as_json_has_what_the_design_says() -> None:
    value = one(least(0.8), figures(metrics={"recall@3": near(0.9, 0.01)})).as_json()
    assert value["interval"] == {"mean": 0.9, "low": pytest.approx(0.89), "high": pytest.approx(0.91), "queries": 100}
    assert value.keys() >= {"name", "value", "threshold", "passed", "interval", "text"}
    assert one(only(max_added_ms=2.0), figures()).as_json()["passed"] is None


def test_settings_refuse_what_is_no_threshold() -> None:
    for wrong in ({"min_gain": 200}, {"bar": "high"}, {"metrics": {"mrr@10": {}}}, {"max_added_ms": -1}, {"recall": 0.8}):
        with pytest.raises(ValidationError):
            GateSettings.model_validate(wrong)
