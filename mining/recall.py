"""How much of the true K nearest an approximate search finds, measured on a sample of the queries. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.tables import I64
from mining.shards import QueryBlock


def recall_of(found_QK: I64, exact_QK: I64) -> float:
    """Share of the exact hits that were found; -1 pads both."""
    shared = sum(len(np.intersect1d(some, true[true >= 0], assume_unique=False))
                 for some, true in zip(found_QK, exact_QK, strict=True))
    return shared / max(1, int((exact_QK >= 0).sum()))


def sample_blocks(blocks: Sequence[QueryBlock], count: int) -> tuple[QueryBlock, QueryBlock]:
    """Two samples of about `count` queries, spread evenly over all blocks: one to tune on, one to verify on.

    Their queries lie within one block each where that is possible, so that their vectors are read from few parts.
    """
    chosen = [blocks[place] for place in np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), SPREAD)).astype(int))]
    each = -(-count // len(chosen))
    tune, verify = [], []
    for block in chosen:
        step = max(1, len(block.query_rows) // (2 * each))
        some = block.query_rows[::step][: 2 * each]
        tune.append(some[::2])
        verify.append(some[1::2] if len(some) > 1 else some)
    return QueryBlock(TUNE, np.concatenate(tune)), QueryBlock(VERIFY, np.concatenate(verify))


SPREAD = 8
"""Blocks that a sample is taken from."""
TUNE, VERIFY = -1, -2
"""Block numbers of the samples."""
