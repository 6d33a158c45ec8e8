"""The whole loop through the command line on the real engines: Ray Data, FAISS, Ray Train, DeepSpeed, S3 over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from cluster.commits import Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import read_parts
from jobs.demo.catalogue import generate_catalogue
from jobs.demo.transformer import write_small_transformer
from jobs.finished.gate.latency import LEAST_PAIRS, QUERIES

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
METRICS = {"recall@3", "recall@10", "hit@1", "hit@5", "hit@10", "ndcg@10", "mrr@10", "bad_top1"}


def write_catalogue(folder: Path, titles: int = 300, queries: int = 240) -> dict[str, pa.Table]:
    """A small catalogue as Parquet files."""
    catalogue = generate_catalogue(num_titles=titles, num_queries=queries)
    tables = {name: getattr(catalogue, name) for name in ("corpus", "queries", "qrels")}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return tables


def here(case: Any, *arguments: str) -> dict[str, Any]:
    """Run the command in this process; its JSON."""
    answer = case.hardmine(*arguments, "--json")
    assert answer.code == 0, answer.err
    value: dict[str, Any] = json.loads(answer.out)
    return value


def in_a_process(*arguments: str, cache: Path) -> dict[str, Any]:
    """Run the command, which starts a Ray of its own; its JSON, after checking that it succeeded and printed nothing else on
    standard output."""
    environment = os.environ | {"HARDMINE_CACHE": str(cache), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 1, done.stdout
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_two_ranks_with_zero_2_on_s3_from_data_to_a_model_that_sentence_transformers_opens(
    tmp_path: Path, s3_bucket: str, s3_endpoint: str, ray_case: Any
) -> None:
    tables = write_catalogue(tmp_path)
    write_small_transformer(tmp_path)
    config = tmp_path / "run.toml"
    config.write_text(f"""
