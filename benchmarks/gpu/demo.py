"""The demo on the device, from generated data to its report."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import torch

from benchmarks.shared.command import Row
from benchmarks.shared.inputs import temporary_folder


def case_demo(device: torch.device, *, quick: bool) -> list[Row]:
    """The loop with a transformer, a random arm beside it."""
    with temporary_folder() as folder:
        titles = "200" if quick else "2000"
        command = ["-m", "jobs", "demo", "--encoder", "transformer", "--titles", titles, "--output", str(folder), "--json"]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        return [{"case": "demo", "passed": False, "failed": done.stderr.splitlines()[-1:]}]
    summary = json.loads(done.stdout)
    return [
        {
            "case": f"demo transformer {titles} titles",
            "ours_s": seconds,
            "passed": len(summary["rounds"]) == 3,
            "recall@3": max(row["metrics"]["recall@3"] for row in summary["rounds"]),
            "off_the_shelf": summary["baseline"]["recall@3"],
        }
    ]
