"""How many actors and workers, and how large: pure functions from what the cluster has to what a stage uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.errors import ConfigError

Count = Annotated[int, Field(ge=1)]


class ClusterSettings(BaseModel):
    """Where the work runs and how it is split. What is not set follows from what the cluster has."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    address: str | None = None
    """Ray address ("auto", "ray-head:6379"). Default: RAY_ADDRESS if it is set, else a local Ray that ends with the command."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where models run. auto: on GPUs if the cluster has any when the run starts; it then never falls back to CPUs."""
    expect_nodes: Count | None = None
    """Nodes with CPUs that the run waits for before it starts. Default: it starts with what is there."""
    expect_gpus: Count | None = None
    """GPUs that the run waits for before it starts. Default: it starts with what is there."""
    wait_s: Count = 600
    """Seconds to wait for expected nodes, for others in place of lost ones, for free CPUs and GPUs, and for storage that does
    not answer, before the run fails."""
    cpus: Count | None = None
    """CPUs of a local Ray. Default: all of the machine. Without effect if address is set."""
    actors: Count | None = None
    """Number of actors that embed, and of those that search, each with one shard at a time. Default: one per GPU; without GPUs
    one per node."""
    shards: Count | None = None
    """Number of slices of the corpus, each of which takes items × dimension × 5 bytes of its actor's memory, and 6 of a GPU's.
    Default: one per actor; where a slice would not fit half of the node's memory, or 12 GiB of a GPU's, two, three or more."""
    train_workers: Count | None = None
    """Number of training workers, one rank each. Default: one per GPU; without GPUs 1."""
    cpus_per_worker: Count | None = None
    """CPUs of each actor and training worker. Default: the node's CPUs divided by the actors or workers on it."""
    part_rows: Annotated[int, Field(ge=16, le=1_000_000)] = 65_536
    """Maximum rows of a table part; a part of long rows has fewer, and takes about 64 MiB. A part is embedded as a whole; an
    interruption costs at most the parts under way."""
    query_block: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Queries that are searched and mined together."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | None = None
    """Tokens (padding included) that are encoded together. Default: 1,024 on a CPU and 32,768 on a GPU to embed; training finds
    the fastest number in a short trial."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often an actor, task, training worker or stage that died is started again."""

    @model_validator(mode="after")
    def _gpus_are_used(self) -> ClusterSettings:
        if self.expect_gpus and self.device == "cpu":
            raise ValueError(
                f'cluster.expect_gpus = {self.expect_gpus} waits for GPUs, but cluster.device = "cpu" uses none; '
                "remove one of them"
            )
        return self


@dataclass(frozen=True)
class ClusterSize:
    """What the cluster offers."""

    nodes: int
    cpus: int
    gpus: int
    gpu_nodes: int = 0
    """Nodes that have GPUs."""
    node_cpus: int = 0
    """CPUs of the smallest node that would do the work (of those with GPUs, where there are any); 0: not known."""
    node_memory: int = 0
    """Bytes of memory that tasks may use on the smallest of these nodes; 0: not known."""
    lost: bool = False
    """There was more when the run started: counts that were asked for are cut to what is left."""

    def describe(self) -> str:
        """For a person."""
        return f"{self.nodes} node(s) with {self.cpus} CPU(s) and {self.gpus} GPU(s)"


@dataclass(frozen=True)
class PoolSize:
    """A number of equal actors or workers."""

    count: int
    cpus: int
    """CPUs of each: its Ray reservation and its thread count."""
    gpus: int
    """GPUs of each, 0 or 1."""


def uses_gpu(settings: ClusterSettings, size: ClusterSize) -> bool:
    """Whether models run on GPUs. Raises ConfigError: device = "gpu" on a cluster without one."""
    if settings.device == "gpu" and size.gpus < 1:
        raise ConfigError(
            f'cluster.device is "gpu", but the cluster offers {size.nodes} node(s) with {size.cpus} '
            f'CPUs and no GPU; add a GPU node, or set cluster.device = "auto"'
        )
    return settings.device != "cpu" and size.gpus > 0


