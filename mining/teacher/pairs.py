"""The pairs that a teacher reads, by the filters that choosing uses; one Ray task for every few blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.session.session import set_threads
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part
from mining.candidates import read_span
from mining.negatives import MineTask, Side, filter_block, read_block
from mining.passes import Passes
from mining.search.shards import QueryBlock
from mining.teacher.cut import depth_of, pairs_to_read


def pairs_of_block(task: MineTask, number: int, side: Side) -> tuple[Part, int]:
    """Write the pairs of hits part `number`; (its part, how many pairs).

    Args:
        task: what will be chosen from, without a teacher; `folder` is where the parts go.
    """
    block = read_block(task, number, side)
    alive = filter_block(task, block, side).alive
    pairs = pairs_to_read(block.candidates, alive, side.labels, depth_of(task.settings))
    table = pairs.to_table(block.candidates.query_rows, scored=False)
    return write_part(task.store, f"{task.folder}/{part_name(number)}", table), len(pairs)


def write_pairs(passes: Passes) -> tuple[list[Part], int]:
    """The pairs of all hits parts, in their order; and how many pairs."""
    passes.with_cuts()
    written = [entry for group in passes.over_blocks(_pairs_of_group) for entry in group]
    return [part for part, _ in written], sum(pairs for _, pairs in written)


def _pairs_of_group(task: MineTask, numbers: Sequence[int], side: Side) -> list[tuple[Part, int]]:
    set_threads(1)
    return [pairs_of_block(task, number, side) for number in numbers]


def cut_as(store: Store, pairs: Sequence[Part], blocks: Sequence[QueryBlock], folder: str) -> list[Part]:
    """The same pairs in the blocks of a search, which scores them block by block; they are most often cut so already.

    Args:
        blocks: of the same queries as `pairs`, in the same order.
        folder: where they go if they are cut anew.
    """
    if [part.rows for part in pairs] == [len(block.query_rows) for block in blocks]:
        return list(pairs)
    starts = np.cumsum([0, *(len(block.query_rows) for block in blocks)])
    return [
        write_part(
            store, f"{folder}/{part_name(block.index)}", read_span(store, pairs, int(start), block.query_rows, ["also_rows"])
        )
        for block, start in zip(blocks, starts, strict=False)
    ]
