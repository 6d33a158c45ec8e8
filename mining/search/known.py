"""The items that are known to be no negatives of a query, so that a search for negatives need not find them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.labels.labels import Labels, gather_csr
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, lists_to_csr, offsets_of, parts_between, read_part
from mining.search.topk import Lists


def known_items(labels: Labels, query_rows: I64) -> Lists:
    """`Labels.no_negatives` of each query and their group mates, but for items judged irrelevant; ascending, each once."""
    offsets, rows = labels.no_negatives(query_rows)
    owner = np.repeat(np.arange(len(query_rows), dtype=np.int64), np.diff(offsets))
    codes, starts, members = labels.groups
    own = labels.group_codes[rows]
    grouped = own >= 0
    pair, index = gather_csr(starts, np.searchsorted(codes, own[grouped]))
    items = np.int64(labels.num_items)
    keys = np.unique(np.concatenate([owner * items + rows, owner[grouped][pair] * items + members[index]]))
    bad_offsets, bad = labels.judged_irrelevant(query_rows)
    spared = np.repeat(np.arange(len(query_rows), dtype=np.int64), np.diff(bad_offsets)) * items + bad
    keys = keys[~np.isin(keys, spared)] if len(spared) else keys
    return Lists(offsets_of(np.bincount(keys // items, minlength=len(query_rows))), keys % items)


def read_lists(store: Store, parts: Sequence[Part], column: str, rows: I64) -> Lists:
    """A list column of some rows (ascending) of a numbered table, each list in its own order."""
    counts, found = [], []
    for part, low, high in parts_between(parts, int(rows[0]), int(rows[-1]) + 1) if len(rows) else ():
        offsets, values = lists_to_csr(read_part(store, part, [column])[column])
        here = rows[(rows >= part.first_row + low) & (rows < part.first_row + high)] - part.first_row
        counts.append(np.diff(offsets)[here])
        found.append(values[gather_csr(offsets, here)[1]].astype(np.int64))
    return Lists(offsets_of(np.concatenate([np.zeros(0, np.int64), *counts])), np.concatenate([np.zeros(0, np.int64), *found]))


def united(first: Lists, second: Lists) -> Lists:
    """The items of both lists of each query, ascending, each once."""
    items = np.int64(max(first.rows.max(initial=0), second.rows.max(initial=0)) + 1)
    keys = np.unique(np.concatenate([lists.owners * items + lists.rows for lists in (first, second)]))
    return Lists(offsets_of(np.bincount(keys // items, minlength=len(first.offsets) - 1)), keys % items)