name = "story"
output = "{s3_bucket}/runs"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
item_text = "{{title}} by {{author}} | {{genres}} | {{text}}"
[encoder]
model = "small-transformer"
query_prompt = "query: "
[rounds]
mined = 1
[mining]
num_hits = 60
num_negatives = 16
[[mining.rules]]
column = "genres"
keep = "disjoint"
[training]
batch_size = 16
learning_rate = 1e-3
zero_stage = 2
[cluster]
cpus = 2
train_workers = 2
shards = 2
part_rows = 128
micro_batch_tokens = 1024
[storage]
endpoint = "{s3_endpoint}"
""")
    plan = here(ray_case, "run", str(config), "--dry-run")
    assert plan["rows"] == {"corpus": 300, "queries": tables["queries"].num_rows, "labels": tables["qrels"].num_rows}
    summary = in_a_process("run", str(config), cache=tmp_path / "cache")

    assert summary["baseline"].keys() >= METRICS
    assert [row["round"] for row in summary["rounds"]] == [0, 1]
    assert [row["negatives"] for row in summary["rounds"]] == ["random", "mined"]
    assert all(row["metrics"].keys() >= METRICS and row["train_loss"] > 0 for row in summary["rounds"])
    assert 0 < summary["rounds"][1]["hit_rate"] <= 1
    assert summary["rounds"][1]["seconds"].keys() == {"embed", "search", "mine", "train", "evaluate", "overhead"}
    assert summary["random_arm"] is None
    assert summary["best_round"] >= 0, "training on the catalogue must beat a transformer that knows nothing"

    store = Store(f"{s3_bucket}/runs/story", StorageSettings(endpoint=s3_endpoint))
    _no_secret_in(store)
    _negatives_are_negatives(store, tables)
    _model_gives_the_run_s_vectors(store, summary, tables, tmp_path)
    status = here(ray_case, "status", store.root, "--endpoint", s3_endpoint)
    assert status["finished"]
    assert status["rounds"] == summary["rounds"]
    assert summary["report"] == store.url("report.html"), "a run ends with its report"
    assert b"not finished" not in store.read_bytes("report.html")
    _the_gate_reads_the_same_figures(store, summary, s3_endpoint, ray_case)


def _the_gate_reads_the_same_figures(store: Store, summary: dict[str, Any], endpoint: str, case: Any) -> None:
    off = ("max_added_p95", "max_popularity_gain", "min_coverage", "max_gini_gain")
    words = ["metrics.recall@3.min=0", "min_gain=-100", "max_added_ms=1e6", "slices=false", *(f"{name}=off" for name in off)]
    judged = here(case, "gate", store.root, *(f"evaluation.gate.{word}" for word in words), "--endpoint", endpoint)
    checks = {check["name"]: check for check in judged["checks"]}
    row = next(row for row in summary["rounds"] if row["round"] == summary["best_round"])
    assert judged["round"] == summary["best_round"]
    assert checks["recall@3:min"]["value"] <= checks["recall@3:min"]["attainable"] <= 1
    assert checks["recall@3:min"]["value"] == pytest.approx(row["metrics"]["recall@3"])
    assert checks["gain:recall@3"]["interval"]["low"] == pytest.approx(100 * row["against_baseline"]["recall@3"]["low"])
    assert LEAST_PAIRS <= judged["latency"]["pairs"] <= QUERIES
    assert judged["latency"]["base_p50"] > 0
    assert len(judged["worse"]) == min(20, judged["worse_total"])


def _no_secret_in(store: Store) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    for path in store.list():
        assert secret not in store.read_bytes(path), f"{path} holds the secret key"


def _negatives_are_negatives(store: Store, tables: dict[str, pa.Table]) -> None:
    commit = Ledger(store).find("round-01-mine")
    assert commit is not None
    negatives = read_parts(store, commit.parts("negatives"))
    figures = commit.figures
    assert figures["survivors"] == figures["candidates"] - sum(figures["dropped"].values())
    assert figures["dropped"]["rule:genres:disjoint"] > 0
    assert negatives.schema.field("negatives").type == pa.list_(
        pa.struct(
            [
                ("item_id", pa.string()),
                ("score", pa.float32()),
                ("position", pa.int64()),
                ("source", pa.string()),
                ("teacher_score", pa.float32()),
                ("round", pa.int32()),
            ]
        )
    )
    genres = dict(zip(tables["corpus"]["id"].to_pylist(), tables["corpus"]["genres"].to_pylist(), strict=True))
    groups = dict(zip(tables["corpus"]["id"].to_pylist(), tables["corpus"]["group"].to_pylist(), strict=True))
    for row in negatives.to_pylist():
        known = {genre for item in row["positive_ids"] for genre in genres[item]}
        franchises = {groups[item] for item in row["positive_ids"]} - {None}
        for negative in row["negatives"]:
            assert negative["item_id"] not in row["positive_ids"]
            if negative["source"] == "model":
                assert not known & set(genres[negative["item_id"]])
                assert groups[negative["item_id"]] not in franchises


def _model_gives_the_run_s_vectors(store: Store, summary: dict[str, Any], tables: dict[str, pa.Table], folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    prefix = summary["model"].removeprefix(store.root).strip("/")
    for path in store.list(prefix):
        target = folder / "model" / path.removeprefix(prefix).strip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read_bytes(path))
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    ledger = Ledger(store)
    measured = ledger.find(f"round-{summary['best_round']:02d}-hits")
    assert measured is not None
    vectors = next(commit for commit in ledger.all() if commit.key == measured.inputs["vectors"])
    queries = load_vectors(store, vectors.parts("queries"))
    texts = tables["queries"]["text"].to_pylist()[:50]
    ours, theirs = queries[:50], model.encode(texts, prompt_name="query")
    cosine = (ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() >= 0.9999
    code: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(summary["usage"], code)
    assert np.allclose(code["queries"], model.encode(["a query"], prompt_name="query"), atol=1e-5)
    card = (folder / "model/README.md").read_text()
    assert f"| Recall@3 | {summary['baseline']['recall@3']:.3f} |" in card
    assert "query: " in card


def test_an_adapter_on_given_vectors_starts_from_the_first_mined_round_with_an_arm_of_random_negatives(
    tmp_path: Path, ray_case: Any, ray_local: Any
) -> None:
    tables = write_catalogue(tmp_path)
    for folder, titles, queries in (("general", 120, 60), ("mix", 110, 80)):
        (tmp_path / folder).mkdir()
        add_vectors(tmp_path / folder, write_catalogue(tmp_path / folder, titles, queries))
    add_vectors(tmp_path, tables)
    config = tmp_path / "adapter.toml"
    config.write_text(f"""
