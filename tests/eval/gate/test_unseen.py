"""No check vanishes: whatever a gate is told and whatever is missing, each check passes, fails, or is named with a reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from eval.diagnosis.evidence import Slice
from eval.gate.check import Check
from eval.gate.figures import GateFigures
from eval.gate.latency import compare_latency
from eval.gate.settings import METRICS, GateSettings
from eval.gate.verdict import make_checks, passed, verdict
from eval.metrics import Judgements, per_query_metrics
from eval.settings import EvaluationSettings
from eval.significance import Interval

BAR = ["recall@3", "ndcg@10", "bad_top1"]
ALL = ["gain:recall@3", "losses", "added_latency_ms", "added_latency_p95", "popularity", "coverage", "gini", "slices", "general"]
"""The checks of a gate whose settings nobody changed."""
NAN = math.nan


def near(mean: float, queries: int = 100) -> Interval:
    return Interval(mean, mean - 0.01, mean + 0.01, queries)


def good() -> GateFigures:
    """A model that passes everything."""
    shown = {"popularity": 0.5, "relevant_popularity": 0.5, "coverage": 0.5, "gini": 0.5}
    times = np.full(50, 10.0)
    return GateFigures(
        primary="recall@3",
        metrics={"recall@3": near(0.9), "ndcg@10": near(0.9), "bad_top1": near(0.02)},
        gains={"recall@3": near(0.1), "ndcg@10": near(0.1)},
        worse=[],
        results=shown,
        baseline_results=shown,
        slices=[Slice("genre", "crime", 60, {"recall@3": 0.9}, near(0.1), True)],
        general=near(0.0),
        latency=compare_latency(times, times),
    )


def judged(settings: GateSettings | None = None, **figures: Any) -> dict[str, Check]:
    checks = make_checks(settings or GateSettings(), replace(good(), **figures))
    assert all(check.passed is not None or check.why for check in checks), "what is not checked has a reason"
    assert all(check.name in verdict(checks) for check in checks if check.passed is None), "and the answer names it"
    return {check.name: check for check in checks}


def test_a_good_model_passes_every_check() -> None:
    checks = judged()
    assert list(checks) == ALL
    assert all(check.passed for check in checks.values())


def test_another_threshold_for_a_metric_leaves_the_one_that_is_there() -> None:
    settings = GateSettings.model_validate({"bar": "mature_catalogue", "metrics": {"ndcg@10": {"min_gain": 1}}})
    assert [*judged(settings)] == [*BAR, ALL[0], "gain:ndcg@10", *ALL[1:]]
    low = judged(settings, metrics=good().metrics | {"ndcg@10": near(0.5)})
    assert low["ndcg@10"].passed is False, "0.78 is asked for whatever else is"
    assert low["gain:ndcg@10"].passed is True


@pytest.mark.parametrize("metric", ["recall@3", "ndcg@10", "bad_top1"])
@pytest.mark.parametrize("threshold", [{"min": 0.0}, {"max": 1.0}, {"min_gain": -100}])
def test_a_metric_with_thresholds_of_its_own_keeps_that_of_the_bar(metric: str, threshold: dict[str, float]) -> None:
    settings = GateSettings.model_validate({"bar": "mature_catalogue", "metrics": {metric: threshold}})
    checks = judged(settings, gains={m: near(0.1) for m in METRICS})
    assert {*BAR, *ALL} <= set(checks)
    assert checks[metric].threshold == {"recall@3": 0.80, "ndcg@10": 0.78, "bad_top1": 0.08}[metric]


def test_of_two_gains_for_the_primary_figure_the_higher_is_asked_for() -> None:
    for general, own in ((3.0, 1.0), (1.0, 3.0)):
        settings = GateSettings.model_validate({"min_gain": general, "metrics": {"recall@3": {"min_gain": own}}})
        assert judged(settings)["gain:recall@3"].threshold == 3.0
    alone = GateSettings.model_validate({"min_gain": "off", "metrics": {"recall@3": {"min_gain": 2.0}}})
    assert judged(alone)["gain:recall@3"].threshold == 2.0


SWITCHES = {
    "min_gain": "gain:recall@3",
    "max_added_ms": "added_latency_ms",
    "max_added_p95": "added_latency_p95",
    "max_popularity_gain": "popularity",
    "min_coverage": "coverage",
    "max_gini_gain": "gini",
    "slices": "slices",
    "max_forgetting": "general",
}


def test_every_check_has_a_switch_but_that_of_losses_which_a_metric_leaves_by_a_threshold_of_its_own() -> None:
    assert sorted([*SWITCHES.values(), "losses"]) == sorted(ALL)


@pytest.mark.parametrize("setting", SWITCHES)
def test_a_check_that_is_switched_off_is_named_and_strict_lets_it_be(setting: str) -> None:
    off = False if setting == "slices" else "off"
    checks = judged(GateSettings.model_validate({setting: off, "strict": True}))
    assert list(checks) == ALL
    assert (checks[SWITCHES[setting]].passed, checks[SWITCHES[setting]].why) == (None, f"evaluation.gate.{setting} is off")
    assert passed(list(checks.values()))


MISSING: list[tuple[str, dict[str, Any], list[str], bool]] = [
    # what, figures, the checks that cannot be made, whether strict refuses that
    ("no comparison", {"worse": None}, ["losses"], True),
    ("no gain", {"gains": {}}, ["gain:recall@3"], True),
    ("no latency", {"latency": None}, ["added_latency_ms", "added_latency_p95"], True),
    ("no base model", {"latency": compare_latency(np.ones(30), None)}, ["added_latency_p95"], True),
    ("old results", {"missing": {"results": "old"}}, ["popularity", "coverage", "gini"], True),
    ("no results", {"results": {}}, ["popularity", "coverage", "gini"], True),
    ("no results of the baseline", {"baseline_results": {}}, ["popularity", "coverage", "gini"], True),
    ("no popularity", {"results": {"coverage": 0.5, "gini": 0.5}}, ["popularity"], False),
    ("old slices", {"slices": [], "missing": {"slices": "old"}}, ["slices"], True),
    ("no slices", {"slices": []}, ["slices"], False),
    ("small slices", {"slices": [Slice("genre", "crime", 49, {}, near(0.1), True)]}, ["slices"], True),
    ("slices that are not compared", {"slices": [Slice("genre", "crime", 60, {})]}, ["slices"], True),
    ("slices of no number", {"slices": [Slice("genre", "crime", 60, {}, near(NAN), True)]}, ["slices"], True),
    ("no general set", {"general": None}, ["general"], False),
    ("a general set that was not measured", {"general": None, "missing": {"general": "not yet"}}, ["general"], True),
    ("the off-the-shelf model", {"is_baseline": True}, ALL, False),
]


@pytest.mark.parametrize(("figures", "names", "refused"), [row[1:] for row in MISSING], ids=[row[0] for row in MISSING])
def test_what_cannot_be_checked_is_named_and_strict_refuses_it(figures: dict[str, Any], names: list[str], refused: bool) -> None:
    checks = judged(**figures)
    assert list(checks) == ALL, "none has vanished"
    assert [name for name, check in checks.items() if check.passed is None] == names
    strict = judged(GateSettings(strict=True), **figures)
    assert list(strict) == ALL
    failed = [name for name, check in strict.items() if check.passed is False]
    # slices and popularity may be none that the data could have
    assert bool(failed) is refused, failed


NO_NUMBERS: list[tuple[str, dict[str, Any]]] = [
    ("recall@3", {"metrics": good().metrics | {"recall@3": Interval(NAN, NAN, NAN, 0)}}),
    ("bad_top1", {"metrics": good().metrics | {"bad_top1": Interval(NAN, NAN, NAN, 0)}}),
    ("bad_top1", {"metrics": good().metrics | {"bad_top1": Interval(0.0, 0.0, 0.0, 0)}}),
    ("recall@3", {"metrics": good().metrics | {"recall@3": Interval(0.9, NAN, NAN, 100)}}),
    ("gain:recall@3", {"gains": {"recall@3": Interval(NAN, NAN, NAN, 0)}}),
    ("general", {"general": Interval(NAN, NAN, NAN, 0)}),
    ("popularity", {"results": good().results | {"popularity": NAN}}),
    ("coverage", {"baseline_results": good().baseline_results | {"coverage": 0.0}}),
    ("gini", {"results": good().results | {"gini": NAN}}),
]


@pytest.mark.parametrize(("name", "figures"), NO_NUMBERS)
def test_a_figure_that_is_no_number_or_of_no_query_fails(name: str, figures: dict[str, Any]) -> None:
    checks = judged(GateSettings(bar="mature_catalogue"), **figures)
    assert [check.name for check in checks.values() if check.passed is False] == [name]
    assert checks[name].as_json()["value"] is None
    assert "not a number" in checks[name].text or "on no query" in checks[name].text


def test_a_metric_of_the_bar_that_was_not_measured_is_named() -> None:
    checks = judged(GateSettings(bar="mature_catalogue"), metrics={})
    assert [name for name, check in checks.items() if check.passed is None] == BAR


def test_a_slice_without_the_figure_is_told_and_one_of_no_number_fails() -> None:
    settings = GateSettings(min_slice=0.5)
    rows = [Slice("genre", name, 60, metrics, near(0.1)) for name, metrics in (("a", {"recall@3": 0.9}), ("b", {}))]
    assert "without 1 that have none" in judged(settings, slices=rows)["slice_floor"].text
    rows[1] = replace(rows[1], metrics={"recall@3": NAN})
    assert judged(settings, slices=rows)["slice_floor"].passed is False


def test_slices_that_are_not_compared_are_counted_beside_those_that_are() -> None:
    rows = [*good().slices, Slice("genre", "drama", 60, {})]
    assert "1 more are not compared" in judged(slices=rows)["slices"].text


def test_a_metric_that_no_evaluation_measures_is_refused_when_the_settings_are_read() -> None:
    with pytest.raises(ValidationError, match="names 'recal@3', which no evaluation measures; expected one of recall@1"):
        GateSettings.model_validate({"metrics": {"recal@3": {"min": 0.5}}})
    with pytest.raises(ValidationError, match=r"min <= max, found min = 0\.9 and max = 0\.5"):
        GateSettings.model_validate({"metrics": {"recall@3": {"min": 0.9, "max": 0.5}}})
    with pytest.raises(ValidationError, match="num_hits = 50 results cannot give"):
        EvaluationSettings.model_validate({"num_hits": 50, "gate": {"metrics": {"recall@100": {"min": 0.5}}}})


def test_the_metrics_that_a_gate_knows_are_those_that_are_measured() -> None:
    judgements = Judgements.from_triples(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1))
    measured = per_query_metrics(np.arange(100)[None], np.zeros(1, np.int64), judgements)
    assert sorted(METRICS) == sorted(measured)
