"""Kill the driver with SIGKILL inside each stage and start again: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.commits import Ledger
from cluster.storage import Store
from cluster.tables import read_parts
from jobs.demo.catalogue import generate_catalogue

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
DEADLINE_S = 300.0


def write_config(folder: Path, data: Path, name: str) -> Path:
    """A small run with one mined round, cut so fine that every stage has a middle."""
    path = folder / f"{name}.toml"
    path.write_text(f"""
name = "{name}"
output = "{folder}"
[data]
corpus = "{data}/corpus.parquet"
queries = "{data}/queries.parquet"
qrels = "{data}/qrels.parquet"
[encoder]
kind = "static"
dimension = 64
[rounds]
warmup_epochs = 2
mined = 1
[mining]
num_hits = 50
num_negatives = 16
[training]
batch_size = 32
[cluster]
cpus = 2
part_rows = 64
query_block = 16
shards = 3
""")
    return path


def start(config: Path, cache: Path) -> subprocess.Popen[bytes]:
    """The driver as a process of its own."""
    environment = os.environ | {"HARDMINE_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    with open(config.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "jobs", "run", str(config), "--json"], cwd=ROOT, env=environment,
                                stdout=subprocess.PIPE, stderr=log)


def finish(process: subprocess.Popen[bytes], config: Path) -> dict[str, Any]:
    """Wait for the end; the JSON summary."""
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, config.with_suffix(".log").read_text()[-3000:]
    summary: dict[str, Any] = json.loads(out)
    return summary


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], config: Path) -> None:
    """SIGKILL the driver as soon as `ready` says so."""
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert process.poll() is None, config.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < deadline, "the stage never began"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def tables(root: Path) -> dict[str, Any]:
    """Hits and negatives of all stages, by stage."""
    store = Store(str(root))
    return {f"{commit.name}:{name}": read_parts(store, commit.parts(name))
            for commit in Ledger(store).all() for name in commit.tables if name in ("hits", "negatives")}


def test_a_run_killed_inside_every_stage_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    catalogue = generate_catalogue(num_titles=400, num_queries=320)
    for name in ("corpus", "queries", "qrels"):
        pq.write_table(getattr(catalogue, name), tmp_path / f"{name}.parquet")
    calm = write_config(tmp_path, tmp_path, "calm")
    want = finish(start(calm, tmp_path / "cache-calm"), calm)

    config = write_config(tmp_path, tmp_path, "killed")
    root = tmp_path / "killed"
    commits: dict[str, bytes] = {}

    def some(pattern: str, but_not: str) -> Callable[[], bool]:
        def ready() -> bool:
            return any(True for _ in root.glob(pattern)) and not (root / "commits" / but_not).exists()

        return ready

    inside = {
        "embed": some("embeddings/*/corpus/part-*.parquet", "baseline-hits.json"),
        "train": some("rounds/00/train/*/engine/state.json", "round-00-train.json"),
        "search": some("rounds/01/hits-train/*/*/*/part-*.parquet", "round-01-search.json"),
        "mine": (root / "commits/round-01-search.json").exists,
        "evaluate": (root / "commits/round-01-hits.json").exists,
    }
    for stage, ready in inside.items():
        kill_when(start(config, tmp_path / "cache"), ready, config)
        there = {path.name: path.read_bytes() for path in (root / "commits").glob("*.json")}
        for name, content in commits.items():
            assert there[name] == content, f"{name} was redone after a kill inside {stage}"
        commits = there
    got = finish(start(config, tmp_path / "cache"), config)

    for name, content in commits.items():
        assert (root / "commits" / name).read_bytes() == content, f"{name} was redone"
    assert got["baseline"] == want["baseline"]
    assert [row["metrics"] for row in got["rounds"]] == [row["metrics"] for row in want["rounds"]]
    wanted_tables, found_tables = tables(tmp_path / "calm"), tables(root)
    assert found_tables.keys() == wanted_tables.keys()
    for name, table in wanted_tables.items():
        assert found_tables[name].equals(table), f"{name} differs from the undisturbed run"

    before = len(config.with_suffix(".log").read_text())
    again = finish(start(config, tmp_path / "cache"), config)
    assert again == got
    said = config.with_suffix(".log").read_text()[before:]
    assert "is finished" in said
    assert "✓" not in said, "a finished run must print its table without running a stage"