def lacking(settings: ClusterSettings, size: ClusterSize, first: ClusterSize | None) -> str:
    """What the run must still wait for, in words; "": nothing.

    Args:
        first: what the run started with; None: it has not started.
    """
    nodes = (settings.expect_nodes or 1) if first is None else 1
    gpus = (settings.expect_gpus or 0) if first is None else int(settings.device != "cpu" and first.gpus > 0)
    wanted = [(size.nodes, nodes, "node(s) with CPUs"), (size.gpus, gpus, "GPU(s)")]
    return " and ".join(f"{count - there} of {count} {what}" for there, count, what in wanted if there < count)


def shrunk(size: ClusterSize, first: ClusterSize) -> ClusterSize:
    """`size`, marked where the run started with more."""
    return replace(size, lost=size.nodes < first.nodes or size.cpus < first.cpus or size.gpus < first.gpus)


def _pool(wanted: int | None, default: int, settings: ClusterSettings, size: ClusterSize, what: str) -> PoolSize:
    gpu = uses_gpu(settings, size)
    count = wanted or (size.gpus if gpu else default)
    if size.lost and gpu:
        count = min(count, size.gpus)
    nodes = (size.gpu_nodes or size.nodes) if gpu else size.nodes
    per_node = -(-count // nodes)
    # the smallest node decides: what asks for more CPUs than any node has left would wait for ever
    cpus = settings.cpus_per_worker or max(1, (size.node_cpus or size.cpus // size.nodes) // per_node)
    if size.lost:
        count = max(1, min(count, size.cpus // cpus))
    if count * cpus > size.cpus or (gpu and count > size.gpus):
        raise ConfigError(
            f"{what} needs {count} × {cpus} CPU(s){f' and {count} GPU(s)' if gpu else ''}, but the cluster offers "
            f"{size.cpus} CPU(s) and {size.gpus} GPU(s) on {size.nodes} node(s); lower cluster.{what} or "
            f"cluster.cpus_per_worker, or add nodes"
        )
    return PoolSize(count, cpus, int(gpu))


def divided(settings: ClusterSettings, size: ClusterSize) -> tuple[ClusterSize, ClusterSize]:
    """(what training uses, what mining beside it uses). A pure function of both, so that a resumed run divides alike.

    On GPUs training gets cluster.train_workers of them, by default half; without GPUs half of the CPUs of every node.

    Raises:
        ConfigError: one of them would have nothing.
    """
    if uses_gpu(settings, size):
        return _divided_gpus(settings, size)
    each = size.node_cpus or size.cpus // size.nodes
    if each < 2:
        raise ConfigError(
            f"rounds.background = true trains and mines at the same time, which takes 2 CPUs of every node, but the smallest of "
            f"{size.describe()} has {each}; add CPUs, or set rounds.background = false"
        )
    mining = replace(
        size, cpus=size.nodes * (each // 2), node_cpus=each // 2, node_memory=size.node_memory // 2, gpus=0, gpu_nodes=0
    )
    return replace(mining, cpus=size.nodes * (each - each // 2), node_cpus=each - each // 2), mining


def _divided_gpus(settings: ClusterSettings, size: ClusterSize) -> tuple[ClusterSize, ClusterSize]:
    ranks = settings.train_workers or size.gpus - size.gpus // 2
    if size.lost:
        ranks = max(1, min(ranks, size.gpus - 1))
    if ranks >= size.gpus:
        raise ConfigError(
            f"rounds.background = true trains on cluster.train_workers = {ranks} GPU(s) and mines on the others at the same "
            f"time, but {size.describe()} leave none; lower cluster.train_workers, add GPUs, or set rounds.background = false"
        )
    nodes = size.gpu_nodes or size.nodes
    # as many CPUs for each GPU, whichever of the two has it: both fit on any node together
    each = max(1, (size.node_cpus or size.cpus // size.nodes) // -(-size.gpus // nodes))

    def share(gpus: int) -> ClusterSize:
        per_node = -(-gpus // nodes)
        return replace(
            size, gpus=gpus, cpus=each * max(gpus, size.nodes), node_cpus=each * per_node, node_memory=size.node_memory // 2
        )

    return share(ranks), share(size.gpus - ranks)


def embed_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The actors that embed."""
    return _pool(settings.actors, size.nodes, settings, size, "actors")


def search_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The actors that hold shards."""
    return _pool(settings.actors, size.nodes, settings, size, "actors")


def train_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The workers that train."""
    return _pool(settings.train_workers, 1, settings, size, "train_workers")
