"""A dry run prints settings as they hold, the stages that run again, and a forecast; it writes nothing and starts nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.config.config import load_config
from jobs.record.record import RunRecord
from jobs.stages.ingest.counts import quick_counts as quick
from jobs.stages.ingest.models.known_models import vector_length


def grown(case: Any, queries: int = 60, *, dev: bool = True) -> None:
    """More queries than the usual case; without a dev split of their own, one is cut."""
    case.items = [{"id": f"i{n}", "title": f"Title {n}", "text": f"a text about thing {n}"} for n in range(queries)]
    case.queries = [{"id": f"q{n}", "text": f"thing {n}"} for n in range(queries)]
    if dev:
        case.queries = [query | {"split": "dev" if n % 3 == 0 else "train"} for n, query in enumerate(case.queries)]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 1, "source": "click"} for n in range(queries)]


def plan(case: Any, *words: str) -> dict[str, Any]:
    answer = case.run("--dry-run", "--json", *words)
    assert answer.code == 0, answer.err
    value: dict[str, Any] = json.loads(answer.out)
    return value


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dev", [True, False])
def test_the_forecast_before_the_data_is_read_is_that_of_afterwards(case: Any, dev: bool) -> None:
    grown(case, dev=dev)
    case.set("data.train_fraction", 0.8)
    case.set("data.dev_fraction", None if dev else 0.3)
    before = plan(case)
    assert all(not stage["kept"] and not stage["again"] for stage in before["stages"])
    case.run("encoder.model=./nowhere")  # the stage after the tables stops
    after = plan(case)
    assert [stage["name"] for stage in after["stages"] if stage["kept"]][:1] == ["ingest"]
    assert before["forecast"] == after["forecast"]
    assert before["rows"] == after["rows"]
    few = [text for text in after["warnings"] if "too few" in text]
    assert len(few) == 2
    assert [text for text in before["warnings"] if "too few" in text] == few


def test_what_a_dry_run_proposes_would_do(case: Any) -> None:
    grown(case, queries=240, dev=False)
    case.set("training.batch_size", 32)
    told = plan(case)
    steps = next(text for text in told["warnings"] if "too few to learn" in text)
    dev = next(text for text in told["warnings"] if "too few to compare" in text)
    for way in steps.rpartition(": ")[2].split(", or "):
        again = plan(case, *way.split())
        assert not [text for text in again["warnings"] if "too few to learn" in text], way
    again = plan(case, dev.rpartition(": ")[2])
    assert again["forecast"]["dev_queries"] >= 50
    assert not [text for text in again["warnings"] if "too few to compare" in text]


def test_labels_that_are_too_large_to_be_read_are_not_read(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "MOST_LOCAL", 100)
    monkeypatch.setattr("jobs.run.dry_run.quick_counts", lambda *_: pytest.fail("they are read"))
    told = plan(case)
    assert told["forecast"] is None
    answer = case.run("--dry-run")
    assert "more than a dry run reads" in answer.out
    assert "the run prints the forecast as soon as it has read them" in answer.out


def test_many_rows_in_small_parquet_files_are_not_read_either(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in (("corpus", case.items), ("queries", case.queries), ("qrels", case.labels)):
        pq.write_table(pa.Table.from_pylist(rows), case.folder / f"{name}.parquet")
        case.set(f"data.{name}", f"{name}.parquet")
    assert plan(case)["forecast"] is not None
    monkeypatch.setattr(quick, "MOST_ROWS", 19)
    assert "have 20 rows, more than a dry run reads (19)" in case.run("--dry-run").out


def test_what_the_user_set_is_marked_with_where_and_null_is_resolved(case: Any) -> None:
    case.set("mining.rules", [{"column": "genres", "keep": "disjoint"}])
    case.set("encoder.hidden", 64)
    out = case.run("--dry-run", "training.epochs=3").out
    lines = out.splitlines()
    assert "* epochs = 3   (command line)" in lines
    assert "* batch_size = 4   (file)" in lines
    assert "  learning_rate = null → 0.01" in lines
    assert "  bad_top1_column = null → genres" in lines
    assert "* hidden = 64 → no effect here   (file)" in lines
    assert any(line.startswith("! encoder.hidden = 64 has no effect: it belongs to encoder.kind") for line in lines)
    told = plan(case, "training.epochs=3")
    assert told["set"]["training.epochs"] == "command line"
    assert told["set"]["training.batch_size"] == "file"
    assert "training.accumulation" not in told["set"]
    assert told["resolved"]["training.learning_rate"] == "0.01"


@pytest.mark.parametrize("begun", [False, True])
def test_a_dry_run_writes_nothing_and_makes_no_folder(case: Any, begun: bool) -> None:
    if begun:
        case.run("encoder.model=./nowhere")
    case.write()
    before, entries = files(case.folder), sorted(case.folder.rglob("*"))
    plan(case, "training.epochs=3")
    assert files(case.folder) == before
    assert sorted(case.folder.rglob("*")) == entries


def test_a_dry_run_writes_nothing_to_s3(case: Any, s3_bucket: str, s3_endpoint: str) -> None:
    case.set("output", f"{s3_bucket}/dry")
    case.set("storage.endpoint", s3_endpoint)
    plan(case)
    assert Store(f"{s3_bucket}/dry", StorageSettings(endpoint=s3_endpoint)).list() == {}


def test_a_dry_run_refuses_data_that_a_run_refuses(case: Any, refused: Any) -> None:
    queries = case.queries
    case.queries = [*queries, queries[0]]
    refused(case.run("--dry-run"), 2, ["1 id(s) of queries occur more than once: 'q0'"])
    case.items = [item | {"embedding": [1.0, 2.0]} for item in case.items]
    case.queries = [query | {"embedding": [1.0, 2.0, 3.0]} for query in queries]
    case.set("data.columns", {"vector": "embedding"})
    refused(case.run("--dry-run"), 2, ["the corpus has vectors of 2 numbers, the queries have vectors of 3"])
    case.queries = [query | {"embedding": [0.0, 0.0]} for query in queries]
    refused(case.run("--dry-run"), 2, ["queries.jsonl, row 1", "is all zero"])


def test_vectors_are_as_long_as_those_of_the_data(case: Any, refused: Any) -> None:
    case.settings["encoder"] = {"kind": "adapter"}
    refused(case.run("--dry-run"), 2, ["needs a `vector` column in corpus and queries"])
    case.set("data.columns", {"vector": "embedding"})
    for rows in (case.items, case.queries):
        for row in rows:
            row["embedding"] = [1.0, 2.0, 3.0, 4.0, 5.0]
    told = plan(case)
    assert told["dimension"] == 5
    assert told["estimates"]["vectors_per_model_bytes"] == (12 + 10) * 5 * 4
    assert told["expected"]["embed"]["written_bytes"] > 0


def test_vectors_are_as_long_as_the_models_where_it_is_here(case: Any) -> None:
    folder = case.folder / "model"
    (folder / "2_Dense").mkdir(parents=True)
    (folder / "config.json").write_text('{"hidden_size": 768}')
    assert vector_length(folder) == 768
    paths = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}]
    (folder / "modules.json").write_text(json.dumps(paths))
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 768, "out_features": 32}')
    case.settings["encoder"] = {"model": str(folder)}
    told = plan(case)
    assert told["dimension"] == 32
    assert told["estimates"]["vectors_per_model_bytes"] == (12 + 10) * 32 * 4
    assert not [text for text in told["warnings"] if "encoder.model" in text]
    plain = case.folder / "static"
    plain.mkdir()
    save_file({"embedding.weight": np.zeros((9, 6), np.float32)}, plain / "model.safetensors")
    assert vector_length(plain) == 6


@pytest.mark.parametrize(("offline", "words"), [(True, "HF_HUB_OFFLINE forbids its download"), (False, "downloads it")])
def test_a_model_that_is_not_here_is_told_before_anything_else(
    case: Any, monkeypatch: pytest.MonkeyPatch, offline: bool, words: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    case.settings["encoder"] = {"model": "some-owner/not-here"}
    lines = case.run("--dry-run").out.splitlines()
    first = next(line for line in lines if line.startswith("! encoder.model"))
    assert "'some-owner/not-here' is not on this machine" in first
    assert words in first
    assert any("vectors of 768 numbers are assumed" in line for line in lines)
    case.set("encoder.model", "./nowhere")
    assert "! encoder.model: there is no folder" in case.run("--dry-run").out
    case.set("encoder", {"kind": "static", "dimension": 8})
    case.set("training.guide", {"model": "some-owner/guide"})
    assert any("training.guide.model: 'some-owner/guide'" in text for text in plan(case)["warnings"])


def test_the_forecast_comes_before_stages_and_settings(case: Any) -> None:
    grown(case)
    out = case.run("--dry-run").out
    forecast, stages, settings = (out.index(words) for words in ("steps", "stages", "settings (* set by you"))
    assert forecast < stages < settings


def test_a_run_that_would_be_refused_for_its_counts_is_told(case: Any) -> None:
    out = case.run("--dry-run", "training.batch_size=64").out
    assert "by its labels and queries the run will be refused: training.batch_size = 64" in out


def test_a_dry_run_on_other_data_is_refused_as_a_run_is(case: Any, refused: Any) -> None:
    case.run("encoder.model=./nowhere")
    case.items[0]["text"] = "another text"
    refused(case.run("--dry-run"), 2, ["holds a run with another data"])


@pytest.mark.cluster
def test_a_dry_run_of_a_finished_run_keeps_all_and_says_what_an_override_runs_again(ray_case: Any, ray_local: Any) -> None:
    grown(ray_case)
    ray_case.set("rounds.compare_random", True)
    ray_case.set("rounds.mined", 2)
    answer = ray_case.run("--json")
    assert answer.code == 0, answer.err
    told = plan(ray_case)
    assert [stage["name"] for stage in told["stages"] if not stage["kept"]] == []
    store = RunRecord.read(_store(ray_case))
    made = {commit.name for commit in store.all if not commit.name.startswith("embed-")}
    assert {stage["name"] for stage in told["stages"] if not stage["name"].endswith("-embed")} == made, "no other stage is listed"
    assert told["forecast"]["smallest_gain"]["basis"] != "", "from the measured rounds"

    def again(*words: str) -> dict[str, str]:
        return {stage["name"]: stage["why"] for stage in plan(ray_case, *words)["stages"] if not stage["kept"]}

    epochs = again("training.epochs=2")
    assert epochs["round-01-train"] == "epochs 1 → 2"
    assert not {"ingest", "tokens", "round-00-train", "round-01-mine"} & epochs.keys(), "the warm-up has epochs of its own"
    assert epochs["finish"].startswith("needs ")
    assert again("evaluation.gate.min_gain=1.0") == {}, "thresholds are no part of the run"
    assert again("mining.samples=5").keys() == {"round-01-report", "round-02-report", "finish"}
    measured = again("evaluation.confidence=0.9")
    assert "baseline-evaluate" in measured
    assert "settings.confidence 0.95 → 0.9" in measured["baseline-evaluate"]
    assert "round-01-train" not in measured
    assert set(again("rounds.seed=18")) > {"base", "round-00-train"}
    # what it says is what happens
    ray_case.capture.readouterr()
    done = ray_case.run("training.epochs=2")
    ran = {line.split()[1] for line in done.err.splitlines() if line.startswith("· ") and "embed-" not in line}
    assert ran == {name for name in epochs if not name.endswith("-embed")}


def _store(case: Any) -> Any:
    from cluster.storage.store import Store

    return Store(load_config(case.folder / "run.toml").root)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_rows_of_a_large_text_file_are_estimated_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    lines = b"".join(
        json.dumps({"id": f"i{n}", "text": f"a text about thing {n * 7919 % 1000}"}).encode() + b"\n" for n in range(30_000)
    )
    path = tmp_path / f"corpus{ending}"
    path.write_bytes(gzip.compress(lines) if ending.endswith(".gz") else lines)
    assert quick.about_rows(str(path), StorageSettings()) == (30_000, True)
    monkeypatch.setattr(quick, "MOST_LOCAL", 1000)
    monkeypatch.setattr(quick, "SAMPLE", 2**19)
    rows, exact = quick.about_rows(str(path), StorageSettings())
    assert not exact
    assert rows == pytest.approx(30_000, rel=0.2)


def test_damaged_objects_and_commits_run_again_and_the_dry_run_says_so(case: Any) -> None:
    case.run("encoder.model=./nowhere")
    table = next((case.folder / "out/run/tables").rglob("*.parquet"))
    whole = table.read_bytes()
    table.write_bytes(whole[:-1])
    first = plan(case)["stages"][0]
    assert (first["name"], first["kept"], first["again"]) == ("ingest", False, True)
    assert "missing or damaged" in first["why"]
    table.write_bytes(whole)
    assert plan(case)["stages"][0]["kept"]
    commit = case.folder / "out/run/commits/ingest.json"
    commit.write_text(commit.read_text().replace('"items"', '"itemz"'))
    assert plan(case)["stages"][0]["why"] == "its commit is damaged"
