"""Every benchmark: its --help, and the smallest case of those that are cheap, as one JSON object of the documented shape."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2] / "benchmarks"
EVERY = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in sorted(ROOT.rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text() and path.parent.name != "shared"
]
ROW = ["case", "ours_s", "peer", "peer_s", "ratio", "floor_share"]


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks.NAME ARGUMENTS` in this process."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=False)


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows of a benchmark that printed one JSON object and nothing else."""
    printed = json.loads(text)
    assert list(printed) == ["machine", "rows"]
    assert printed["machine"]["cpus"] > 0
    assert printed["rows"]
    for row in printed["rows"]:
        assert list(row)[: len(ROW)] == ROW
    return list(printed["rows"])


@pytest.mark.parametrize("name", EVERY)
def test_the_help_says_how_to_run_it(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(name, ["--help"], monkeypatch)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "usage:" in text
    assert f"python -m benchmarks.{name}" in text


def test_searching_is_compared_with_faiss_and_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("mining", ["--case", "search", "--items", "500", "--queries", "16", "--runs", "1", "--json"], monkeypatch)
    rows = rows_of(capsys.readouterr().out)
    assert {row["peer"] for row in rows} == {"floor", "faiss.knn", "IndexFlatIP.search", "torch matmul+topk"}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        assert row["recall"] == 1.0 or "two-stage" in row["case"]


@pytest.mark.slow
def test_serving_is_compared_with_the_least_that_a_service_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--items", "900", "--seconds", "0.5", "--soak", "1"]
    run("serving", ["--case", "8 clients", "--case", "soak", *sizes, "--json"], monkeypatch)
    clients, soak = rows_of(capsys.readouterr().out)
    assert (clients["index"], clients["recall"]) == ("flat", 1.0)
    assert clients["per_second"] > 1
    assert clients["p95_ms"] >= clients["p50_ms"] > 0
    assert soak["mib_after"] > 10


def test_the_statistics_are_compared_with_scipy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("decisions.statistics", ["--case", "p", "--queries", "100", "--resamples", "100", "--json"], monkeypatch)
    rows = rows_of(capsys.readouterr().out)
    assert [row["case"] for row in rows] == ["p of hit@10", "p of recall@3", "p of ndcg@10"]
    assert all(abs(row["p"] - row["peer_p"]) < 0.3 for row in rows)


@pytest.mark.slow
def test_the_report_is_measured_on_a_generated_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--queries", "30", "--items", "60", "--steps", "20", "--hits", "11"]
    run("decisions.report", [*sizes, "--json"], monkeypatch)
    (row,) = rows_of(capsys.readouterr().out)
    assert row["case"] == "30 queries"
    assert row["page_bytes"] > row["library_bytes"] > 0


def test_the_experiments_of_the_page_run_without_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("why", ["--case", "gradient", "--json"], monkeypatch)
    rows = rows_of(capsys.readouterr().out)
    assert len(rows) == 10


def test_the_telemetry_of_a_generated_run_tells_random_from_mined(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("training.telemetry_picture", ["--out", str(tmp_path / "picture.png"), "--json"], monkeypatch)
    random, mined = rows_of(capsys.readouterr().out)
    assert (random["case"], mined["case"]) == ("random", "mined")
    assert mined["gradient_share_hard"] > random["gradient_share_hard"]


def test_the_telemetry_of_one_round_alone_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("training.telemetry_picture", ["telemetry.jsonl"], monkeypatch)
    assert ended.value.code == 2
    assert "expected the telemetry of two rounds, found one" in capsys.readouterr().err
