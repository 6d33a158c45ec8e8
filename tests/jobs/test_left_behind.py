"""What a driver leaves when it ends well, with an error, or is killed: its run, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
DEADLINE_S = 300.0


@pytest.fixture
def temporary() -> Iterator[Path]:
    """An empty folder for temporary files; its path is short, because Ray puts sockets into it."""
    folder = Path(tempfile.mkdtemp(prefix="hm-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(case: Any, temporary: Path, mark: str) -> subprocess.Popen[bytes]:
    """`hardmine run` with a Ray of its own; every process that comes of it has `mark` in its environment."""
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "LEFT_BEHIND": mark}
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "HARDMINE_DEBUG", "HARDMINE_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "jobs", "run", str(case.write())]
    # where tests run in the background of a shell they are deaf to SIGINT, and so would be what they start
    command = ["env", "--default-signal=INT", *command]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(process: subprocess.Popen[bytes], there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not there():
        assert process.poll() is None, process.communicate()[0].decode()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(process: subprocess.Popen[bytes], code: int) -> str:
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, out.decode()[-3000:]
    return out.decode()


def processes(mark: str) -> list[str]:
    """Command lines of the processes that a driver has started and that still run."""
    running = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"LEFT_BEHIND={mark}".encode() in (entry / "environ").read_bytes():
                running.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        except OSError:  # it has just ended, or is another user's
            continue
    return running


def processes_after(mark: str, wait_s: float) -> list[str]:
    deadline = time.monotonic() + wait_s
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def unfinished(case: Any) -> list[str]:
    """Half-written files and the writer's lease, in the run."""
    found = [*case.folder.rglob("*.partial"), *case.folder.rglob("writer.json")]
    return [str(path) for path in found]


def test_a_run_that_ends_with_an_error_leaves_what_is_committed_and_nothing_else(ray_case: Any, temporary: Path) -> None:
    ray_case.set("mining.rules", [{"column": "nothing", "keep": "disjoint"}])  # told after Ray has started and data is read
    mark = uuid.uuid4().hex
    assert "nothing" in end(start(ray_case, temporary, mark), 2)
    assert processes_after(mark, 60) == []
    assert files(temporary) == []
    assert unfinished(ray_case) == []


def test_ctrl_c_during_training_is_one_line_and_leaves_nothing(ray_case: Any, temporary: Path) -> None:
    ray_case.set("rounds.warmup_epochs", 1000)
    mark, root = uuid.uuid4().hex, ray_case.folder / "out/run"
    process = start(ray_case, temporary, mark)
    wait_for(process, lambda: any((root / "rounds/00/train").rglob("state.json")))  # a checkpoint: Ray Train runs
    process.send_signal(signal.SIGINT)
    last = end(process, 130).splitlines()[-1]
    assert last == "hardmine: stopped; what is committed is kept, the same command resumes"
    assert processes_after(mark, 60) == []
    assert files(temporary) == []
    assert unfinished(ray_case) == []


def test_the_run_after_a_kill_removes_what_the_killed_one_left_and_ends_with_its_run_and_nothing_else(
    ray_case: Any, temporary: Path
) -> None:
    ray_case.set("rounds.warmup_epochs", 0)
    mark, root = uuid.uuid4().hex, ray_case.folder / "out/run"
    process = start(ray_case, temporary, mark)
    wait_for(process, lambda: any(root.glob("tables/**/*.parquet")))  # of its stages, the next run does all that use Ray
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert processes_after(mark, 240) == [], "the local Ray ends with its driver"
    assert unfinished(ray_case), "the lease at least"
    (root / "tables/.0123456789ab.partial").write_bytes(b"half")
    end(start(ray_case, temporary, mark), 0)
    assert processes_after(mark, 60) == []
    assert files(temporary) == []
    assert unfinished(ray_case) == []
