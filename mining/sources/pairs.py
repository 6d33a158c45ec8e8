"""The candidates of several sources for each query, side by side: the pairs that the current model has still to score.

Q queries of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.session.session import task_groups
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, csr_to_lists, lists_to_csr, offsets_of, part_name, write_part
from mining.candidates import read_span
from mining.search.shards import QueryBlock

ITEMS = "item_rows"
"""Column of a source's table that lists items, best first."""
COLUMN = {"earlier": "negative_rows"}
"""Where that column is called otherwise."""


@dataclass(frozen=True)
class PairsTask:
    """What to put side by side. All tables have the same queries in the same order; each may be cut elsewhere."""

    store: Store
    hits: list[Part]
    sources: Mapping[str, list[Part]]
    """Source -> its table."""
    folder: str


def new_pairs(num_items: int, found: tuple[I64, I64], lists: Sequence[tuple[I64, I64]]) -> tuple[I64, I64]:
    """The items of `lists` that `found` does not have, each once, ascending, for each query.

    Args:
        num_items: above every row.
        found, lists: as (offsets [Q+1], rows).

    Returns:
        (offsets [Q+1], rows).
    """
    count = len(found[0]) - 1

    def keys(offsets: I64, rows: I64) -> I64:
        return np.repeat(np.arange(count, dtype=np.int64), np.diff(offsets)) * np.int64(num_items) + rows

    new = np.setdiff1d(np.concatenate([keys(*some) for some in lists]), keys(*found))
    lengths = np.bincount(new // num_items, minlength=count)
    return offsets_of(lengths), new % num_items


def write_block(task: PairsTask, block: QueryBlock, start: int) -> tuple[Part, int]:
    """Write the pairs of one block.

    Args:
        start: place of its first query among all queries of the tables.

    Returns:
        (its part: query_row, also_rows (to score), a list of rows per source, e.g. bm25_rows; how many are to score).

    Raises:
        ArtifactError: a table is of other queries.
    """

    def lists(parts: Sequence[Part], column: str) -> tuple[I64, I64]:
        offsets, rows = lists_to_csr(read_span(task.store, parts, start, block.query_rows, [column])[column])
        return offsets, rows.astype(np.int64)

    found = lists(task.hits, ITEMS)
    sources = {kind: lists(parts, COLUMN.get(kind, ITEMS)) for kind, parts in task.sources.items()}
    largest = max(int(rows.max(initial=0)) for _, rows in (found, *sources.values()))
    offsets, rows = new_pairs(largest + 1, found, list(sources.values()))
    table = pa.table(
        {"query_row": block.query_rows, "also_rows": csr_to_lists(offsets, rows)}
        | {f"{kind}_rows": csr_to_lists(*some) for kind, some in sources.items()}
    )
    return write_part(task.store, f"{task.folder}/{part_name(block.index)}", table), len(rows)


def write_pairs(task: PairsTask, blocks: Sequence[QueryBlock], *, retries: int) -> tuple[list[Part], int]:
    """Write the pairs of all blocks, one Ray task for every few blocks; (parts in the blocks' order, pairs to score)."""
    import ray

    starts = np.cumsum([0, *(len(block.query_rows) for block in blocks)])[:-1]
    remote = ray.remote(_write_group).options(max_retries=retries)
    results = ray.get(
        [
            remote.remote(task, [blocks[number] for number in group], [int(starts[number]) for number in group])
            for group in task_groups(len(blocks))
        ]
    )
    written = [entry for group in results for entry in group]
    return [part for part, _ in written], sum(count for _, count in written)


def _write_group(task: PairsTask, blocks: Sequence[QueryBlock], starts: Sequence[int]) -> list[tuple[Part, int]]:
    return [write_block(task, block, start) for block, start in zip(blocks, starts, strict=True)]
