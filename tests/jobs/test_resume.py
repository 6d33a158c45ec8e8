"""Kill the driver with SIGKILL inside each stage and start again: the run ends as if nothing had happened."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.commits import Ledger
from cluster.session.progress import Progress
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import load_config
from jobs.demo.catalogue import generate_catalogue
from jobs.run.driver import run

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
DEADLINE_S = 900.0


def write_config(folder: Path, name: str, rounds: str = "warmup_epochs = 0\nmined = 1") -> Path:
    """A small run, by default with one mined round, cut so fine that every stage has a middle."""
    path = folder / f"{name}.toml"
    path.write_text(f"""
name = "{name}"
output = "{folder}"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
[encoder]
kind = "static"
dimension = 64
[rounds]
{rounds}
[mining]
num_hits = 50
num_negatives = 16
[training]
batch_size = 16
epochs = 2
[cluster]
cpus = 2
part_rows = 64
query_block = 16
shards = 3
""")
    return path


HELD = """
import re, sys, time
from cluster.storage.store import Store

pattern = re.compile(sys.argv.pop(1))

def held(method):
    def instead(store, path, *rest, **named):
        if pattern.search(path):
            time.sleep(900)
            sys.exit("nobody has killed this driver")
        return method(store, path, *rest, **named)
    return instead

Store.write_json, Store.delete = held(Store.write_json), held(Store.delete)
from jobs.cli.app import main
main()
"""


def start(config: Path, ray_address: dict[str, str], held: str) -> subprocess.Popen[bytes]:
    """The driver as a process of its own.

    Args:
        ray_address: the Ray to join; {}: it starts one of its own, which dies with it.
        held: addresses that the driver never comes to write or delete, so that no stage is over before it is killed.
    """
    environment = os.environ | {"HARDMINE_CACHE": str(config.parent / "cache"), "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    with open(config.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", HELD, held, "run", str(config)],
            cwd=ROOT,
            env=environment | ray_address,
            stdout=log,
            stderr=log,
        )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], config: Path) -> None:
    """SIGKILL the driver as soon as `ready` says so."""
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert process.poll() is None, config.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < deadline, "the stage never began"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def there_is(root: Path, pattern: str) -> bool:
    return any(True for _ in root.glob(pattern))


def tables(root: Path) -> dict[str, Any]:
    """Hits and negatives of all stages, by stage."""
    store = Store(str(root))
    return {
        f"{commit.name}:{name}": read_parts(store, commit.parts(name))
        for commit in Ledger(store).all()
        for name in commit.tables
        if name in ("hits", "negatives")
    }


def run_here(config: Path) -> tuple[dict[str, Any], str]:
    """Run in this process: (the summary as JSON has it, what a person was told)."""
    said = io.StringIO()
    summary = run(load_config(config), progress=Progress(stream=said))
    return json.loads(json.dumps(summary)), said.getvalue()


def test_a_run_killed_inside_every_stage_ends_like_an_undisturbed_one(
    tmp_path: Path, ray_address: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache-calm"))
    catalogue = generate_catalogue(num_titles=300, num_queries=240)
    for name in ("corpus", "queries", "qrels"):
        pq.write_table(getattr(catalogue, name), tmp_path / f"{name}.parquet")
    want, _ = run_here(write_config(tmp_path, "calm"))

    config = write_config(tmp_path, "killed")
    root = tmp_path / "killed"
    commits: dict[str, bytes] = {}

    inside = {  # stage -> (what it leaves when it has begun, what it never comes to)
        "embed": ("embeddings/*/corpus/part-*.parquet", "commits/embed-"),
        "search": ("rounds/01/hits-train/*/*/*/part-*.parquet", "commits/round-01-search"),
        "mine": ("commits/round-01-search.json", "commits/round-01-mine"),
        "train": ("rounds/01/train/*/**/state.json", "rounds/01/train/.*/engine"),  # which it deletes before its commit
        "evaluate": ("commits/round-01-hits.json", "commits/round-01-evaluate"),
    }
    for stage, (begun, held) in inside.items():
        # a Ray of its own ends with the driver, as on a laptop; another one goes on without it, as on a cluster
        process = start(config, {} if stage == "train" else ray_address, held)
        kill_when(process, partial(there_is, root, begun), config)
        there = {path.name: path.read_bytes() for path in (root / "commits").glob("*.json")}
        for name, content in commits.items():
            assert there[name] == content, f"{name} was redone after a kill inside {stage}"
        commits = there
    got, _ = run_here(config)

    for name, content in commits.items():
        assert (root / "commits" / name).read_bytes() == content, f"{name} was redone"
    assert got["baseline"] == want["baseline"]
    assert [row["metrics"] for row in got["rounds"]] == [row["metrics"] for row in want["rounds"]]
    wanted_tables, found_tables = tables(tmp_path / "calm"), tables(root)
    assert found_tables.keys() == wanted_tables.keys()
    for name, table in wanted_tables.items():
        assert found_tables[name].equals(table), f"{name} differs from the undisturbed run"

    again, said = run_here(config)
    assert again == got
    assert "is finished" in said
    assert "✓" not in said, "a finished run must print its table without running a stage"


def digests(root: Path) -> dict[str, str]:
    """Models, vectors, hits and negatives: the SHA-256 of each file; and the figures of each evaluation."""
    commits = [commit for commit in Ledger(Store(str(root))).all() if commit.name != "finish"]
    listed = {path: str(info["sha256"]) for commit in commits for path, info in commit.listed().items()}
    timed = ("telemetry", "/report/")  # with seconds in them
    files = {path: digest for path, digest in listed.items() if not any(part in path for part in timed)}
    return files | {commit.name: json.dumps(commit.figures["metrics"]) for commit in commits if "metrics" in commit.figures}


def test_a_run_that_mines_while_it_trains_ends_with_the_same_bytes_when_it_is_killed_in_both_at_once(
    tmp_path: Path, ray_address: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    catalogue = generate_catalogue(num_titles=300, num_queries=240)
    for name in ("corpus", "queries", "qrels"):
        pq.write_table(getattr(catalogue, name), tmp_path / f"{name}.parquet")
    rounds = "warmup_epochs = 1\nmined = 2\nbackground = true"
    want, said = run_here(write_config(tmp_path, "calm", rounds))
    begun = [line.split()[1] for line in said.splitlines() if line.startswith("· ")]
    assert begun.index("round-01-train") < begun.index("round-02-mine") < begun.index("round-02-train")

    config, root = write_config(tmp_path, "killed", rounds), tmp_path / "killed"
    process = start(config, ray_address, "rounds/01/train/.*/engine|commits/round-02-mine")
    both = ("rounds/01/train/*/**/state.json", "rounds/02/mine/*/negatives/**/part-*.parquet")
    kill_when(process, lambda: all(there_is(root, pattern) for pattern in both), config)
    assert not {"round-01-train", "round-02-mine"} & set(Ledger(Store(str(root))).names()), "one had ended before the other began"
    got, _ = run_here(config)
    assert [row["metrics"] for row in got["rounds"]] == [row["metrics"] for row in want["rounds"]]
    assert digests(root) == digests(tmp_path / "calm")
    hits = Ledger(Store(str(root))).find("round-02-search")
    warm = Ledger(Store(str(root))).find("round-00-hits")
    assert hits is not None
    assert warm is not None
    assert hits.inputs["vectors"] == warm.inputs["vectors"], "round 2 is mined with the model of the warm-up"
