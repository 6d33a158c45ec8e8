"""Measuring: the machine, paired runs, peak memory of processes."""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """The machine and the versions that matter for speed."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ("numpy", "torch", "faiss-cpu", "numba", "ray", "sentence-transformers")
    return {
        "processor": model,
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def paired(works: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that a slow minute of the machine hits all of them."""
    for work in works.values():
        work()  # compiles, allocates, warms caches
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs):
        order = list(works.items())
        for name, work in order if number % 2 == 0 else reversed(order):
            took[name].append(timed(work))
    return {name: statistics.median(values) for name, values in took.items()}


class PeakMemory:
    """Peak resident memory of this process and of every Ray worker, while it is watched."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def megabytes(self) -> dict[str, int]:
        """Highest resident memory seen of each kind of process, MiB; of several alike, the largest."""
        return {name: peak // 2**20 for name, peak in sorted(self._peaks.items())}

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._stop.wait(0.1):
            for process in [own, *own.children(recursive=True)]:
                try:
                    name = "driver" if process.pid == own.pid else " ".join(process.cmdline()[:1])
                    resident, shared = process.memory_info().rss, process.memory_info().shared
                except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                    continue
                if name == "driver" or name.startswith("ray::"):
                    name = name.partition(".")[0]
                    # Ray's object store is shared by all: it is counted by itself, not once for every reader
                    self._peaks[name] = max(self._peaks.get(name, 0), resident - shared)
