"""What the cluster has: waited for before the first stage, asked anew before each, and never less without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from cluster.errors import ClusterError
from cluster.session.resources import ClusterSettings, ClusterSize, PoolSize, lacking, shrunk

LOOK_AGAIN_S = 1.0
RELEASE_S = 20.0
"""How long what earlier stages held may take to be free."""
PLACE_S = 600.0
"""How long an actor may wait for room on a node."""
SHOWN = 8
"""Nodes that a message names."""
PING_S = 90.0
"""How long to wait for an answer of every node: by then Ray has noticed the death of those that give none."""


def work_nodes() -> list[dict[str, Any]]:
    """The living nodes that do work: those with at least one CPU. A head with num-cpus 0 is none."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def cluster_size(*, free: bool = False) -> ClusterSize:
    """Nodes, CPUs and GPUs that are there now, perhaps none. `free`: only what nobody holds."""
    nodes = work_nodes()
    alive = [node["Resources"] for node in nodes]
    if free:
        from ray._private import state  # `ray.available_resources` adds up all nodes

        by_node = state.available_resources_per_node()
        alive = [resources for node in nodes if (resources := by_node.get(node["NodeID"], {})).get("CPU", 0) >= 1]
    with_gpu = [resources for resources in alive if resources.get("GPU", 0) >= 1]
    return ClusterSize(
        nodes=len(alive),
        cpus=int(sum(node["CPU"] for node in alive)),
        gpus=int(sum(node.get("GPU", 0) for node in alive)),
        gpu_nodes=len(with_gpu),
        node_cpus=int(min((node["CPU"] for node in with_gpu or alive), default=0)),
        node_memory=int(min((node.get("memory", 0) for node in with_gpu or alive), default=0)),
    )


def left_of(size: ClusterSize) -> ClusterSize:
    """Of what a stage had when it began, what the cluster has still: for stages that share it, when none of it need be free."""
    now = cluster_size()
    left = shrunk(now, size) if now.nodes else size
    return left if left.lost else size


