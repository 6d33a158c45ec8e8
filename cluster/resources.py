"""How many actors and workers, and how large: pure functions from what the cluster has to what a stage uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import ConfigError

Count = Annotated[int, Field(ge=1)]


class ClusterSettings(BaseModel):
    """Where the work runs and how it is cut. Every None is decided from what the cluster has."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    address: str | None = None
    """Ray address ("auto", "ray-head:6379"); None: RAY_ADDRESS if set, else a local Ray that ends with the command."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where models run; auto: GPUs if the cluster has any."""
    cpus: Count | None = None
    """Logical CPUs of a local Ray; None: all of the machine. Not used with an address."""
    embed_actors: Count | None = None
    """Encoders that embed at the same time; None: one per GPU, else one per node."""
    search_actors: Count | None = None
    """Shard holders that search at the same time; None: one per GPU, else one per node."""
    shards: Count | None = None
    """Slices of the corpus; None: one per search actor, more if a slice would exceed shard_rows."""
    shard_rows: Count = 1_000_000
    """Most items in one shard. A shard needs rows × dimension × 4 bytes in its actor."""
    train_workers: Count | None = None
    """Ray Train workers, one rank each; None: one per GPU, else 1."""
    cpus_per_worker: Count | None = None
    """CPUs of each actor and training worker; None: what the node has, divided by those that share it."""
    part_rows: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Rows of one part of a table: the unit of embedding, and what an interruption may cost."""
    query_block: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Queries searched at once: the unit of searching and mining."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | None = None
    """Tokens (padding included) encoded at once; None: 1,024 on CPU, 32,768 on GPU."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a dead actor, task or training worker is started again."""


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


def _pool(wanted: int | None, default: int, settings: ClusterSettings, size: ClusterSize, what: str) -> PoolSize:
    gpu = uses_gpu(settings, size)
    count = wanted or (size.gpus if gpu else default)
    nodes = (size.gpu_nodes or size.nodes) if gpu else size.nodes
    per_node = -(-count // nodes)
    # the smallest node decides: what asks for more CPUs than any node has left would wait for ever
    cpus = settings.cpus_per_worker or max(1, (size.node_cpus or size.cpus // size.nodes) // per_node)
    if count * cpus > size.cpus or (gpu and count > size.gpus):
        raise ConfigError(
            f"{what} needs {count} × {cpus} CPU(s){f' and {count} GPU(s)' if gpu else ''}, but the cluster offers "
            f"{size.cpus} CPU(s) and {size.gpus} GPU(s) on {size.nodes} node(s); lower cluster.{what} or "
            f"cluster.cpus_per_worker, or add nodes"
        )
    return PoolSize(count, cpus, int(gpu))


def embed_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The actors that embed."""
    return _pool(settings.embed_actors, size.nodes, settings, size, "embed_actors")


def search_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The actors that hold shards."""
    return _pool(settings.search_actors, size.nodes, settings, size, "search_actors")


def train_pool(settings: ClusterSettings, size: ClusterSize) -> PoolSize:
    """The workers that train."""
    return _pool(settings.train_workers, 1, settings, size, "train_workers")
