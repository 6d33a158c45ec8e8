"""Parts of tables handed to a pool of actors by Ray Data: what embedding and a cross-encoder's reading have in common.

The dataset's rows are addresses, not data: each actor reads its part from storage and writes its result there.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.session.resources import PoolSize


def over_parts(
    rows: Sequence[Mapping[str, Any]],
    actor: type,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    pool: PoolSize,
    *,
    retries: int,
) -> Iterator[dict[str, Any]]:
    """Call actors once per row, as many at a time as `pool` has; yields what they answer, in any order.

    Args:
        rows: addresses with "rows", how much work each is. The longest go first: no actor is left with one at the end.
        actor: class of the actors, made with `arguments` and `keywords`; called with a batch of one row. Its answer has
            a column "error": empty, or a pickled error of ours, which is raised here. An exception would come back as text
            only: Ray Data keeps neither the type of what `__init__` raises nor the cause of what a call raises.
    """
    import ray.data

    rows = sorted(rows, key=lambda row: -int(row["rows"]))
    with warnings.catch_warnings():
        # the default is to restart a crashing actor for ever, and Ray 2.60 offers no other way to say how often
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = ray.data.from_items([dict(row) for row in rows], override_num_blocks=len(rows)).map_batches(
            actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(pool.count, len(rows))),
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


def load_share(rows: Sequence[Mapping[str, Any]], pool: PoolSize) -> int:
    """The part of the work, in rows, that one of the actors does."""
    return sum(int(row["rows"]) for row in rows) // max(1, min(pool.count, len(rows)))
