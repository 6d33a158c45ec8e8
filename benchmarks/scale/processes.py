"""Peak memory of a command and of every process that it starts, by kind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

EVERY_S = 0.1


@dataclass(frozen=True)
class Watched:
    """A command that has ended."""

    code: int
    out: str
    seconds: float
    peak_mib: dict[str, int]
    """Kind of process -> highest resident memory of one of them, without what is shared with others (Ray's object store)."""


def watch(command: Sequence[str], environment: Mapping[str, str]) -> Watched:
    """Run a command; its standard error goes to ours."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    own = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(EVERY_S)
        try:
            everyone = [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for each in everyone:
            try:
                name = "driver" if each.pid == own.pid else " ".join(each.cmdline()[:1])
                memory = each.memory_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if name == "driver" or name.startswith("ray::"):
                name = name.removeprefix("ray::").partition("(")[0].partition(".")[0]
                peaks[name] = max(peaks.get(name, 0), memory.rss - memory.shared)
    out = process.communicate()[0]
    seconds = time.perf_counter() - started
    return Watched(process.returncode, out, seconds, {name: size // 2**20 for name, size in sorted(peaks.items())})
