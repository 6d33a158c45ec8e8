"""What the stages of one call share, and how many partitions there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.session.progress import Progress
from cluster.storage.store import Store
from jobs.pairs.settings import PairsSettings
from jobs.pairs.tasks import run_tasks

PARTITION_BYTES = 32 * 2**20
"""Of the logs or of the items, unpacked, for each partition."""
PARTITION_PAIRS = 4_000_000
"""Pairs of items that users liked one after another, for each partition of items, before equal ones are added up."""
TASK_BYTES = 600 * 2**20
"""Memory of a task, about: what it has loaded, and what it does with a partition (measured in docs/logs.md)."""
MOST_PARTITIONS = 4096
"""What an object has a segment for; logs of more than 128 GiB have larger ones, and larger tasks."""
Results = list[dict[str, Any]]


@dataclass
class Work:
    """What the stages of one call share."""

    store: Store
    folder: str
    settings: PairsSettings
    bytes: int
    """Of the logs, unpacked."""
    progress: Progress

    @property
    def partitions(self) -> int:
        """Of clients, and of texts."""
        return partitions_of(self.bytes, PARTITION_BYTES)

    def run(self, name: str, task: Any, inputs: Sequence[Any], at_once: int | None = None) -> Results:
        """The results of a stage's tasks."""
        return run_tasks(
            self.store,
            f"{self.folder}/{name}",
            task,
            inputs,
            progress=self.progress,
            retries=self.settings.cluster.retries,
            at_once=at_once,
            memory=TASK_BYTES * max(1, self.bytes // (self.partitions * PARTITION_BYTES)),
        )


def partitions_of(amount: int, each: int) -> int:
    """So many that each has about `each` of the amount."""
    return min(MOST_PARTITIONS, max(1, math.ceil(amount / each)))
