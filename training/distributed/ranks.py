"""Ray Train workers that train one round after another: process group, torch and DeepSpeed are started once."""

from __future__ import annotations

import gc
import os
import uuid
from typing import Any

from cluster.errors import ClusterError
from cluster.session.nodes import on_work_node
from cluster.session.resources import PoolSize
from cluster.session.session import memory_to_ask, set_threads
from cluster.storage.records import write_record
from training.distributed.desk import Desk
from training.feed.memory import PROCESS_BYTES
from training.task import Task

END_S = 20.0
"""How long workers may take to end."""


def work(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs: task after task, until there is none."""
    import ray

    desk, number = config["desk"], 0
    while task := ray.get(desk.take.remote(number)):
        _train(*ray.get(task))
        ray.get(desk.finish.remote(number))
        number += 1


def _load(task: Task, world: int) -> tuple[Any, bool]:
    """What the ranks share; and that it is there, for a driver that wants no more of it."""
    from training.subject import load

    return load(task, world), True


def _train(task: Task, loaded: Any) -> None:
    """The loop on this rank, with `report` as a barrier after every epoch. Rank 0 writes the result."""
    import ray.train
    import ray.train.torch

    from training.engine.engine import place_of
    from training.loop import Trainer

    set_threads(task.threads)
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    place = place_of(task.settings, device, rank=context.get_world_rank(), world=context.get_world_size())
    trainer = Trainer(task, place, loaded)
    result = trainer.run(ray.train.report)
    trainer.end()
    del trainer
    gc.collect()  # engine and hooks refer to each other; the next round needs their memory
    if place.rank == 0:
        write_record(task.store, f"{task.folder}/result.json", result)


class Ranks:
    """The driver's end of the workers, which Ray Train runs at the desk's word."""

    def __init__(self, pool: PoolSize, *, reserve: bool) -> None:
        """Start the workers. `reserve`: they hold the pool's CPUs and GPUs until `end`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._desk = ray.remote(num_cpus=0)(Desk).options(scheduling_strategy=here).remote(pool.count)
        self._world, self._reserve = pool.count, reserve
        self._handed_out, self._busy = 0, False
        # Ray Train reads its own settings where `fit` is called
        own = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}
        self._fit = self._desk.fit.remote(pool, reserve, own)

    def run(self, task: Task) -> None:
        """Train one task on all ranks. Raises what Ray Train raises when a worker failed: no rank is left then; and what loading
        raises, before any rank has begun."""
        import ray

        # the ranks, or a placement group for them, hold all processors
        once = ray.remote(_load).options(
            num_cpus=0,
            num_returns=2,
            memory=memory_to_ask(PROCESS_BYTES + task.predicted_bytes(self._world)),
            scheduling_strategy=on_work_node(0),
        )
        loaded, there = once.remote(task, self._world)
        ray.get(there)
        number, self._handed_out, self._busy = self._handed_out, self._handed_out + 1, True
        self._desk.put.remote([ray.put(task), loaded])
        finished = self._desk.wait.remote(number)
        if finished not in ray.wait([finished, self._fit], num_returns=1)[0]:
            ray.get(self._fit)
            raise ClusterError("the training workers ended before their work was done")
        ray.get(finished)
        self._busy = False

    def usable(self) -> bool:
        """Whether the workers are there, or on their way."""
        import ray

        return not self._busy and not ray.wait([self._fit], timeout=0)[0]

    def end(self) -> None:
        """End the workers; where they hold CPUs and GPUs, wait until these are free."""
        import ray

        if not self._busy and (self._reserve or self._handed_out):
            self._desk.put.remote([])
            ray.wait([self._fit], timeout=END_S)
        ray.kill(self._desk)  # what it started ends with it


def make_trainer(desk: Any, pool: PoolSize, *, reserve: bool) -> Any:
    """Ray Train's trainer for the workers of `desk`; see `Ranks`.

    Its notes lie in the folder of Ray's session on the desk's node. Only its controller, which runs there too, writes any, since
    no checkpoint is handed to it.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"memory": 1}  # as good as nothing: a bundle must name something
    if reserve:
        resources = {"CPU": pool.cpus} | ({"GPU": 1} if pool.gpus else {})
    return TorchTrainer(
        work,
        train_loop_config={"desk": desk},
        scaling_config=ScalingConfig(num_workers=pool.count, use_gpu=pool.gpus > 0, resources_per_worker=resources),
        # a name of its own for every attempt: Ray Train resumes whatever ran under the same one, and it is our own
        # state.json that says where to go on
        run_config=RunConfig(
            name=f"attempt-{uuid.uuid4().hex[:8]}",
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            storage_path=f"{ray._private.worker._global_node.get_session_dir_path()}/train",
        ),
    )
