"""Progress lines: a stage that hears nothing says so, and what the cluster has left."""

from __future__ import annotations

import io
import time

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
