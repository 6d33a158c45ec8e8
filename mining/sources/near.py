"""Near-duplicates of relevant items: items that say the same in almost the same words, though no label knows them.

They are looked up once per run, with the off-the-shelf vectors: a text stays the same while the model trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.labels import Labels, gather_csr
from cluster.storage.store import Store
from cluster.tables.tables import (
    F32,
    I64,
    Part,
    csr_to_lists,
    lists_to_csr,
    offsets_of,
    part_name,
    read_part,
    read_parts,
    write_part,
)

NEIGHBOURS = 32
"""Nearest items of a relevant item that are looked at, itself not counted."""


@dataclass(frozen=True)
class Near:
    """The near-duplicates of some items."""

    items: I64
    """[M] item rows that have any, ascending."""
    offsets: I64
    """[M+1] into near_rows."""
    near_rows: I64
    """Their near-duplicates, nearest first."""

    @classmethod
    def from_table(cls, table: pa.Table) -> Near:
        """From a table of `near_pairs`, its parts in any order."""
        items = table["item_row"].to_numpy().astype(np.int64)
        offsets, rows = lists_to_csr(table["near_rows"])
        order = np.argsort(items, kind="stable")
        lengths = np.diff(offsets)[order]
        _, index = gather_csr(offsets, order)
        return cls(items[order], offsets_of(lengths), rows[index].astype(np.int64))


def near_pairs(hits: pa.Table, threshold: float) -> tuple[pa.Table, int]:
    """Which neighbours of each item are its near-duplicates.

    Args:
        hits: query_row (here the row of an item), item_rows and scores (its nearest items, best first, NEIGHBOURS + 1 of
            them, so that the item itself takes nobody's place).
        threshold: least cosine of a near-duplicate.

    Returns:
        (table of item_row and near_rows list<i64>, best first, for the items that have any, in the order of `hits`;
        number of items all of whose NEIGHBOURS neighbours are near: they may have more).
    """
    items = hits["query_row"].to_numpy().astype(np.int64)
    offsets, rows = lists_to_csr(hits["item_rows"])
    scores: F32 = lists_to_csr(hits["scores"])[1].astype(np.float32)
    owner = np.repeat(np.arange(len(items)), np.diff(offsets))
    near = (rows != items[owner]) & (scores >= np.float32(threshold))
    # where many items are equal, the item itself may not be among its own hits: then one more is near
    near &= _count_before(near, offsets, owner) < NEIGHBOURS
    count = np.bincount(owner[near], minlength=len(items))
    has = count > 0
    kept = offsets_of(count[has])
    table = pa.table({"item_row": items[has], "near_rows": csr_to_lists(kept, rows[near].astype(np.int64))})
    return table, int((count == NEIGHBOURS).sum())


def _count_before(mask: npt.NDArray[np.bool_], offsets: I64, owner: I64) -> I64:
    """How many elements of the same list are true before each one."""
    before = offsets_of(mask)
    result: I64 = before[:-1] - before[offsets[owner]]
    return result


def near_of_block(near: Near, labels: Labels, query_rows: I64) -> tuple[I64, I64]:
    """The near-duplicates of each query's relevant items.

    Args:
        query_rows: [Q] queries of a block.

    Returns:
        (owner i64 [P]: position in `query_rows`, item row i64 [P]), ordered by both, each pair once.
    """
    offsets, rows = labels.positives(query_rows)
    owner = np.repeat(np.arange(len(query_rows), dtype=np.int64), np.diff(offsets))
    place = np.searchsorted(near.items, rows)
    known = place < len(near.items)
    known[known] = near.items[place[known]] == rows[known]
    of_pair, index = gather_csr(near.offsets, place[known])
    pairs = np.unique(owner[known][of_pair] * np.int64(labels.num_items) + near.near_rows[index])
    return pairs // labels.num_items, pairs % labels.num_items


@dataclass(frozen=True)
class Found:
    """What `find_near` wrote."""

    parts: list[Part]
    items: int
    """Items that have any."""
    pairs: int
    full: int
    """Items all of whose NEIGHBOURS neighbours are near."""


def find_near(store: Store, hits: Sequence[Part], folder: str, threshold: float, *, retries: int) -> Found:
    """`near_pairs` of every part of hits, each in a Ray task; parts in the order of `hits`."""
    import ray

    remote = ray.remote(_find_in_part).options(max_retries=retries)
    found = ray.get([remote.remote(store, part, f"{folder}/{part_name(number)}", threshold) for number, part in enumerate(hits)])
    return Found(
        [part for part, _, _ in found],
        sum(part.rows for part, _, _ in found),
        sum(pairs for _, pairs, _ in found),
        sum(full for _, _, full in found),
    )


def _find_in_part(store: Store, hits: Part, target: str, threshold: float) -> tuple[Part, int, int]:
    table, full = near_pairs(read_part(store, hits, ["query_row", "item_rows", "scores"]), threshold)
    return write_part(store, target, table), len(lists_to_csr(table["near_rows"])[1]), full


def read_near(store: Store, parts: Sequence[Part]) -> Near | None:
    """The near-duplicates that a stage wrote; None: `parts` is empty, they were not looked for."""
    return Near.from_table(read_parts(store, parts, ["item_row", "near_rows"])) if parts else None
