"""A run whose driver is killed in every stage: what is left must give the same bytes as a run that nothing disturbs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from cluster.commits import Commit, Ledger
from cluster.storage.store import Store

LOOK_S = 0.02
END_S = 10.0
"""What Ray has not ended after so long is killed like the driver; it takes a minute or more."""


def objects(folder: Path) -> dict[str, dict[str, str]]:
    """Stage -> address -> SHA-256 of what its commit lists, of stages that write tables."""
    commits = Ledger(Store(str(folder))).all()
    return {
        commit.name: {path: str(info["sha256"]) for path, info in commit.listed().items()} for commit in commits if commit.tables
    }


def kill_in(stage: Commit, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, list[str]]:
    """Start a run, and kill its driver once half of what a stage will list is there; returns how long it ran, and which of its
    processes still ran after END_S.

    Args:
        stage: the commit of a run with the same inputs. folder: of the run that is killed.

    Raises:
        SystemExit: the run ended, or committed the stage, before it was killed.
    """
    wanted = [folder / path for path in stage.listed()]
    started = time.monotonic()
    driver = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL)
    while sum(path.exists() for path in wanted) < -(-len(wanted) // 2) and driver.poll() is None:
        time.sleep(LOOK_S)
    if driver.poll() is not None:
        raise SystemExit(f"the run ended with exit code {driver.returncode} before it could be killed in {stage.name}")
    below = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    if (folder / f"commits/{stage.name}.json").exists():
        raise SystemExit(f"{stage.name} was committed before the run was killed")
    seconds = time.monotonic() - started
    left = psutil.wait_procs(below, timeout=END_S)[1]
    names = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            names.append(" ".join(process.cmdline()[:1]).rpartition("/")[2])
            process.kill()
    psutil.wait_procs(left, timeout=END_S)
    return seconds, names
