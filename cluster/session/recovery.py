"""A stage that outlasts what it runs on: called again when Ray lost a worker or a node, or the storage was away for a while.

Ray itself starts tasks and actors again, but a node counts as dead only 20 s after its death, and by then Ray's own tries may be
used up. So the driver waits until it is known what is left, and calls the stage again, which goes on from its finished parts.
"""

from __future__ import annotations

import enum
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from cluster.errors import COLOUR, ClusterError, HardmineError, StorageError, WorkersLost, one_paragraph, root_cause, unwrap
from cluster.session.nodes import settle
from cluster.storage.store import Store

T = TypeVar("T")
CALM_S = 3600.0
"""After working for so long without a failure, the failures before no longer count. Longer than any wait inside a stage."""
STORAGE_AGAIN_S = 5.0
READERS = tuple(f"MapWorker(MapBatches({name}))" for name in ("EncodeParts", "PairActor"))
"""What Ray Data calls the actors of `mining.part_pool`; others of this process are someone else's."""


class Failure(enum.Enum):
    """What another try may get past."""

    WORKER = "a worker died, or the node that it ran on"
    MEMORY = "a worker ran out of memory"
    FULL = "Ray's object store of a node is full, and so is the disk that it spills to"
    STORAGE = "the storage did not answer"


def failure_of(error: BaseException) -> Failure | None:
    """What kind of failure an error is; None: another try would end the same way."""
    ours = unwrap(error)
    if isinstance(ours, StorageError):
        return Failure.STORAGE
    if isinstance(ours, HardmineError) and not isinstance(ours, WorkersLost):
        return None
    from ray import exceptions as of_ray

    cause, text = root_cause(error), str(error)
    if isinstance(cause, of_ray.OutOfMemoryError) or "running low on memory" in text:
        return Failure.MEMORY
    if isinstance(cause, of_ray.ObjectStoreFullError | of_ray.OutOfDiskError):
        return Failure.FULL
    lost = (
        WorkersLost,
        of_ray.WorkerCrashedError,
        of_ray.RayActorError,
        of_ray.NodeDiedError,
        of_ray.ObjectLostError,
        of_ray.TaskUnschedulableError,  # planned for a node that has left since
        of_ray.ActorUnschedulableError,
        of_ray.TaskPlacementGroupRemoved,
        of_ray.ActorPlacementGroupRemoved,
    )
    timed_out = type(cause).__name__ == "ExecutionTimeoutError"  # Ray Data's; importing it here takes a second
    return Failure.WORKER if timed_out or isinstance(cause, lost) else None


def outlasting(
    work: Callable[[], T], *, store: Store, retries: int, wait_s: float, say: Callable[[str], None], readers: bool = True
) -> T:
    """What `work` returns; called again after a failure that another try may get past.

    Args:
        work: goes on where its last call stopped.
        store: of the run.
        retries: failures in a row, each within `CALM_S` of the one before, after which no further try is made.
        wait_s: how long to wait for the storage.
        say: prints a line for a person.
        readers: it may leave actors of Ray Data; else those that are there are another stage's.

    Raises:
        ClusterError: it failed too often, or the storage does not come back. Whatever else `work` raises.
    """
    failures = 0
    while True:
        started = time.monotonic()
        try:
            return work()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            failures = failures + 1 if time.monotonic() - started < CALM_S else 1
            problem = in_words(failure, error)
            if failures > retries:
                raise ClusterError(f"{problem}; that was failure {failures} in a row. {_cure(failure)}") from error
        # here the error, and with it what its frames hold, is gone
        first = "once the storage answers" if failure is Failure.STORAGE else "on what is left"
        say(f"! {problem}; trying again {first}")
        if failure is Failure.STORAGE:
            _await_storage(store, wait_s, problem)
        else:
            if readers:
                _end_readers()
            settle()


def _end_readers() -> None:
    """End Ray Data's actors of the call that failed: it only lets go of them, and what the error held may keep their CPUs."""
    import ray

    gc.collect()
    if not ray.is_initialized():
        return
    with suppress(Exception):  # Ray's own, without a promise that it stays
        from ray._private import state, worker

        driver = worker.global_worker
        for number, actor in state.actors(job_id=driver.current_job_id).items():
            if actor["ActorClassName"] in READERS and actor["State"] != "DEAD":
                with suppress(Exception):  # it is gone already
                    driver.core_worker.kill_actor(ray.ActorID(bytes.fromhex(number)), True)


def in_words(failure: Failure, error: BaseException) -> str:
    """What happened, in one sentence without colours and tracebacks."""
    cause = root_cause(error)
    text = one_paragraph(COLOUR.sub("", str(cause)).split("Traceback", 1)[0])[:500]
    if isinstance(cause, HardmineError):
        return text
    return f"{failure.value} ({type(cause).__name__}: {text.rstrip('. ')[:300]})"


def _cure(failure: Failure) -> str:
    kept = "What is committed is kept: the same command resumes"
    if failure is Failure.STORAGE:
        return f"Check the storage and the network. {kept}"
    less = "lower cluster.part_rows or training.batch_size, or raise cluster.shards"
    if failure is Failure.FULL:
        return (
            "Free room in /dev/shm and on the disk of Ray's session folder (/tmp/ray; Ray takes a disk that is 95% full for "
            f"full), or start Ray with a larger --object-store-memory or another --object-spilling-directory. {kept}"
        )
    if failure is Failure.MEMORY:
        return f"To need less memory, {less}. {kept}"
    return f"A worker that dies without a message usually ran out of memory: {less}; `ray status` shows the nodes. {kept}"


def _await_storage(store: Store, wait_s: float, problem: str) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            store.exists("commits")
            return
        except StorageError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{problem}; it still does not after {wait_s:.0f} s. {_cure(Failure.STORAGE)}") from error
        time.sleep(STORAGE_AGAIN_S)
