"""What the round before chose: which negatives of a block are new, and since which round the others have been chosen.

Q queries of a block, E negatives of the longest list of the round before, N' of this round's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, lists_to_csr
from mining.candidates import dense, read_span
from mining.sources.fuse import look_up


@dataclass(frozen=True)
class Earlier:
    """The negatives of the round before of some queries."""

    rows: I64
    """[Q, E] corpus rows, -1 padding."""
    rounds: I64
    """[Q, E] round since which each has been a negative of its query without a break; padding: anything."""


def load_earlier(store: Store, parts: Sequence[Part], start: int, query_rows: I64) -> Earlier:
    """The negatives that the round before chose for some queries.

    Args:
        parts: negatives of all queries; they may be cut elsewhere than this round's.
        start: number of the first of `query_rows` among all queries.

    Raises:
        ArtifactError: the table is of other queries.
    """
    table = read_span(store, parts, start, query_rows, ["negative_rows", "negatives"])
    rows = dense(table["negative_rows"], -1)
    offsets, _ = lists_to_csr(table["negative_rows"])
    rounds = np.zeros(rows.shape, np.int64)
    flat = pc.struct_field(pc.list_flatten(table["negatives"]), "round")
    rounds[np.arange(rows.shape[1])[None, :] < np.diff(offsets)[:, None]] = flat.to_numpy()
    return Earlier(rows, rounds)


def first_rounds(chosen_QN: I64, earlier: Earlier | None, number: int) -> I64:
    """[Q, N'] the round since which each chosen item has been a negative of its query: `number` if it is new.

    Args:
        chosen_QN: corpus rows, -1 padding.
        earlier: None: no round before mined.
    """
    if earlier is None:
        return np.full(chosen_QN.shape, number, np.int64)
    return look_up(chosen_QN, earlier.rows, earlier.rounds, missing=number)
