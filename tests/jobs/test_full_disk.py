"""A disk that fills up, in whatever stage: exit code 3 and one paragraph; with room again, the same command resumes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from jobs.record.record import RunRecord

STEP = 128
"""KiB that the disk grows by from one try to the next."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """The folder `out` on a disk of its own; the function sets its size in KiB."""
    folder = tmp_path / "out"
    folder.mkdir()

    def mount(options: str) -> bool:
        return not subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True).returncode

    if not mount("size=16k"):
        pytest.skip("may not mount")
    try:
        yield lambda size: None if mount(f"remount,size={size}k") else pytest.fail("remount")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.cluster
@pytest.mark.faults
def test_a_full_disk_stops_the_run_in_any_stage_and_the_same_command_resumes(
    ray_local: ClusterSize, ray_case: Any, small_disk: Callable[[int], None], refused: Callable[[Any, int, Sequence[str]], None]
) -> None:
    ray_case.set("training.checkpoint_steps", 1)
    size, stages = 16, set[str]()
    while (answer := ray_case.run()).code:
        refused(answer, 3, ["No space left on device", "check the disk", "it resumes"])
        assert str(ray_case.folder / "out") in answer.message
        stages |= {line.split()[1] for line in answer.err.splitlines() if line.startswith("· ")}
        size += STEP
        assert size < 4096
        small_disk(size)
    assert {"ingest", "round-01-train"} & stages
    assert len(stages) > 2
    assert RunRecord.read(Store(str(ray_case.folder / "out/run"))).finish is not None
    assert ray_case.run().code == 0
