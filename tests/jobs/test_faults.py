"""A node killed while a run embeds, workers killed in later stages, a node that joins late or is cut off, storage that fails or
refuses its keys: the same bytes.

On a Ray of several nodes on this machine. A rank that is killed in training: tests/training. Random faults: `make chaos`.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.cluster.faulty_storage import faulty_storage
from benchmarks.cluster.hosts import can_make_hosts
from benchmarks.cluster.many_nodes import many_nodes
from benchmarks.cluster.small_runs import KEYS, Runs
from cluster.errors import HardmineError
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize
from jobs.config.config import load_config
from jobs.run.driver import run

pytestmark = [pytest.mark.cluster, pytest.mark.faults]
DEADLINE_S = 600.0
AWAY_S = 30.0


@pytest.fixture
def runs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Two nodes; with the parameter "hosts" each in a network namespace of its own."""
    import ray

    hosts = getattr(request, "param", "") == "hosts"
    if hosts and not can_make_hosts():
        pytest.skip("may not make network namespaces")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    address = ray.util.get_node_ip_address() if hosts else "127.0.0.1"
    with faulty_storage(address=address) as storage, many_nodes(2, hosts=hosts) as nodes:
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


Steps = list[tuple[str, Callable[[], object]]]
"""(what an address of the run holds as soon as it is time, what happens then)."""


def disturbed(runs: Runs, steps: Steps) -> str:
    """What a driver says whose run is hit by these steps and leaves what an undisturbed one leaves."""
    run(load_config(runs.config("calm"), []), progress=Progress(quiet=True))  # on the tests' own Ray, whose processes are warm
    store, done = runs.store("hit"), 0
    driver, deadline = runs.start("hit"), time.monotonic() + DEADLINE_S
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
    assert "Traceback" not in runs.log("hit")
    return runs.log("hit")


def test_what_a_run_leaves_is_the_same_whatever_dies_in_it(ray_local: ClusterSize, runs: Runs) -> None:
    steps: Steps = [
        ("embeddings/", runs.nodes.kill_node),
        ("commits/embed-", runs.nodes.add),
        ("rounds/01/hits-train/", lambda: kill(runs, "ShardActor")),
        ("commits/round-01-search", lambda: runs.nodes.kill_worker(random.Random(0))),
        ("commits/round-01-train", lambda: kill(runs, "ShardActor")),
    ]
    runs.storage.share = 0.02
    said = disturbed(runs, steps)
    assert "1 node(s) left" in said
    assert "1 node(s) joined" in said
    assert runs.storage.failed


@pytest.mark.parametrize("runs", ["hosts"], indirect=True)
def test_a_node_that_is_cut_off_for_half_a_minute_costs_time_and_nothing_else(ray_local: ClusterSize, runs: Runs) -> None:
    cut: list[str] = []

    def cut_off(name: str) -> None:
        deadline = time.monotonic() + 60
        while (node := runs.nodes.node_of(name)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert node is not None
        host = runs.nodes.cut_node(runs.nodes.nodes.index(node))
        threading.Timer(AWAY_S, host.join).start()
        cut.append(name)

    steps: Steps = [
        ("rounds/01/hits-train/", lambda: cut_off("ShardActor")),
        ("commits/round-01-search", runs.nodes.add),
        ("rounds/01/train/", lambda: cut_off("RayTrainWorker")),
    ]
    said = disturbed(runs, steps)
    assert cut == ["ShardActor", "RayTrainWorker"]
    assert said.count("1 node(s) left") >= 1


def test_keys_that_expire_stop_the_run_with_one_paragraph_and_new_ones_resume_it(runs: Runs) -> None:
    driver = runs.start("denied")
    while not any("embeddings/" in path for path in runs.store("denied").list()):
        assert driver.poll() is None, runs.log("denied")
        time.sleep(0.05)
    runs.storage.denied = True
    assert driver.wait(timeout=DEADLINE_S) == 3
    said = runs.log("denied").splitlines()
    assert re.match(r"hardmine: cannot \w+.* s3://chaos/denied/.*: access denied .*keys have expired", said[-1])
    assert [line for line in said if not line.startswith(("  ", "· ", "✓ ", "! "))] == [said[-1]]
    runs.storage.denied = False
    driver = runs.start("denied")
    while not any("commits/embed-" in path for path in runs.store("denied").list()):
        assert driver.poll() is None, runs.log("denied")
        time.sleep(0.05)
    driver.kill()
    assert "✓ ingest                   kept" in runs.log("denied")


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
