"""Ray Train: starts the loop on every rank and brings its result back."""

from __future__ import annotations

import uuid
from typing import Any

from cluster.errors import ArtifactError, ClusterError, HardmineError, one_paragraph, unwrap
from cluster.session.resources import PoolSize
from cluster.session.session import set_threads
from cluster.storage.records import read_record, write_record
from training.task import TrainTask


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs: the loop, with `report` as a barrier after every epoch."""
    import ray.train
    import ray.train.torch

    from training.engine.engine import place_of
    from training.loop import Trainer

    task: TrainTask = config["task"]
    set_threads(task.threads)
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    place = place_of(task.settings, device, rank=context.get_world_rank(), world=context.get_world_size())
    trainer = Trainer(task, place)
    result = trainer.run(ray.train.report)
    if place.rank == 0:
        write_record(task.store, f"{task.folder}/result.json", result)
    ray.train.report({"epoch": -1.0})  # a barrier: the result is there when the driver goes on


def train(task: TrainTask, pool: PoolSize, *, retries: int) -> dict[str, Any]:
    """Train one round on `pool.count` ranks; returns the loop's result.

    Raises:
        HardmineError: what the loop raised. ClusterError: workers kept dying, or the result is missing.
    """
    for attempt in range(retries + 1):
        try:
            _fit(task, pool)
            break
        except Exception as error:  # Ray Train wraps worker failures in kinds of its own
            cause = unwrap(error)
            if isinstance(cause, HardmineError):  # a retry would end the same way
                raise cause from None
            if attempt == retries:
                raise ClusterError(
                    f"training on {pool.count} worker(s) failed after {retries + 1} attempt(s): "
                    f"{one_paragraph(str(cause))[:600]}; run the same command again: it goes on from the last "
                    f"checkpoint"
                ) from error
    result = read_record(task.store, f"{task.folder}/result.json")
    if not result.get("best"):
        raise ArtifactError(f"{task.store.url(task.folder)}/result.json names no model; run the same command again")
    return result


def _fit(task: TrainTask, pool: PoolSize) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Interruptible(TorchTrainer):  # type: ignore[misc]  # Ray has no types here
        def _register_sigint_handler(self, controller: object) -> None:
            """Ctrl-C, and a lost lease, stay a KeyboardInterrupt: Ray's own handler ends the process, now and in later stages."""

    filesystem, root = task.store.arrow_filesystem()
    Interruptible(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=pool.count,
            use_gpu=pool.gpus > 0,
            resources_per_worker={"CPU": pool.cpus} | ({"GPU": 1} if pool.gpus else {}),
        ),
        run_config=RunConfig(
            # a name of its own for every attempt: Ray Train resumes whatever ran under the same one, and it is our
            # own state.json that says where to go on
            name=f"attempt-{uuid.uuid4().hex[:8]}",
            storage_path=f"{root}/{task.folder}/ray",
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=0),
        ),
    ).fit()