name = "adapter"
output = "{tmp_path}"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
[data.mix]
corpus = "mix/corpus.parquet"
queries = "mix/queries.parquet"
qrels = "mix/qrels.parquet"
share = 0.25
[encoder]
kind = "adapter"
hidden = 64
[rounds]
warmup_epochs = 0
mined = 1
merge = [50]
compare_random = true
[evaluation]
events = true
[evaluation.general]
corpus = "general/corpus.parquet"
queries = "general/queries.parquet"
qrels = "general/qrels.parquet"
[cluster]
cpus = 2
""")
    mined = here(ray_case, "mine", str(config), "--round", "1")
    assert mined["queries"] > 0
    assert not (tmp_path / "adapter/commits/round-01-train.json").exists()
    summary = here(ray_case, "run", str(config), "evaluation.split=test")
    assert [(row["round"], row["negatives"]) for row in summary["rounds"]] == [(1, "mined"), (150, None)]
    arm = summary["random_arm"]
    assert arm["metrics"].keys() >= METRICS
    assert arm["steps"] == summary["rounds"][0]["steps"], "the arm must have as many steps as the mined round"
    assert arm["against_mined"]["recall@3"]["mean"] == pytest.approx(
        arm["metrics"]["recall@3"] - summary["rounds"][0]["metrics"]["recall@3"]
    )
    assert summary["test"].keys() == {"baseline", "best", "random_arm"}
    assert summary["test"]["baseline"]["metrics"] != summary["baseline"]
    embedded = list((tmp_path / "adapter/commits").glob("embed-*.json"))
    assert len(embedded) == 7, "the given vectors, the adapter's, the merged, the arm's; the general set's but the arm's"
    _general_set_is_watched(tmp_path / "adapter", summary)
    _a_quarter_of_the_steps_are_of_the_set_that_is_mixed_in(tmp_path / "adapter")
    _events_tell_what_was_measured(Store(str(tmp_path / "adapter")), summary)
    _figures_are_told_and_change_without_training(tmp_path, config, ray_case)


def _figures_are_told_and_change_without_training(folder: Path, config: Path, case: Any) -> None:
    figures = {
        name: json.loads((folder / f"adapter/{name}/evaluation.json").read_text())
        for name in ("baseline", "rounds/01", "rounds/01-random")
    }
    assert figures["baseline"].keys() >= {"slices", "results", "scores", "leakage"}
    assert not [name for name in figures["baseline"] if name.startswith("against_")]
    for name in ("rounds/01", "rounds/01-random"):
        assert figures[name].keys() >= {"slices", "results", "scores", "against_baseline", "against_previous"}
        assert "editorial" in [row["value"] for row in figures[name]["slices"]["source"]["slices"]]
        assert figures[name]["against_previous"] == figures[name]["against_baseline"], "no warm-up: both start off the shelf"

    def made() -> dict[str, float]:
        return {path.stem: json.loads(path.read_text())["created"] for path in (folder / "adapter/commits").glob("*.json")}

    before = made()
    _the_merged_model_is_an_average_and_made_again_the_same(
        folder / "adapter", lambda: here(case, "run", str(config), "evaluation.slices=['kind']")
    )
    again = {name for name, when in made().items() if before.get(name) != when}
    sliced = json.loads((folder / "adapter/rounds/01/evaluation.json").read_text())["slices"]
    assert sliced.keys() == {"kind"}
    evaluated = {f"{name}-evaluate" for name in ("baseline", "round-01", "merged-50", "round-01-random")}
    assert again == {*evaluated, "merged-50-merge", "finish"}, "nothing else is made anew"


def _the_merged_model_is_an_average_and_made_again_the_same(root: Path, run_again: Callable[[], Any]) -> None:
    ledger = Ledger(Store(str(root)))
    base, trained, merged = (ledger.find(name) for name in ("base", "round-01-train", "merged-50-merge"))
    assert base is not None
    assert trained is not None
    assert merged is not None
    prefixes = base.figures["adapter_prefix"], trained.figures["prefix"], merged.figures["prefix"]
    first, last, between = (load_file(root / prefix / "adapter.safetensors") for prefix in prefixes)
    for name, value in between.items():
        np.testing.assert_allclose(value, (first[name] + last[name]) / 2, rtol=0, atol=1e-7)
    assert 0 < merged.figures["cosine"] < 1
    assert merged.figures["round"] == 1
    (root / "commits/merged-50-merge.json").unlink()
    run_again()
    again = ledger.find("merged-50-merge")
    assert again is not None
    assert [info["sha256"] for info in again.files.values()] == [info["sha256"] for info in merged.files.values()]


def add_vectors(folder: Path, tables: dict[str, pa.Table]) -> None:
    """Random base vectors for the items and queries of a folder."""
    rng = np.random.default_rng(0)
    for name in ("corpus", "queries"):
        vectors = rng.normal(size=(tables[name].num_rows, 32)).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 32)
        pq.write_table(tables[name].append_column("vector", column), folder / f"{name}.parquet")


def _general_set_is_watched(root: Path, summary: dict[str, Any]) -> None:
    ledger = Ledger(Store(str(root)))
    tables, measured = ledger.find("general-ingest"), ledger.find("general-round-01-evaluate")
    assert tables is not None
    assert measured is not None
    assert tables.figures["splits"] == {"general": 60, "none": 0}, "all labelled queries, whatever their split"
    assert (measured.figures["queries"], measured.figures["split"], measured.figures["round"]) == (60, "general", 1)
    general = summary["rounds"][0]["general"]
    assert general["recall@3"] == measured.figures["metrics"]["recall@3"]
    assert general["against_baseline"]["recall@3"]["mean"] == pytest.approx(
        general["recall@3"] - summary["general_baseline"]["recall@3"]
    )
    assert "general" not in summary["random_arm"]


def _a_quarter_of_the_steps_are_of_the_set_that_is_mixed_in(root: Path) -> None:
    ledger = Ledger(Store(str(root)))
    tables, trained, arm = (ledger.find(name) for name in ("mix-ingest", "round-01-train", "round-01-random-train"))
    assert tables is not None
    assert trained is not None
    assert arm is not None
    assert set(tables.figures["splits"]) == {"train", "none"}
    assert tables.figures["splits"]["none"] > 0, "its dev and test queries are not trained on"
    assert trained.inputs["mix"] == arm.inputs["mix"] == {"tables": tables.key, "features": tables.key, "share": 0.25}
    own = trained.figures["examples"] // trained.figures["joined_batch"]
    assert trained.figures["steps"] == own + round(own / 3)
    assert trained.figures["items_loaded"] == 300 + 110


def _events_tell_what_was_measured(store: Store, summary: dict[str, Any]) -> None:
    files = store.read_json("events/index.json")["files"]
    events = [json.loads(line) for path in files for line in store.read_bytes(path).decode().split("\n")[:-1]]
    stages = [event["stage"] for event in events]
    assert set(stages) == {
        *("baseline", "round-01", "merged-50", "round-01-random", "test-baseline", "test-best", "test-random_arm")
    }
    of_round = [event for event in events if event["stage"] == "round-01"]
    commit = Ledger(store).find("round-01-evaluate")
    assert commit is not None
    per_query = read_parts(store, commit.parts("per_query"), ["hit@5"])["hit@5"].to_pylist()
    assert [float(event["hits"]["hit@5"]) for event in of_round] == per_query
    assert all(len(event["top"]) == 10 and event["top"][0]["title"] and event["query"] for event in of_round)
    assert np.mean([event["top"][0]["relevant"] for event in of_round]) == pytest.approx(summary["rounds"][0]["metrics"]["hit@1"])
