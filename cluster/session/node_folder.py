"""A folder on this node's disk that all processes of a driver share: it is in the folder of Ray's session, and goes with it.

A local Ray's folder is removed by the driver that started it. On other clusters the driver removes its own folder from every node
when it ends. A process without Ray has a temporary folder of its own until it ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

REMOVE_S = 20.0
"""How long the nodes of a cluster may take to remove their folders."""


def node_folder() -> Path:
    """The folder; it may not be there yet."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return _own_folder()
    node = ray._private.worker._global_node
    session = Path(node.get_session_dir_path()) if node is not None else None
    if session is None or not os.access(session, os.W_OK):
        return _own_folder()
    return Path(session, "hardmine", str(ray.get_runtime_context().get_job_id()))


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hardmine-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_node_folders() -> None:
    """Remove the driver's folder from every node of its cluster; a node that does not answer is left alone."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remove = ray.remote(num_cpus=0, max_retries=0)(_remove)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    tasks = [remove.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes]
    ray.wait(tasks, num_returns=len(tasks), timeout=REMOVE_S)


def _remove() -> None:
    shutil.rmtree(node_folder(), ignore_errors=True)
