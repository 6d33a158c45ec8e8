"""The same work on many pieces: Ray tasks, whose results come in the order of the pieces; one piece is done here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from cluster.errors import HardmineError, unwrap

T = TypeVar("T")


def spread(function: Callable[..., T], pieces: Sequence[tuple[Any, ...]], *, retries: int) -> Iterator[T | HardmineError]:
    """What `function` returns for the arguments of each piece, or our error that it raises, in the order of the pieces.

    Args:
        retries: how often a task that died is started again.
    """
    import ray

    if len(pieces) < 2 or not ray.is_initialized():
        for arguments in pieces:
            try:
                yield function(*arguments)
            except HardmineError as error:
                yield error
        return
    task = ray.remote(function).options(num_cpus=1, max_retries=retries)
    stored: dict[int, Any] = {}  # a list or array that all pieces share is handed to Ray once
    for argument in pieces[0]:
        if isinstance(argument, list | np.ndarray) and any(argument is other for other in pieces[1]):
            stored[id(argument)] = ray.put(argument)
    left = [task.remote(*(stored.get(id(each), each) for each in arguments)) for arguments in pieces]
    left.reverse()
    try:
        while left:
            try:
                yield ray.get(left[-1])
            except Exception as error:
                cause = unwrap(error)
                if not isinstance(cause, HardmineError):
                    raise
                yield cause
            left.pop()
    finally:
        for reference in left:
            ray.cancel(reference)


def spread_all(function: Callable[..., T], pieces: Sequence[tuple[Any, ...]], *, retries: int) -> list[T]:
    """As `spread`; raises the error of the first piece that has one."""
    results = []
    for result in spread(function, pieces, retries=retries):
        if isinstance(result, HardmineError):
            raise result
        results.append(result)
    return results
