"""Counters for Prometheus: what the workers of a run have done, beside Ray's own figures of CPUs, GPUs and memory."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from typing import Any

COUNTERS = {
    "hardmine_texts_embedded": "Texts, or rows of vectors, that a model has encoded",
    "hardmine_queries_searched": "Queries that were searched in one shard",
    "hardmine_queries_trained": "Queries that training steps have seen, over all ranks",
    "hardmine_optimizer_steps": "Optimizer steps",
}
"""Name -> meaning. Ray puts "ray_" in front of the name."""


def add_to(name: str, amount: int) -> None:
    """Add to one of COUNTERS; nothing where no Ray runs. Never fails: a figure is not worth a run."""
    ray = sys.modules.get("ray")
    with suppress(Exception):
        if ray is not None and amount > 0 and ray.is_initialized():
            _counter(name).inc(amount)


@functools.cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    return Counter(name, description=COUNTERS[name])
