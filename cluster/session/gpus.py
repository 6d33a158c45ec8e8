"""Whether torch can use the GPUs that Ray counts: asked on every node before the first stage, so that nothing falls back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError, one_paragraph
from cluster.session.nodes import work_nodes

LOOK_S = 180.0
"""How long nodes may take to import torch and start CUDA."""
DRIVER = Path("/proc/driver/nvidia/version")
NEEDS = {13: 580, 12: 525, 11: 450}
"""Major version of CUDA -> the oldest NVIDIA driver that runs it."""


@dataclass(frozen=True)
class GpuState:
    """What a worker that was given a GPU sees."""

    torch: str
    cuda: str | None
    """CUDA that torch is built for; None: it is a CPU build."""
    driver: str | None
    """Version of NVIDIA's driver; None: the node, or its container, has none."""
    problem: str | None
    """What torch says when it starts CUDA; None: it works."""


def cure(state: GpuState) -> str | None:
    """Why torch cannot use the GPU, and what to do, in one sentence; None: it can."""
    if state.problem is None:
        return None
    if state.cuda is None:
        return f"torch {state.torch} there is a CPU build; install one for CUDA in the image or environment of the nodes"
    if state.driver is None:
        return (
            "there is no NVIDIA driver in reach of the worker; in a container, start it with the NVIDIA runtime and set "
            "NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
    needs = NEEDS.get(int(state.cuda.split(".")[0]))
    if needs is not None and int(state.driver.split(".")[0]) < needs:
        return (
            f"torch {state.torch} is built for CUDA {state.cuda}, which needs driver {needs} or newer, and the driver is "
            f"{state.driver}; update the driver, or install a torch for an older CUDA"
        )
    return f"torch {state.torch} for CUDA {state.cuda} does not start with driver {state.driver} ({state.problem})"


def check_gpus() -> None:
    """Raises ClusterError: torch cannot use a GPU of some node; names the node and the cure."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(gpu_state)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in work_nodes()
        if node["Resources"].get("GPU", 0) >= 1
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_S)
    for task in done:
        problem = cure(ray.get(task))
        if problem:
            raise ClusterError(
                f"Ray counts a GPU on node {asked[task]['NodeManagerAddress']}, but {problem}. With "
                'cluster.device = "cpu" the run uses none'
            )
    if silent:
        names = ", ".join(asked[task]["NodeManagerAddress"] for task in silent)
        raise ClusterError(
            f"node(s) {names} did not say within {LOOK_S:.0f} s whether torch can use their GPUs; look at `ray status`"
        )


def gpu_state() -> GpuState:
    """Of this process."""
    import torch

    problem = None
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:
        problem = one_paragraph(str(error))[:300]
    driver = None
    if DRIVER.exists():
        words = DRIVER.read_text().split()
        driver = next((word for word in words if word.replace(".", "").isdigit() and "." in word), None)
    return GpuState(torch.__version__, torch.version.cuda, driver, problem)
