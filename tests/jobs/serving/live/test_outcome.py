"""Outcomes of live tests: each form of log, units counted once, looks that were not planned refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ConfigError, DataError
from eval.live.outcome import ab_test, interleaving_test, look_limits
from jobs.serving.live.outcome import Plan, judge_outcome, planned_look, read_units


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_counted_clicks_are_added_up_by_unit(tmp_path: Path) -> None:
    rows = [
        {"unit": "ann", "clicks_a": 1, "clicks_b": 0},
        {"unit": "bob", "clicks_a": 0, "clicks_b": 1},
        {"unit": "ann", "clicks_a": 0, "clicks_b": 3},
        {"unit": "eve", "clicks_a": 2, "clicks_b": 2},
    ]
    assert read_units(write(tmp_path / "log.jsonl", rows)).credits == [2, 1, 0]


def test_an_ab_log_counts_a_person_once(tmp_path: Path) -> None:
    rows = [{"arm": "a", "success": n % 3 == 0, "unit": f"u{n}"} for n in range(30)]
    rows += [{"arm": "b", "success": n % 2 == 0, "unit": f"v{n}"} for n in range(20)]
    rows += [{"arm": "a", "success": 1, "unit": "u0"}, {"arm": "b", "success": 0, "unit": "v0"}]
    got = judge_outcome(write(tmp_path / "log.jsonl", rows), Plan())
    want = ab_test((10, 30), (10, 20)).as_json()
    assert {name: got[name] for name in want} == want
    assert got["answer"].startswith("No difference was found. A test of this size finds one of")


def ubi(query: str, hits: list[str], teams: list[str], person: str | None = None) -> dict[str, Any]:
    row = {"query_id": query, "user_query": "q", "query_response_hit_ids": hits, "query_attributes": {"teams": teams}}
    return row | ({"client_id": person} if person else {})


def click(query: str, item: str, action: str = "click") -> dict[str, Any]:
    return {"action_name": action, "query_id": query, "event_attributes": {"object": {"object_id": item}}}


def test_the_log_of_the_service_and_its_clients_is_an_interleaving(tmp_path: Path) -> None:
    rows = [
        ubi("1", ["x", "y", "z"], ["a", "b", "b"]),
        click("1", "y"),
        click("1", "y"),
        click("1", "z", "impression"),
        ubi("2", ["x", "y"], ["b", "a"], "ann"),
        click("2", "y"),
        ubi("3", ["x", "y"], ["b", "a"], "ann"),
        click("3", "y", "purchase"),
        click("3", "not shown"),
        ubi("4", ["x"], ["a"]),
        {"query_id": "5", "user_query": "an ordinary search", "query_response_hit_ids": ["x"]},
    ]
    assert read_units(write(tmp_path / "log.jsonl", rows)).credits == [1, -2, 0], "unit 1, ann, unit 4"


def test_a_clear_winner_is_named(tmp_path: Path) -> None:
    rows = [{"clicks_a": int(n % 4 == 0), "clicks_b": int(n % 4 != 0)} for n in range(80)]
    got = judge_outcome(write(tmp_path / "log.jsonl", rows), Plan())
    assert (got["winner"], got["answer"], got["effect"], got["final"]) == ("b", "b is better.", 0.25, True)
    assert got["p"] == pytest.approx(interleaving_test(np.array([1.0] * 60 + [-1.0] * 20)).p)
    assert "nobody looked before its end" in got["assumes"][-1]


def test_a_look_that_was_not_planned_is_refused(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [{"clicks_a": 0, "clicks_b": 1}] * 90)
    with pytest.raises(ConfigError, match=r"planned for 200 units and has 90; no look before its end was planned"):
        judge_outcome(log, Plan(200))
    with pytest.raises(ConfigError, match=r"the first look was planned at 100"):
        judge_outcome(log, Plan(200, 2))
    with pytest.raises(ConfigError, match=r"--looks 4 needs the size"):
        judge_outcome(log, Plan(None, 4))


@pytest.mark.parametrize(
    ("units", "plan", "look", "size"),
    [(120, Plan(200, 4), 2, 100), (200, Plan(200, 4), 4, 200), (50, Plan(200, 4), 1, 50), (260, Plan(200), 1, 200)],
)
def test_a_planned_look_judges_the_units_that_were_planned_for_it(units: int, plan: Plan, look: int, size: int) -> None:
    limits = look_limits(4) if plan.looks == 4 else [0.05]
    assert planned_look(units, plan) == (look, size, pytest.approx(limits[look - 1]))


def test_an_early_look_ends_a_test_only_below_its_own_limit(tmp_path: Path) -> None:
    """14 of 20 wins: p = 0.115 … 16 of 20: p = 0.012, below 0.05 but not below the first look's limit."""
    rows = [{"clicks_a": int(n >= 16), "clicks_b": int(n < 16)} for n in range(20)]
    early = judge_outcome(write(tmp_path / "log.jsonl", rows), Plan(80, 4))
    assert early["p"] == pytest.approx(0.0118, abs=1e-4)
    assert (early["winner"], early["final"], early["answer"]) == (None, False, "No answer yet: go on to the next planned look.")
    clear = judge_outcome(write(tmp_path / "log.jsonl", [{"clicks_a": 0, "clicks_b": 1}] * 25), Plan(80, 4))
    assert (clear["winner"], clear["look"], clear["ignored_units"]) == ("b", 1, 5)
    assert "the test may end here" in clear["answer"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"query": "x"}], ["expected the columns clicks_a and clicks_b", "found query"]),
        ([], ["found no row"]),
        ([{"arm": "c", "success": 1}], ["line 1: expected arm a or b, found 'c'"]),
        ([{"arm": "a", "success": 0.5}], ["expected success 0 or 1, found 0.5"]),
        ([{"arm": "a", "success": 1}], ["found none of arm b"]),
        ([{"arm": "a", "success": 1, "unit": "u"}, {"arm": "b", "success": 1, "unit": "u"}], ["was in arm a and is in b"]),
        ([{"clicks_a": "x", "clicks_b": 1}], ["expected a number as clicks_a, found 'x'"]),
        ([ubi("1", ["x", "y"], ["a"])], ["a team for each of 2 hits, found 1"]),
        ([{"clicks_a": 1, "clicks_b": 1}, {"arm": "a", "success": 1}], ["found two of these"]),
    ],
)
def test_a_log_of_no_known_form_is_refused(tmp_path: Path, rows: list[dict[str, Any]], words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        judge_outcome(write(tmp_path / "log.jsonl", rows), Plan())
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)


def test_the_command_says_the_answer_and_what_it_assumes(tmp_path: Path, case: Any, refused: Any) -> None:
    log = write(tmp_path / "log.jsonl", [{"clicks_a": 0, "clicks_b": 1}] * 40)
    shown = case.hardmine("compare-live", "--outcome", str(log)).out
    assert shown.startswith("b is better.\ninterleaving, 40 units, 40 decided\n")
    assert "assumed: units are independent" in shown
    answer = json.loads(case.hardmine("compare-live", "--outcome", str(log), "--planned", "160", "--looks", "4", "--json").out)
    assert (answer["look"], answer["looks"], answer["winner"]) == (1, 4, "b")
    refused(case.hardmine("compare-live", "--outcome", str(log), "--planned", "500"), 2, ["An unplanned look", "--looks 4"])
