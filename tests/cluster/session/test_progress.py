"""Progress lines: a stage that hears nothing says so, and what the cluster has left."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime

import pytest

from cluster.session import progress as module
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize


@pytest.mark.cluster
def test_a_silent_stage_says_for_how_long_and_what_is_free(ray_local: ClusterSize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.05)
    monkeypatch.setattr(module, "SILENT_S", 0.3)
    said = io.StringIO()
    with Progress(stream=said).watch("embed"):
        time.sleep(2)
    lines = said.getvalue().splitlines()
    assert "starting" in lines[0]
    assert "nothing new" not in lines[0]
    assert "nothing new for" in lines[-1]
    assert "of 2 CPUs are free" in lines[-1]


@pytest.mark.cluster
def test_a_silent_stage_says_what_waits_for_room(ray_local: ClusterSize) -> None:
    import ray

    task = ray.remote(num_cpus=64)(lambda: None).remote()
    deadline = time.monotonic() + 30
    while "1 × (64 CPU) wait for room" not in module._left():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ray.cancel(task)


def test_a_log_of_json_names_time_level_run_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.LOG_JSON, "1")
    said = io.StringIO()
    progress = Progress(stream=said)
    progress.run, progress.stage = "books", "round-01-mine"
    progress.say("! 3 queries\n have no negative")
    progress.show("  round-01-mine  12 s  half done")
    warning, info = map(json.loads, said.getvalue().splitlines())
    assert list(warning) == ["time", "level", "run", "stage", "message"]
    assert (warning["level"], warning["run"], warning["stage"]) == ("warning", "books", "round-01-mine")
    assert warning["message"] == "3 queries have no negative"
    assert info["level"] == "info"
    assert abs(datetime.fromisoformat(info["time"]).timestamp() - time.time()) < 60
