"""`hardmine pairs` on a large simulated log: seconds, the memory of every process, and a driver that is killed in the middle.

    python -m benchmarks.flywheel.scale --lines 1000000 [--logs FOLDER] [--to FOLDER] [--kill 30]

Makes the log (kept where --logs says), runs the command (unless --to has its result), and prints its seconds and the highest
resident memory of each process, shared memory included. With --kill, a second run is killed after so many seconds and given
again; its tables must be the same bytes as those of the first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.flywheel.simulate import make_log, make_truth, write_ubi

LINES_PER_QUERY = 2.9
CHUNK = 100_000
RARE = 0.3
"""Share of the queries whose text nobody else asks: the number of texts grows with the log, as in a real one."""


def make_logs(folder: Path, lines: int) -> int:
    """Simulated logs of about so many lines; returns how many there are."""
    truth = make_truth(2800, 20_000, 1)
    queries, made = int(lines / LINES_PER_QUERY), 0
    for number, start in enumerate(range(0, queries, CHUNK)):
        log = make_log(truth, min(CHUNK, queries - start), model="pbm", seed=number)
        rare = np.flatnonzero(np.random.default_rng(number).random(len(log.text)) < RARE).tolist()
        log.typed.update({row: f"{truth.texts[log.text[row]]} {number}-{row}" for row in rare})
        made += write_ubi(truth, log, folder, prefix=f"{number:03d}-", seed=number)
    return made


def run(logs: Path, to: Path, kill_s: float | None = None) -> tuple[float, dict[str, float], list[str]]:
    """(seconds, process -> highest memory in MiB, a line for each stage); killed after `kill_s`, if given."""
    command = [sys.executable, "-m", "jobs", "pairs", str(logs), "--to", str(to)]
    started = time.monotonic()
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    highest: dict[str, float] = {}
    while driver.poll() is None:
        if kill_s is not None and time.monotonic() - started > kill_s:
            os.kill(driver.pid, signal.SIGKILL)
            break
        for process in _family(driver.pid):
            try:
                name = "driver" if process.pid == driver.pid else _name(process.cmdline())
                highest[name] = max(highest.get(name, 0.0), process.memory_info().rss / 2**20)
            except psutil.Error:
                continue
        time.sleep(0.25)
    _, err = driver.communicate()
    if kill_s is None and driver.returncode:
        raise SystemExit(err.decode())
    return time.monotonic() - started, highest, [line for line in err.decode().splitlines() if line.startswith("✓")]


def _family(pid: int) -> list[psutil.Process]:
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.Error:
        return []


def _name(command: list[str]) -> str:
    first = command[0] if command else "gone"
    if "ray::" in first:
        return first.split("(")[0]
    return (
        Path(first).name
        if "python" not in first
        else Path(next((one for one in command[1:] if one.endswith(".py")), "python")).name
    )


def digests(to: Path) -> dict[str, str]:
    """Each table's bytes."""
    return {
        str(path.relative_to(to)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((to / "tables").rglob("*.parquet"))
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--kill", type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        logs = options.logs or Path(temporary) / "logs"
        if not logs.exists():
            print(f"{make_logs(logs, options.lines):,} lines", flush=True)
        size = sum(path.stat().st_size for path in logs.iterdir())
        results = options.to or Path(temporary)
        if not (results / "whole" / "pairs.json").exists():
            seconds, memory, stages = run(logs, results / "whole")
            print("\n".join([*stages, f"{size / 2**20:,.0f} MiB in {seconds:.0f} s; highest memory in MiB:"]))
            for name, most in sorted(memory.items(), key=lambda pair: -pair[1]):
                print(f"  {name:<28} {most:8,.0f}", flush=True)
        if options.kill is not None:
            to = results / "killed"
            run(logs, to, options.kill)
            done = len(list(to.rglob("done-*.json")))
            again, memory, stages = run(logs, to)
            same = digests(to) == digests(results / "whole")
            most = max(value for name, value in memory.items() if name.startswith("ray::pairs"))
            print("\n".join([*stages, f"highest memory of a task: {most:,.0f} MiB"]))
            print(f"killed after {options.kill:.0f} s with {done} parts committed; again {again:.0f} s; same bytes: {same}")
            raise SystemExit(not same)


if __name__ == "__main__":
    main()
