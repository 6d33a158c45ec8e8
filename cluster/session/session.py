"""The Ray session of a driver: started once, late, and ended with the command.

Nothing here imports Ray at module level: the command line must answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError, ConfigError, one_paragraph
from cluster.session import ray_folder
from cluster.session.address import check_address, is_plain
from cluster.session.node_folder import remove_node_folders
from cluster.session.nodes import cluster_size, release_autoscaler, work_nodes
from cluster.session.resources import ClusterSettings, ClusterSize
from cluster.session.token import token_sent
from cluster.session.warm import end_warm, forget_warm
from cluster.storage.store import Store

LOOK_S = 120.0
"""How long nodes may take to start a worker that looks whether they see the run's folder."""

MOST_OF_NODE = 0.9
"""Of a node's memory, what one task may ask for: waiting actors hold a little of it."""

IDLE_WORKERS = 8
"""Processes of tasks that a local Ray keeps between stages, at least."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TOKENIZERS_PARALLELISM": "true",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # a thread that waits for the others of its process gives its processor away soon: where something else runs, waiting in a
    # loop (GNU OpenMP's default while a process has no more threads than there are processors) makes steps ten times as long
    "GOMP_SPINCOUNT": "1000",
    "RAY_task_oom_retries": "5",  # Ray starts a task that runs out of memory again for ever
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}

_open: list[str] = []
"""The address of the Ray that `ray_session` opened in this process, if it did."""


@contextmanager
def ray_session(settings: ClusterSettings) -> Iterator[ClusterSize]:
    """Connect to the configured Ray, or start a local one; yields what it offers.

    A session that is already open in this process is used as it is and left open (tests share one).

    Raises:
        ConfigError: the address is malformed. ClusterError: Ray does not start, or the address does not answer.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        try:
            yield cluster_size()
        finally:
            if not _open:  # a notebook's own Ray, say: it gets its memory back
                end_warm()
        return
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    check_address(address)
    folder = None
    with token_sent(address) if is_plain(address) else nullcontext():
        try:
            _connect(ray, address, settings)
            _open.append(address)
            folder = _own_folder() if address == "local" else None
            yield cluster_size()
        finally:
            _open.clear()
            if address != "local":  # all of a local Ray ends at once
                release_autoscaler()
                end_warm()
                if ray.is_initialized():
                    with suppress(ray.exceptions.RayError):
                        remove_node_folders()
            forget_warm()
            ray.shutdown()
            if folder is not None:
                ray_folder.remove(folder)


def _own_folder() -> Path | None:
    """The session folder of the Ray that this process has just started, marked as such; None: Ray does not say."""
    import ray

    node = ray._private.worker._global_node
    if node is None:
        return None
    folder = Path(node.get_session_dir_path())
    ray_folder.mark(folder)
    return folder


def check_shared(store: Store, size: ClusterSize) -> None:
    """Check, before any stage, that every node of the cluster sees the run's folder.

    Raises:
        ConfigError: the run lies in a folder of this machine's disk that another node does not share.
    """
    if store.remote or size.nodes < 2:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = work_nodes()
    mark = f".seen-{uuid.uuid4().hex[:8]}"
    store.write_bytes(mark, b"")
    look = ray.remote(num_cpus=0, max_retries=0)(_sees)
    seen = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(store, mark): node
        for node in nodes
    }
    try:
        done, _ = ray.wait(list(seen), num_returns=len(seen), timeout=LOOK_S)
        blind = [node["NodeManagerAddress"] for task, node in seen.items() if task not in done or not ray.get(task)]
    finally:
        store.delete(mark)
    if blind:
        raise ConfigError(
            f"expected `output` on storage that every node reaches, found the folder {store.root}, which "
            f"{len(blind)} of {len(nodes)} nodes do not see ({', '.join(blind[:4])}); use s3://…, or a folder that all of "
            f"them mount"
        )


def _sees(store: Store, mark: str) -> bool:
    return store.exists(mark)


def _connect(ray: Any, address: str, settings: ClusterSettings) -> None:
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # the packages lie at the root of a checkout or of the job's working directory
        root = str(Path(__file__).resolve().parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        options.update(include_dashboard=False, num_cpus=settings.cpus)
        # processes of tasks that wait for the next stage with what they have imported; by default as many as CPUs
        many = str(max(IDLE_WORKERS, os.cpu_count() or 1))
        os.environ.setdefault("RAY_num_workers_soft_limit", many)
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", many)  # seven times as many processes are warned about
    try:
        with _without_native_stderr():
            ray.init(**options)
    except Exception as error:  # Ray raises OSError, RuntimeError, ConnectionError and its own kinds here
        where = "a local Ray did not start" if address == "local" else f"no Ray answers at {address}"
        raise ClusterError(
            f"{where} ({type(error).__name__}: {one_paragraph(str(error))}); check the address and that "
            f"`ray status` works on this machine (if it asks for a token: RAY_AUTH_MODE=token, and its token here), "
            f"then run the same command again"
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    with suppress(AttributeError):  # Ray tells of every dead worker and node, in pages; a stage says what became of it
        ray._private.worker.print_to_stdstream = _say_nothing
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a lost worker is told by the stage, without a traceback


def _say_nothing(*_: object, **__: object) -> None:
    return


@contextmanager
def _without_native_stderr() -> Iterator[None]:
    """Ray's C++ part announces its log level on the process's standard error at every start; errors still raise."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def task_groups(count: int, most: int | None = None) -> list[list[int]]:
    """The numbers 0 … count - 1 in consecutive groups, one for each task: as many as the cluster has CPUs, at most `most`."""
    import numpy as np
    import ray

    cpus = max(1, int(ray.cluster_resources()["CPU"]))
    groups = np.array_split(np.arange(count), min(count, cpus if most is None else min(cpus, most)))
    return [[int(number) for number in group] for group in groups]


def memory_to_ask(predicted: int) -> int:
    """Bytes that a task names to Ray: as predicted, but less than the largest node has, or it would wait for ever."""

    has = [int(node["Resources"].get("memory", 0)) for node in work_nodes()]
    return min(predicted, int(MOST_OF_NODE * max(has, default=0)))


def set_threads(count: int) -> None:
    """Use `count` threads in numpy-like libraries of this worker that are already loaded (Ray sets 1 by default)."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)
    if "faiss" in sys.modules:
        import faiss

        faiss.omp_set_num_threads(count)
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
