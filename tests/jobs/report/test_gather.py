"""The report's dict is what the commits say."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.record.stages import parse_name
from jobs.report.changes import SHOWN, histogram
from jobs.report.config_rows import changed_settings, setting_rows
from jobs.report.curves import MOST_POINTS, downsample
from jobs.report.gather import gather, plain

NAMES = ["baseline", "round-00", "round-01", "round-02", "round-02-random"]


def test_every_figure_of_a_model_is_its_commits_figure(made_up: Store, report: dict[str, Any]) -> None:
    ledger = Ledger(made_up)
    assert [model["name"] for model in report["models"]] == NAMES
    for model in report["models"]:
        figures = ledger.find(f"{model['name']}-evaluate").figures
        assert model["metrics"] == figures["metrics"]
        assert model["against_baseline"] == {
            name: value for name, value in figures.get("against_baseline", {}).items() if isinstance(value, dict)
        }
    assert report["best"] == "round-02"
    assert report["slices"][0]["against_baseline"]["significant"] in (True, False)
    assert report["scores"]["after"] == ledger.find("round-02-evaluate").figures["scores"]


def test_winners_and_losers_are_those_of_the_tables(made_up: Store, report: dict[str, Any]) -> None:
    ledger = Ledger(made_up)
    tables = [read_parts(made_up, ledger.find(f"{name}-evaluate").parts("per_query")) for name in ("baseline", "round-02")]
    change = tables[1]["recall@3"].to_numpy() - tables[0]["recall@3"].to_numpy()
    found = report["changes"]
    assert (found["better"], found["worse"], found["same"]) == ((change > 0).sum(), (change < 0).sum(), (change == 0).sum())
    assert len(found["winners"]) == min(SHOWN, (change > 0).sum())
    assert {query["change"] for query in found["losers"]} <= set(change[change < 0])
    assert [query["change"] for query in found["winners"]] == sorted(
        (query["change"] for query in found["winners"]), reverse=True
    )
    assert sum(row["queries"] for row in found["histogram"]) == found["queries"]


def test_a_histogram_keeps_zero_apart() -> None:
    rows = histogram(np.array([-1.0, -0.05, 0.0, 0.0, 0.1, 1.0]))
    assert [(row["low"], row["high"]) for row in rows if row["queries"]] == [
        (-1.0, -0.9),
        (-0.1, 0.0),
        (0.0, 0.0),
        (0.0, 0.1),
        (0.9, 1.0),
    ]
    assert [row["queries"] for row in rows if row["low"] == row["high"]] == [2]


def test_curves_are_bin_means_and_end_where_training_ended() -> None:
    size = 10 * MOST_POINTS
    columns = {"step": np.arange(1.0, size + 1), "loss": np.arange(size, dtype=float)}
    columns["loss"][:10] = np.nan
    columns["loss"][10] = np.nan
    got = downsample(columns)
    assert len(got["step"]) == MOST_POINTS
    assert got["step"][-1] == size
    assert math.isnan(got["loss"][0]), "a bin without a figure"
    assert got["loss"][1] == columns["loss"][11:20].mean(), "what is not there takes no part"
    assert downsample({"step": np.array([1.0, 2.0]), "loss": np.array([3.0, 1.0])})["loss"].tolist() == [3.0, 1.0]


def test_both_arms_go_on_from_the_warm_up(report: dict[str, Any]) -> None:
    assert [(training["label"], training["start"]) for training in report["training"]] == [
        ("warm-up", 0),
        ("round 1", 40),
        ("round 2", 80),
        ("random only", 40),
    ]
    assert report["training"][1]["validation"] == {"step": [20.0, 40.0], "recall": [pytest.approx(0.55), pytest.approx(0.6)]}


def test_an_unfinished_run_has_a_report(unfinished: Store) -> None:
    found = gather(unfinished)
    assert not found["finished"]
    assert found["best"] == "round-02"
    assert found["gate"] is None
    assert found["changes"]["better"] > 0
    assert found["missing"] == []


def test_a_damaged_table_takes_only_its_own_part_away(made_up: Store, tmp_path: Any) -> None:
    import shutil

    copy = Store(str(shutil.copytree(made_up.root, tmp_path / "copy")))
    copy.delete(Ledger(copy).find("round-02-hits").parts("hits")[0].path)
    found = gather(copy)
    assert found["changes"] is None
    assert any(reason.startswith("winners and losers: ") for reason in found["missing"])
    assert found["models"] != []


def test_a_report_does_not_say_that_an_option_was_given(report: dict[str, Any]) -> None:
    reasons = {check["why"] for check in report["gate"]["checks"] if check["name"].startswith("added_latency")}
    assert reasons == {f"the report measures no times; `hardmine gate {report['output']}` does"}
    assert report["gate"]["latency_pending"]


def test_a_folder_without_a_run_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        gather(Store(str(tmp_path)))


def test_the_dict_is_json_without_nan(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert plain({"a": (np.float64("nan"), np.int64(3), float("inf"))}) == {"a": [None, 3, None]}


def test_settings_that_differ_from_their_defaults_are_named() -> None:
    config = {"name": "x", "training": {"temperature": 0.07, "batch_size": 64}, "data": {"corpus": "c.parquet"}}
    changed = {row["setting"]: row for row in changed_settings(config)}
    assert changed["training.temperature"] == {"setting": "training.temperature", "value": "0.07", "default": "0.05"}
    assert changed["data.corpus"]["value"] == "c.parquet"
    assert [row["setting"] for row in setting_rows(config)] == ["training.temperature", "training.batch_size", "data.corpus"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("round-01-train", "train"),
        ("bm25", "search"),
        ("round-01-teacher-pairs", "mine"),
        ("embed-0123", "embed"),
        ("baseline-evaluate", "evaluate"),
        ("baseline-hits", "search"),
        ("ingest", "prepare"),
        ("finish", "prepare"),
        ("round-02-random-train", "train"),
        ("mine-report", "mine"),
    ],
)
def test_stages_have_a_kind_of_work(name: str, kind: str) -> None:
    stage = parse_name(name)
    assert stage is not None
    assert stage.kind.work == kind
