"""Samples, and how much of the true K nearest an approximate search finds on them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cluster.tables.tables import I64, Part
from mining.search.shards import QueryBlock

SPREAD = 8
"""Blocks that a sample of queries is taken from."""
SAMPLED_PARTS = 256
"""Parts that a sample of items is taken from."""
TUNE, VERIFY = -1, -2
"""Block numbers of the samples."""


def recall_of(found_QK: I64, exact_QK: I64) -> float:
    """Share of the exact hits that were found; -1 pads both. 1.0 where there is nothing to find."""
    shared = sum(len(np.intersect1d(some, true[true >= 0])) for some, true in zip(found_QK, exact_QK, strict=True))
    wanted = int((exact_QK >= 0).sum())
    return shared / wanted if wanted else 1.0


def sample_blocks(blocks: Sequence[QueryBlock], count: int) -> tuple[QueryBlock, QueryBlock]:
    """Two samples of about `count` queries each: one to tune on, one to verify on. Deterministic.

    They are spread evenly over up to SPREAD blocks, so that their vectors are read from few parts, and share no query
    unless there is but one. Rows ascend.
    """
    chosen = [blocks[place] for place in _spread(len(blocks), SPREAD)]
    each = 2 * -(-count // len(chosen))
    rows = np.concatenate([block.query_rows[_spread(len(block.query_rows), each)] for block in chosen])
    return QueryBlock(TUNE, rows[::2]), QueryBlock(VERIFY, rows[1::2] if len(rows) > 1 else rows)


def sampled_parts(parts: Sequence[Part], wanted: int) -> list[tuple[Part, int]]:
    """Parts to read for a sample of `wanted` rows, each with how many of its rows to take; all rows if there are fewer.

    About SAMPLED_PARTS parts are read, or as many more as hold so many rows; in proportion to their rows.
    """
    for count in _numbers_of_parts():
        chosen = [parts[place] for place in _spread(len(parts), count)]
        edges = np.cumsum([0, *(part.rows for part in chosen)])
        if edges[-1] >= wanted or len(chosen) == len(parts):
            break
    share = np.diff(edges * min(wanted, int(edges[-1])) // edges[-1])
    return [(part, int(rows)) for part, rows in zip(chosen, share, strict=True) if rows]


def parts_of_sample(parts: int, part_rows: int, wanted: int) -> int:
    """How many parts `sampled_parts` reads where each holds `part_rows` rows."""
    return min(parts, next(count for count in _numbers_of_parts() if count * part_rows >= wanted))


def _numbers_of_parts() -> Iterator[int]:
    return (SAMPLED_PARTS * 2**power for power in range(64))


def _spread(length: int, count: int) -> I64:
    """At most `count` numbers of 0 … length - 1, ascending, spread as far as possible."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).astype(np.int64))
