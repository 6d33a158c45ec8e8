"""Scenarios of training on several gloo ranks of this machine, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_ranks(worker: Path, world: int, folder: Path, timeout_s: float = 900.0) -> str:
    """Run `worker RANK WORLD FOLDER` on every rank at once; what all of them printed. A rank that fails is an error."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HARDMINE_CACHE": str(folder / "cache"),
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(world), str(folder)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(outputs)
    return "\n".join(outputs)
