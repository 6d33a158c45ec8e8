"""Training of one round as a job, on ranks that are there or are started. Whoever calls it may try again when a worker dies."""

from __future__ import annotations

from typing import Any

from cluster.errors import COLOUR, ArtifactError, HardmineError, WorkersLost, one_paragraph, root_cause
from cluster.session.resources import PoolSize
from cluster.session.warm import end_warm, reserved, stays_warm, warm
from cluster.storage.records import read_record
from training.distributed.ranks import Ranks
from training.task import Task

BUGS = (AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)
"""What a rank raises that would be raised again. A RuntimeError may be a collective whose partner has died."""


def train(task: Task, pool: PoolSize) -> dict[str, Any]:
    """Train one round on `pool.count` ranks, from its newest checkpoint on; returns the loop's result.

    Raises:
        HardmineError: what the loop raised. WorkersLost: a rank or its node died. ArtifactError: the result is missing.
    """
    try:
        _train_once(task, pool)
    except Exception as error:  # Ray Train wraps worker failures in kinds of its own
        cause = root_cause(error)
        if isinstance(cause, HardmineError):
            raise cause from None
        if isinstance(cause, BUGS):
            raise
        text = one_paragraph(COLOUR.sub("", str(cause)).split("Traceback", 1)[0])[:400]
        raise WorkersLost(f"training on {pool.count} rank(s) stopped ({type(cause).__name__}: {text.rstrip('. ')})") from error
    result = read_record(task.store, f"{task.folder}/result.json")
    if not result.get("best"):
        raise ArtifactError(f"{task.store.url(task.folder)}/result.json names no model; run the same command again")
    return result


def start_early(pool: PoolSize) -> None:
    """Start the ranks of a pool in the background, so that they are there when the first round is to be trained."""
    if stays_warm(pool):
        warm("ranks", pool, lambda: Ranks(pool, reserve=False))


def _train_once(task: Task, pool: PoolSize) -> None:
    if not stays_warm(pool):
        end_warm("ranks")  # of the time before a node joined
        ranks = Ranks(pool, reserve=True)
        try:
            ranks.run(task)
        finally:
            ranks.end()
        return
    try:
        with reserved(pool):
            warm("ranks", pool, lambda: Ranks(pool, reserve=False)).run(task)
    except BaseException:  # a rank that failed has taken all others with it
        end_warm("ranks")
        raise
