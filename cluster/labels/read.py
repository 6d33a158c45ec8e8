"""Known relevance as a run's tables have it, in so little memory that every process of a node can share it.

A Ray task whose result this is leaves it in the node's shared memory once; the tasks that take it as an argument map it from
there without a copy, and Ray removes it when the driver lets go of it or dies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.labels.labels import I32, Labels, short_codes
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, offsets_of, stream_parts


def read_labels(store: Store, labels: Sequence[Part], codes: Sequence[Part], num_queries: int) -> Labels:
    """The labels and the item codes of a run: 8 bytes per item, 9 per label and 8 per query. Without `codes` there are none.

    Memory while it reads: 8 bytes per item more; 16 where items have groups.
    """
    counts = np.zeros(num_queries, np.int64)
    size = sum(part.rows for part in labels)
    item_rows, scores, first = np.empty(size, np.int64), np.empty(size, np.int8), 0
    for part, table in stream_parts(store, labels, ["query_row", "item_row", "score"]):
        here = slice(first, first + part.rows)
        counts += np.bincount(table["query_row"].to_numpy(), minlength=num_queries)
        item_rows[here], scores[here] = table["item_row"].to_numpy(), np.sign(table["score"].to_numpy())
        first += part.rows
    groups, texts = read_codes(store, codes)
    return Labels(num_queries, len(texts), offsets_of(counts), item_rows, scores, groups, texts)


def read_codes(store: Store, codes: Sequence[Part]) -> tuple[I32, I32]:
    """(numbers of groups [N], -1: none; numbers of texts [N])."""
    size, first = sum(part.rows for part in codes), 0
    texts = np.empty(size, np.int64)
    groups: I64 | None = None  # a corpus without groups needs no memory for them
    for part, table in stream_parts(store, codes, ["group_code", "text_code"]):
        here = slice(first, first + part.rows)
        texts[here], own = table["text_code"].to_numpy(), table["group_code"].to_numpy()
        if groups is None and (own >= 0).any():
            groups = np.full(size, -1, np.int64)
        if groups is not None:
            groups[here] = own
        first += part.rows
    short = short_codes(texts)
    del texts
    return np.full(size, -1, np.int32) if groups is None else short_codes(groups), short
