"""Parts of tables handed to a pool of readers by Ray Data: what embedding and a cross-encoder's reading have in common.

The dataset's rows are addresses, not data: each reader takes its part from storage and writes its result there. Readers are
Ray Data's actors; where processes stay warm they are its tasks, which Ray runs in processes that earlier stages left.
"""

from __future__ import annotations

import pickle
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from cluster.session.resources import PoolSize
from cluster.session.warm import stays_warm

KEPT_S = 5.0
"""How long the process of a task keeps a reader, and so its model, that nobody calls."""


def over_parts(
    rows: Sequence[Mapping[str, Any]],
    reader: type,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    pool: PoolSize,
    *,
    retries: int,
    overlap: int = 1,
) -> Iterator[dict[str, Any]]:
    """Call readers once per row, as many at a time as `pool` has; yields what they answer, in any order.

    Args:
        rows: addresses with "rows", how much work each is. The longest go first: no reader is left with one at the end.
        reader: class of the readers, made with `arguments` and `keywords`; called with a batch of one row. Its answer has
            a column "error": empty, or a pickled error of ours, which is raised here. An exception would come back as text
            only: Ray Data keeps neither the type of what `__init__` raises nor the cause of what a call raises.
        overlap: calls at a time of one actor, in threads of their own, so that storage and device work beside each other.
    """
    import ray.data

    rows = sorted(rows, key=lambda row: -int(row["rows"]))
    dataset = ray.data.from_items([dict(row) for row in rows], override_num_blocks=len(rows))
    size = min(pool.count, len(rows))
    with warnings.catch_warnings():
        # the default is to start what crashes again for ever, and Ray 2.60 offers no other way to say how often
        warnings.simplefilter("ignore", DeprecationWarning)
        if stays_warm(pool):
            dataset = dataset.map_batches(
                _call_held,
                batch_size=1,
                compute=ray.data.TaskPoolStrategy(size=size),
                fn_args=(uuid.uuid4().hex, partial(reader, *arguments, **keywords)),
                num_cpus=pool.cpus,
                max_retries=retries,
            )
        else:
            dataset = dataset.map_batches(
                reader,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    size=size, enable_true_multi_threading=overlap > 1, max_concurrent_calls_per_actor=overlap
                ),
                fn_constructor_args=tuple(arguments),
                fn_constructor_kwargs=dict(keywords),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                max_restarts=retries,
                max_task_retries=retries,
            )
    for row in dataset.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield row


class _Held:
    """In the process of a task: the reader of the stage that runs."""

    def __init__(self) -> None:
        self._lock, self._calls = threading.Lock(), 0
        self._stage = ""
        self._reader: Any = None

    def call(self, batch: Any, stage: str, make: Callable[[], Any]) -> Any:
        """What the stage's reader answers; it is made with the stage's first call in this process."""
        with self._lock:
            self._calls += 1
            if self._reader is None or self._stage != stage:
                self._reader = None  # let go before the next one is made
                self._stage, self._reader = stage, make()
            reader, number = self._reader, self._calls
        try:
            return reader(batch)
        finally:
            release = threading.Timer(KEPT_S, self._let_go, [number])
            release.daemon = True
            release.start()

    def _let_go(self, number: int) -> None:
        with self._lock:
            if number == self._calls:  # nobody has called since
                self._reader = None


_held = _Held()


def _call_held(batch: Any, stage: str, make: Callable[[], Any]) -> Any:
    return _held.call(batch, stage, make)


def load_share(rows: Sequence[Mapping[str, Any]], pool: PoolSize) -> int:
    """The part of the work, in rows, that one of the readers does."""
    return sum(int(row["rows"]) for row in rows) // max(1, min(pool.count, len(rows)))
