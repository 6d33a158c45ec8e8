"""Known relevance as a run's tables have it, in the little memory that every process of a node can share.

    with ray: labels = ray.remote(read_labels).remote(…), and any number of tasks that take `labels` as an argument

A task's result lies in the node's shared memory once, numpy arrays are mapped from there without a copy, and Ray removes it
when the driver lets go of it or dies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.labels.labels import Labels, short_codes
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, offsets_of, read_part


def read_labels(
    store: Store, labels: Sequence[Part], corpus: Sequence[Part], num_queries: int, self_rows: I64 | None = None
) -> Labels:
    """The labels and the item codes of a run: 8 bytes per item, 9 per label and 8 per query (16 with self_rows). Without `corpus`
    there are no codes.

    Memory while it reads: 13 bytes per item more.
    """
    counts = np.zeros(num_queries, np.int64)
    size = sum(part.rows for part in labels)
    item_rows, scores, first = np.empty(size, np.int64), np.empty(size, np.int8), 0
    for part in labels:
        table = read_part(store, part, ["query_row", "item_row", "score"])
        here = slice(first, first + part.rows)
        counts += np.bincount(table["query_row"].to_numpy(), minlength=num_queries)
        item_rows[here], scores[here] = table["item_row"].to_numpy(), np.sign(table["score"].to_numpy())
        first += part.rows
    group_codes, text_codes = (short_codes(read_codes(store, corpus, name)) for name in ("group_code", "text_code"))
    return Labels(num_queries, len(text_codes), offsets_of(counts), item_rows, scores, group_codes, text_codes, self_rows)


def read_codes(store: Store, corpus: Sequence[Part], name: str) -> I64:
    """[N] an integer column of the corpus, in row order."""
    codes, first = np.empty(sum(part.rows for part in corpus), np.int64), 0
    for part in corpus:
        codes[first : first + part.rows] = read_part(store, part, [name])[name].to_numpy()
        first += part.rows
    return codes
