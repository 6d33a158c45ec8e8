"""The device: what it is, how fast it multiplies, and a clock that waits for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

RUNS = 5


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, memory, versions."""
    figures: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        free, memory = torch.cuda.mem_get_info(device)
        figures |= {
            "device": torch.cuda.get_device_name(device),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "memory_gib": round(memory / 2**30, 1),
            "free_gib": round(free / 2**30, 1),
        }
    return figures


def seconds_of(work: Callable[[], Any], device: torch.device, runs: int = RUNS) -> float:
    """Median seconds, the device's work included; one call warms up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    took = []
    for _ in range(runs):
        wait()
        started = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, which is what other figures are shares of."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, device)
