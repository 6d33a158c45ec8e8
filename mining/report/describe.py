"""What the negatives look like, read from the finished table: reuse of items, confusion of values, samples.

The table is small (N per query), so it is simply read again: choosing does not know of this, and a change of the report's
settings alone chooses nothing anew. Groups of blocks are Ray tasks; the driver gets figures and the shown samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.labels.read import read_labels
from cluster.session.session import memory_to_ask, task_groups
from cluster.storage.store import Store
from cluster.tables.rows import cut, has_texts, read_rows
from cluster.tables.tables import I64, Part, lists_to_csr, read_part, read_parts
from mining.memory import PROCESS_BYTES, counting_bytes
from mining.report.confusion import Buckets, Confusion, Values, confusion_block, confusion_column
from mining.report.counts import I32, Reuse, UsedItem, most_used, reuse
from mining.report.samples import Sample, ShownSample, best_samples, draw_samples, show_samples
from mining.report.weak import ShownWeak, Weak, show_weak, weak_of, worst
from mining.settings import MiningSettings

TITLE_LENGTH = 80


@dataclass(frozen=True)
class DescribeTask:
    """What to describe."""

    store: Store
    negatives: list[Part]
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    num_items: int
    num_queries: int
    settings: MiningSettings
    seed: int


@dataclass(frozen=True)
class Described:
    """What the negatives look like, as mining.json has it."""

    reuse: Reuse
    confusion: Confusion | None
    """None: there is no such column."""
    samples: list[ShownSample]
    weak: list[ShownWeak]
    """Queries that are left out of training, the worst first."""


@dataclass(frozen=True)
class Glance:
    """Samples and confusion of some blocks; they add up. The uses, which may be large, travel on their own."""

    samples: list[Sample]
    confusion: I64
    """[V+2, V+2]; [0, 0] without a column."""
    weak: list[Weak]

    def add(self, other: Glance, shown: int) -> Glance:
        """Both together."""
        weak = worst([*self.weak, *other.weak], shown)
        return Glance(best_samples([*self.samples, *other.samples], shown), self.confusion + other.confusion, weak)


def load_buckets(task: DescribeTask) -> Buckets | None:
    """The values of the confusion table; None: there is no such column."""
    column = confusion_column(task.settings)
    if column is None:
        return None
    labels = read_labels(task.store, task.labels, [], task.num_queries)
    return Buckets.most_frequent(Values.from_column(read_parts(task.store, task.corpus, [column])[column]), labels)


def glance_block(table: pa.Table, task: DescribeTask, buckets: Buckets | None) -> tuple[Glance, I64]:
    """(samples and confusion, the negatives of all queries) of one block of the negatives table."""
    samples = draw_samples(table, task.seed, task.settings.samples)
    offsets, rows = lists_to_csr(table["negative_rows"])
    confusion = np.zeros((0, 0), np.int64)
    if buckets is not None:
        relevant_offsets, relevant = lists_to_csr(table["positive_rows"])
        confusion = confusion_block(buckets, (_owners(relevant_offsets), relevant), (_owners(offsets), rows), table.num_rows)
    return Glance(samples, confusion, weak_of(table, task.settings.samples)), rows


def _owners(offsets: I64) -> I64:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def glance_group(
    task: DescribeTask, numbers: Sequence[int], buckets: Buckets | None
) -> tuple[Glance, tuple[I64, I64], tuple[str, ...]]:
    """Some blocks together: (samples and confusion, (items that are used, how often), the confusion table's values)."""
    names = buckets.names if buckets else ()
    width = len(names) + 2 if buckets else 0
    total, used = Glance([], np.zeros((width, width), np.int64), []), [np.zeros(0, np.int64)]
    for number in numbers:
        glance, rows = glance_block(read_part(task.store, task.negatives[number]), task, buckets)
        total = total.add(glance, task.settings.samples)
        used.append(rows)
    items, uses = np.unique(np.concatenate(used), return_counts=True)
    return total, (items, uses), names


def describe(task: DescribeTask, *, retries: int) -> Described:
    """Describe a negatives table; the same for every block size."""
    import ray

    buckets = ray.remote(load_buckets).options(max_retries=retries).remote(task)  # once, for all tasks of a node
    remote = ray.remote(glance_group).options(num_returns=3, max_retries=retries)
    groups = [remote.remote(task, group, buckets) for group in task_groups(len(task.negatives))]
    glances: list[Glance] = ray.get([glance for glance, _, _ in groups])
    total = glances[0]
    for glance in glances[1:]:
        total = total.add(glance, task.settings.samples)
    asked = memory_to_ask(PROCESS_BYTES + counting_bytes(task.num_items))
    reused = ray.remote(_reuse).options(max_retries=retries, memory=asked).remote(task, [uses for _, uses, _ in groups])
    shown = ray.remote(show_samples).options(max_retries=retries).remote(total.samples, task.store, task.corpus, task.queries)
    column, names = confusion_column(task.settings), ray.get(groups[0][2])
    confusion = Confusion.of(column, names, total.confusion) if column else None
    weak = ray.remote(show_weak).options(max_retries=retries).remote(total.weak, task.store, task.corpus, task.queries)
    return Described(ray.get(reused), confusion, ray.get(shown), ray.get(weak))


def _reuse(task: DescribeTask, references: Sequence[Any]) -> Reuse:
    """Add the groups' uses up, one group at a time in memory."""
    import ray

    total = np.zeros(task.num_items, np.int32)
    for reference in references:
        items, uses = ray.get(reference)
        total[items] += uses.astype(np.int32)
    return reuse(total, name_most_used(total, task))


def name_most_used(uses_N: I32, task: DescribeTask) -> list[UsedItem]:
    """The items used most, with their titles (the start of their text where there is no title)."""
    rows = most_used(uses_N)
    titled = has_texts(task.store, task.corpus[0], "title")
    table = read_rows(task.store, task.corpus, rows, ["id", "text", *(["title"] if titled else [])])
    titles, texts = cut(table["title"], TITLE_LENGTH) if titled else [""] * len(rows), cut(table["text"], TITLE_LENGTH)
    return [
        UsedItem(item, title or text, int(uses))
        for item, title, text, uses in zip(table["id"].to_pylist(), titles, texts, uses_N[rows], strict=True)
    ]
