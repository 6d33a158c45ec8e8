"""A node killed while a run embeds, workers killed in later stages, a node that joins late, storage that fails: the same bytes.

On a Ray of several nodes on this machine. A rank that is killed in training: tests/training. Random faults: `make chaos`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.cluster.faulty_storage import faulty_storage
from benchmarks.cluster.many_nodes import many_nodes
from benchmarks.cluster.small_runs import KEYS, Runs
from cluster.errors import HardmineError
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize
from jobs.config.config import load_config
from jobs.run.driver import run

pytestmark = [pytest.mark.cluster, pytest.mark.faults]
DEADLINE_S = 600.0


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with faulty_storage() as storage, many_nodes(2) as nodes:
        yield Runs(tmp_path, nodes, storage)


def kill(runs: Runs, name: str) -> None:
    """SIGKILL a worker with this in its name as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for worker in runs.nodes.workers():
            with suppress(Exception):  # it has ended
                if name in " ".join(worker.cmdline()):
                    worker.kill()
                    return
        time.sleep(0.05)


def test_what_a_run_leaves_is_the_same_whatever_dies_in_it(ray_local: ClusterSize, runs: Runs) -> None:
    run(load_config(runs.config("calm"), []), progress=Progress(quiet=True))  # on the tests' own Ray, whose processes are warm
    store = runs.store("hit")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("embeddings/", runs.nodes.kill_node),
        ("commits/embed-", runs.nodes.add),
        ("rounds/01/hits-train/", lambda: kill(runs, "ShardActor")),
        ("commits/round-01-search", lambda: runs.nodes.kill_worker(random.Random(0))),
        ("commits/round-01-train", lambda: kill(runs, "ShardActor")),
    ]
    runs.storage.share = 0.02
    driver, deadline, done = runs.start("hit"), time.monotonic() + DEADLINE_S, 0
    try:
        while driver.poll() is None:
            assert time.monotonic() < deadline, runs.log("hit")
            paths: list[str] = []
            with suppress(HardmineError):
                paths = list(store.list())
            if done < len(steps) and any(steps[done][0] in path for path in paths):
                steps[done][1]()
                done += 1
            time.sleep(0.05)
    finally:
        driver.kill()
    assert driver.returncode == 0, runs.log("hit")
    assert done == len(steps)
    assert runs.artifacts("hit") == runs.artifacts("calm")
    said = runs.log("hit")
    assert "1 node(s) left" in said
    assert "1 node(s) joined" in said
    assert "Traceback" not in said
    assert runs.storage.failed > 0


def test_a_run_waits_for_the_nodes_that_it_expects_and_says_what_is_missing(runs: Runs) -> None:
    driver = runs.start("early", "cluster.expect_nodes=3")
    while "waiting for 1 of 3 node(s)" not in runs.log("early"):
        assert driver.poll() is None, runs.log("early")
        time.sleep(0.2)
    runs.nodes.add()
    while "  3 node(s) with 3 CPU(s) and 0 GPU(s); models run on CPUs" not in runs.log("early"):
        assert driver.poll() is None, runs.log("early")
        time.sleep(0.2)
    driver.kill()
    driver.wait()
    driver = runs.start("short", "cluster.expect_nodes=9", "cluster.expect_gpus=2", "cluster.wait_s=1")
    assert driver.wait(timeout=DEADLINE_S) == 3
    assert "lacks 6 of 9 node(s) with CPUs and 2 of 2 GPU(s); after 1 s it has 3 node(s)" in runs.last_words("short")
    runs.nodes.add(gpus=1)  # says Ray, but there is none
    assert runs.start("wrong", "cluster.expect_gpus=1").wait(timeout=DEADLINE_S) == 3
    assert re.search(r"Ray counts a GPU on node [0-9.]+, but (torch|there is no NVIDIA driver)", runs.last_words("wrong"))
