"""Training of one round as a job: on ranks that are there or are started, tried again when a worker dies."""

from __future__ import annotations

from typing import Any

from cluster.errors import ArtifactError, ClusterError, HardmineError, one_paragraph, root_cause
from cluster.session.resources import PoolSize
from cluster.session.warm import end_warm, reserved, stays_warm, warm
from cluster.storage.records import read_record
from training.distributed.ranks import Ranks
from training.task import TrainTask


def train(task: TrainTask, pool: PoolSize, *, retries: int) -> dict[str, Any]:
    """Train one round on `pool.count` ranks; returns the loop's result.

    Raises:
        HardmineError: what the loop raised. ClusterError: workers kept dying, or the result is missing.
    """
    for attempt in range(retries + 1):
        try:
            _train_once(task, pool)
            break
        except Exception as error:  # Ray Train wraps worker failures in kinds of its own
            cause = root_cause(error)
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


def start_early(pool: PoolSize) -> None:
    """Start the ranks of a pool in the background, so that they are there when the first round is to be trained."""
    if stays_warm(pool):
        warm("ranks", pool, lambda: Ranks(pool))


def _train_once(task: TrainTask, pool: PoolSize) -> None:
    if not stays_warm(pool):
        end_warm("ranks")  # of the time before a node joined
        ranks = Ranks(pool, (task.store, task.folder))
        try:
            ranks.run(task)
        finally:
            ranks.end()
        return
    try:
        with reserved(pool):
            warm("ranks", pool, lambda: Ranks(pool)).run(task)
    except BaseException:  # a rank that failed has taken all others with it
        end_warm("ranks")
        raise
