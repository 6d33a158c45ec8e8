"""A Ray cluster of several nodes on this machine, each a raylet of its own, whose nodes and workers can be killed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from unittest.mock import patch

import psutil

from benchmarks.cluster.hosts import Host, Network

OBJECT_STORE = 80_000_000
JOIN_S = 60.0
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes that a node does not outlive."""
NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 6,
}
"""Ray notices a node's death in 6 s instead of 20."""


@dataclass(frozen=True)
class Node:
    """A node that does work."""

    root: psutil.Process
    """What all its workers come of."""
    host: Host | None = None
    """The namespace that it is in."""

    def kill(self) -> None:
        """SIGKILL it and everything that it started, as if its machine had lost power."""
        with suppress(psutil.NoSuchProcess):
            for process in [self.root, *self.root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


class ManyNodes:
    """A head that does no work, and nodes of one CPU each."""

    def __init__(self, *, hosts: bool, dashboard: bool) -> None:
        """A head without nodes; see `many_nodes`."""
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": dashboard, "_system_config": NOTICE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.network = Network() if hosts else None
        self.nodes: list[Node] = []
        self.gone: list[Node] = []
        """Nodes that were killed, or are dead to Ray."""

    @property
    def variables(self) -> dict[str, str]:
        """What a driver in another process needs to join."""
        return {"RAY_ADDRESS": self._cluster.address, "RAY_AUTH_MODE": "disabled"}

    @property
    def dashboard(self) -> str:
        """Where jobs are sent."""
        return f"http://{self._cluster.webui_url}"

    @property
    def count(self) -> int:
        """Nodes that do work; some may have ended by themselves."""
        for node in [node for node in self.nodes if not node.root.is_running() or node.root.status() == psutil.STATUS_ZOMBIE]:
            self.nodes.remove(node)
            self.gone.append(node)
        return len(self.nodes)

    def add(self, *, gpus: int = 0, cpus: int = 1, mounts: dict[str, str] | None = None) -> None:
        """Start another node, and return when it is there.

        Args:
            gpus: that Ray is told it has.
            mounts: small disks of a host, folder -> size.
        """
        if self.network is None:
            added = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=OBJECT_STORE)
            self.nodes.append(Node(psutil.Process(added.all_processes["raylet"][0].process.pid)))
            return
        options = (f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={OBJECT_STORE}")
        host = self.network.host(self._cluster.address, *options, mounts=mounts)
        self.nodes.append(Node(host.root, host))
        deadline = time.monotonic() + JOIN_S
        while host.address not in self._alive():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no node joined from {host.address} within {JOIN_S:.0f} s")
            time.sleep(0.1)

    def _alive(self) -> set[str]:
        return {node["NodeManagerAddress"] for node in self._cluster.global_state.node_table() if node["Alive"]}

    def kill_node(self, number: int = -1) -> None:
        """SIGKILL a node."""
        node = self.nodes.pop(number)
        node.kill()
        self.gone.append(node)

    def cut_node(self, number: int = -1) -> Host:
        """Pull the cable of a node in a namespace: Ray takes it for dead, and it ends when it hears of that. Returns its host."""
        node = self.nodes.pop(number)
        assert node.host is not None
        node.host.cut()
        self.gone.append(node)
        return node.host

    def workers(self) -> list[psutil.Process]:
        """The processes of tasks and actors on all nodes that work, those that have something to do first."""
        workers = []
        for node in self.nodes:
            with suppress(psutil.NoSuchProcess):
                for process in node.root.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        name = " ".join(process.cmdline())
                        if name.startswith("ray::") and not name.startswith(AGENTS):
                            workers.append((name.startswith("ray::IDLE"), process))
        return [process for _, process in sorted(workers, key=lambda each: each[0])]

    def node_of(self, name: str) -> Node | None:
        """The node where a worker with this in its name runs."""
        for node in self.nodes:
            with suppress(psutil.NoSuchProcess):
                for process in node.root.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if name in " ".join(process.cmdline()):
                            return node
        return None

    def kill_worker(self, rng: random.Random) -> str:
        """SIGKILL a worker of a kind that is chosen first, so that rare ones are hit as often; its kind, "": there was none."""
        kinds: dict[str, list[psutil.Process]] = {}
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess, IndexError):
                name = worker.cmdline()[0].removeprefix("ray::")
                kinds.setdefault(name.partition(".")[0].partition("(")[0], []).append(worker)
        if not kinds:
            return ""
        kind = rng.choice(sorted(kinds))
        with suppress(psutil.NoSuchProcess):
            rng.choice(kinds[kind]).kill()
            return kind
        return ""

    def close(self) -> None:
        """End all nodes."""
        for node in [*self.nodes, *self.gone]:
            if node.host is not None:
                node.kill()
        self._cluster.shutdown()
        for node in [*self.nodes, *self.gone]:
            if node.host is not None:
                node.host.close()
        if self.network is not None:
            self.network.close()


@contextmanager
def many_nodes(count: int, *, hosts: bool = False, dashboard: bool = False) -> Iterator[ManyNodes]:
    """A cluster of its own that ends with the context.

    Args:
        hosts: each node is in a network namespace of its own.
        dashboard: the head takes jobs.
    """
    with ExitStack() as stack:
        # GOMP_SPINCOUNT: as docs/cluster.md says for a Ray of one's own
        stack.enter_context(patch.dict(os.environ, {"RAY_AUTH_MODE": "disabled", "GOMP_SPINCOUNT": "1000"}))
        nodes = ManyNodes(hosts=hosts, dashboard=dashboard)
        stack.callback(nodes.close)
        for _ in range(count):
            nodes.add()
        yield nodes