def on_work_node(number: int) -> Any:
    """Where to put an actor or task that reserves no CPU: on the nodes that do work in turn, never on a head with num-cpus 0."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = work_nodes()
    return NodeAffinitySchedulingStrategy(nodes[number % len(nodes)]["NodeID"], soft=True) if nodes else "DEFAULT"


def placed(answers: Sequence[Any], what: str, pool: PoolSize) -> list[Any]:
    """What actors answered to their first call. Raises ClusterError: there is no room for some."""
    import ray

    try:
        return list(ray.get(list(answers), timeout=PLACE_S))  # raises what their start raised
    except ray.exceptions.GetTimeoutError as error:
        waiting = ray.wait(list(answers), num_returns=len(answers), timeout=0)[1]
        raise ClusterError(
            f"{len(waiting)} of {len(answers)} {what} found no room within {PLACE_S:.0f} s: each needs {pool.cpus} CPU(s) and "
            f"{pool.gpus} GPU(s) of one node, and free are {cluster_size(free=True).describe()}; end other jobs of this Ray "
            f"cluster or add nodes, then run the same command again: it resumes"
        ) from error


class Nodes:
    """The cluster of one driver, as its stages see it."""

    def __init__(self, settings: ClusterSettings, say: Callable[[str], None], check: Callable[[ClusterSize], None]) -> None:
        """Args: say: prints a line for a person. check: called whenever nodes have come, with what is there."""
        self._settings, self._say, self._check = settings, say, check
        self._first: ClusterSize | None = None
        self._known: frozenset[str] = frozenset()

    def now(self) -> ClusterSize:
        """What a stage that begins now may use.

        The first time, what [cluster] expects is waited for; later only what the run cannot do without: a node, and a GPU if
        it began on one.

        Raises:
            ClusterError: it is not there within cluster.wait_s.
        """
        self._await()
        first, size = self._first, self._free()
        if first is None:
            self._first = size
        else:
            size = shrunk(size, first)
        known = frozenset(str(node["NodeID"]) for node in work_nodes())
        if not known <= self._known:
            self._check(size)
        if first is not None and known != self._known:
            come, gone = len(known - self._known), len(self._known - known)
            changes = [f"{count} node(s) {what}" for count, what in ((come, "joined"), (gone, "left")) if count]
            self._say(f"! {' and '.join(changes)}; the cluster now has {size.describe()}")
        self._known = known
        return size

    def _free(self) -> ClusterSize:
        """What the cluster has, as soon as all of it is free; what is free where other jobs keep holding the rest.

        Raises:
            ClusterError: nothing is free for cluster.wait_s.
        """
        started, said = time.monotonic(), False
        while True:
            size, free, waited = cluster_size(), cluster_size(free=True), time.monotonic() - started
            if (free.cpus, free.gpus) == (size.cpus, size.gpus):
                return size
            if waited > RELEASE_S and not lacking(self._settings, free, self._first or ClusterSize(1, 1, min(1, size.gpus))):
                self._say(f"! others hold a part of {size.describe()}; this stage uses the {free.describe()} that are free")
                return free
            if waited > self._settings.wait_s:
                raise ClusterError(
                    f"other jobs hold the cluster: of {size.describe()}, {free.describe()} have been free for "
                    f"{self._settings.wait_s} s; end them or wait for them, then run the same command again"
                )
            if waited > RELEASE_S and not said:
                self._say(f"  waiting for others to free CPUs or GPUs, {self._settings.wait_s:.0f} s at most")
                said = True
            time.sleep(0.05 if waited < 1 else LOOK_AGAIN_S)

    def _await(self) -> None:
        deadline, said = time.monotonic() + self._settings.wait_s, ""
        while True:
            size = cluster_size()
            missing = lacking(self._settings, size, self._first)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the cluster lacks {missing}; after {self._settings.wait_s} s it has {size.describe()}{_names()}. Start "
                    f"what is missing (`ray status` on the head shows what Ray sees; look for pending pods), or lower "
                    f"cluster.expect_nodes or cluster.expect_gpus, then run the same command again"
                )
            if missing != said:
                self._say(f"  waiting for {missing}, {deadline - time.monotonic():.0f} s at most; there is {size.describe()}")
                said = missing
            if not _asked:
                _ask_autoscaler(self._settings, gpu=bool(self._first and self._first.gpus))
            time.sleep(LOOK_AGAIN_S)


def settle() -> None:
    """Return when every node that Ray believes to be alive has answered, or was found to be dead.

    Ray notices a node's death some 20 s after it. What is planned before that would wait for the dead node.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ping = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked = [
        ping.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in ray.nodes()
        if node["Alive"]
    ]
    ray.wait(asked, num_returns=len(asked), timeout=PING_S)


def _answer() -> None:
    return


def _names() -> str:
    nodes: Sequence[dict[str, Any]] = work_nodes()
    if not nodes:
        return ""
    shown = ", ".join(
        f"{node['NodeManagerAddress']} with {node['Resources'].get('CPU', 0):.0f} CPU(s) and "
        f"{node['Resources'].get('GPU', 0):.0f} GPU(s)"
        for node in nodes[:SHOWN]
    )
    return f" ({shown}{', …' if len(nodes) > SHOWN else ''})"


_asked: list[bool] = []
"""Not empty: the autoscaler was asked in this process."""


def _ask_autoscaler(settings: ClusterSettings, *, gpu: bool) -> None:
    """Ask for what is missing, in case the cluster's groups start from zero; without an autoscaler nothing happens."""
    from ray.autoscaler.sdk import request_resources

    gpus = settings.expect_gpus or (1 if gpu or settings.device == "gpu" else 0)
    bundles = [{"GPU": 1}] * gpus + [{"CPU": 1}] * max(1 - gpus, (settings.expect_nodes or 0) - gpus)
    with suppress(Exception):  # Ray's own kinds; the deadline counts
        request_resources(bundles=bundles)
    _asked.append(True)


def release_autoscaler() -> None:
    """Let the autoscaler shrink the cluster again, if it was asked to grow it."""
    if _asked:
        from ray.autoscaler.sdk import request_resources

        _asked.clear()
        with suppress(Exception):
            request_resources(bundles=[])
