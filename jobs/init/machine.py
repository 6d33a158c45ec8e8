"""What this machine has: CPUs, memory, GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Memory that a container may use."""


@dataclass(frozen=True)
class Machine:
    """What a run could use."""

    cpus: int
    memory_gib: float
    gpus: int = 0
    gpu_memory_gib: float = 0.0

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU(s) of {self.gpu_memory_gib:.0f} GiB" if self.gpus else "no GPU"
        return f"{self.cpus} CPUs, {gpus}, {self.memory_gib:.0f} GiB of memory"


def this_machine() -> Machine:
    """Its CPUs and memory as far as this process may use them, and its GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if LIMIT.exists() and (limit := LIMIT.read_text().strip()).isdigit():
        memory = min(memory, int(limit))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count()
    of_gpu = torch.cuda.get_device_properties(0).total_memory / 2**30 if gpus else 0.0
    return Machine(cpus, memory / 2**30, gpus, of_gpu)
