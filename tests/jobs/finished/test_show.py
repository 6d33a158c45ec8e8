"""What a finished run prints at its end: the model, and a next step that is another command."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.finished.show import _change, show_summary
from jobs.finished.status import Status, read_status
from jobs.record.usage import copy_command
from tests.support.synthetic_run import write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Status:
    return read_status(write_run(tmp_path_factory.mktemp("runs") / "shop"))


@pytest.fixture(scope="module")
def summary(finished: Status) -> dict[str, Any]:
    assert finished.summary is not None
    return finished.summary


def printed(summary: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    show_summary(console, summary)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_better_round_leads_to_the_gate(finished: Status) -> None:
    summary = finished.as_json()
    lines = printed(finished.with_next())
    assert Path(summary["model"]).name == "model"
    assert f'        model = SentenceTransformer("{summary["model"]}")' in lines
    assert '        queries = model.encode_query(["a query"])' in lines, "brackets are no markup"
    assert f"next:   hardmine gate {finished.store.root}" in lines


def test_a_next_step_is_its_command_and_then_the_reason(summary: dict[str, Any]) -> None:
    steps = [{"text": "It overfits.", "command": "hardmine run a.toml name=b"}, {"text": "Label more.", "command": None}]
    lines = printed(summary | {"next": steps})
    assert lines[-3:] == ["next:   hardmine run a.toml name=b", "        It overfits.", "then:   Label more."]


def test_verdicts_from_few_queries_are_doubted(summary: dict[str, Any]) -> None:
    few = {"recall@3": {"mean": 0.1, "low": 0.05, "high": 0.2, "queries": 12, "significant": True}}
    rounds = [row | {"against_baseline": few} for row in summary["rounds"]]
    assert any("12 evaluated queries, fewer than 50" in line for line in printed(summary | {"rounds": rounds}))
    assert not any("may be chance" in line for line in printed(summary))


def test_a_figure_that_no_model_can_raise_is_named(summary: dict[str, Any]) -> None:
    many = {"primary": "recall@3", "attainable": {"recall@3": 0.0286, "ndcg@10": 1.0}}
    assert any("Recall@3 cannot be above 0.0286 here" in line for line in printed(summary | many))
    assert not any("cannot be above" in line for line in printed(summary | many | {"primary": "ndcg@10"}))
    assert not any("cannot be above" in line for line in printed(summary | many | {"attainable": None}))


def test_a_run_without_a_better_model_says_so(summary: dict[str, Any]) -> None:
    lines = printed(summary | {"best_round": -1, "model": None})
    assert "model:  none: the vectors in your data were best" in lines


def test_judged_negatives_are_counted_with_those_that_are_left_out(summary: dict[str, Any]) -> None:
    rounds = [row | {"judged": 0, "judged_left_out": 0} for row in summary["rounds"]]
    assert not any("judged" in line for line in printed(summary | {"rounds": rounds}))
    rounds = [row | {"judged": 2515, "judged_left_out": 109} for row in summary["rounds"]]
    (line,) = [line for line in printed(summary | {"rounds": rounds}) if "judged" in line]
    assert "2,515 of 2,624 used; 109 are left out" in line
    assert "mining.num_negatives" in line
    rounds = [row | {"judged": 7, "judged_left_out": 0} for row in summary["rounds"]]
    assert any(line.endswith("7 of 7 used") for line in printed(summary | {"rounds": rounds}))


def test_mined_against_random_names_the_round_that_is_compared_and_the_one_that_is_kept(summary: dict[str, Any]) -> None:
    last = [row["round"] for row in summary["rounds"] if row["negatives"] == "mined"][-1]
    (same,) = [line for line in printed(summary | {"best_round": last}) if line.startswith("mined negatives")]
    assert f"(round {last}, the last) were" in same
    (other,) = [line for line in printed(summary | {"best_round": 0}) if line.startswith("mined negatives")]
    assert f"(round {last}, the last; warm-up is kept) were" in other


def test_a_model_on_s3_is_copied_before_it_is_opened(summary: dict[str, Any]) -> None:
    lines = printed(summary | {"model": "s3://shop/model", "copy": copy_command("s3://shop/model", None)})
    assert "        aws s3 cp --recursive s3://shop/model model" in lines
    assert copy_command("s3://a b/m", "http://h:9").endswith("'s3://a b/m' model --endpoint-url http://h:9")
    assert not any("aws s3" in line for line in printed(summary))


def test_a_difference_whose_interval_does_not_say_why_it_is_no_proof_has_its_p() -> None:
    change = {"mean": 0.031, "low": 0.006, "high": 0.057, "queries": 120, "significant": False, "p": 0.02, "p_adjusted": 0.074}
    assert _change(change) == "+3.1 points [+0.6, +5.7] (not significant: p = 0.074)"
    assert _change(change | {"low": -0.006}) == "+3.1 points [-0.6, +5.7] (not significant)"
    assert _change(change | {"significant": True}) == "+3.1 points [+0.6, +5.7]"
