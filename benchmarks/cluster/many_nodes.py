"""A Ray cluster of several nodes on this machine, each a raylet of its own, whose nodes and workers can be killed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

OBJECT_STORE = 80_000_000
NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 6,
}
"""Ray notices a node's death in 6 s instead of 20."""


class ManyNodes:
    """A head that does no work, and nodes of one CPU each."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False, "_system_config": NOTICE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = []
        for _ in range(count):
            self.add()

    @property
    def variables(self) -> dict[str, str]:
        """What a driver in another process needs to join."""
        return {"RAY_ADDRESS": self._cluster.address, "RAY_AUTH_MODE": "disabled"}

    @property
    def count(self) -> int:
        """Nodes that do work."""
        return len(self._nodes)

    def add(self, *, gpus: int = 0) -> None:
        """Start another node, and return when it is there. `gpus`: that Ray is told it has."""
        self._nodes.append(self._cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=OBJECT_STORE))

    def kill_node(self, number: int = -1) -> None:
        """SIGKILL a node's raylet and everything that it started, as if its machine had lost power."""
        node = self._nodes.pop(number)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def workers(self) -> list[psutil.Process]:
        """The processes of tasks and actors on all nodes that work, those that have something to do first."""
        found = []
        for node in self._nodes:
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        name = " ".join(process.cmdline())
                        if name.startswith("ray::"):
                            found.append((name.startswith("ray::IDLE"), process))
        return [process for _, process in sorted(found, key=lambda each: each[0])]

    def kill_worker(self, rng: random.Random) -> str:
        """SIGKILL a worker of a kind that is chosen first, so that a rare one is as often hit; its name, "" where there was none."""
        kinds: dict[str, list[psutil.Process]] = {}
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess, IndexError):
                kinds.setdefault(worker.cmdline()[0].removeprefix("ray::").partition(".")[0].partition("(")[0], []).append(worker)
        if not kinds:
            return ""
        kind = rng.choice(sorted(kinds))
        with suppress(psutil.NoSuchProcess):
            rng.choice(kinds[kind]).kill()
            return kind
        return ""

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def many_nodes(count: int) -> Iterator[ManyNodes]:
    """A cluster of its own that ends with the context."""
    before = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    nodes = None
    try:
        nodes = ManyNodes(count)
        yield nodes
    finally:
        if nodes is not None:
            nodes.close()
        if before is None:
            del os.environ["RAY_AUTH_MODE"]
        else:
            os.environ["RAY_AUTH_MODE"] = before
