"""Items that one user liked one after another, and those that a user disliked who liked another one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.tables.tables import I64
from jobs.pairs.partitions import hashes
from jobs.pairs.reading.rows import EVENT, NOBODY
from jobs.pairs.signals import CODES, POSITIVE_ACTIONS

Bool = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]

ITEM_SALT = "item"
"""Of the hashes of items, which are no secret."""

LIKED, DISLIKED = [CODES[name] for name in POSITIVE_ACTIONS], [CODES[name] for name in ("thumbs_down", "deletion")]
PAIRS = 2_000_000
"""Pairs that are counted together, about."""
WINDOW = 50
"""Items that one user liked one after another within this many are used together."""
MOST = 1000
"""Items of one client that are looked at, the first ones: who has more is a shop."""


def used_together(table: pa.Table, window: int) -> tuple[Iterator[pa.Table], pa.Table, int]:
    """(pairs, likers, users): item str, other str, liked i32, disliked i32: how many clients liked `item` and, within `window`
    items, liked or disliked `other`, in both directions, some clients at a time, so that a pair may come again; item u64,
    likers i64; clients who liked anything.
    """
    events = table.filter(pc.and_(pc.equal(table["kind"], EVENT), pc.not_equal(table["client"], NOBODY)))
    action = events["action"].to_numpy()
    liked, bad = np.isin(action, LIKED), np.isin(action, DISLIKED)
    events, bad = events.filter(pa.array(liked | bad)), bad[liked | bad]
    encoded = events["item"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    item = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = encoded.dictionary.cast(pa.string())
    order = np.lexsort((np.arange(len(item)), events["time"].to_numpy(), events["client"].to_numpy()))
    client, item, bad = events["client"].to_numpy()[order], item[order], bad[order]
    first = np.zeros(len(item), bool)
    pair = np.unique(client, return_inverse=True)[1] * max(1, len(names)) + item
    first[np.unique(pair, return_index=True)[1]] = True
    client, item, bad = client[first], item[first], bad[first]
    kept = np.arange(len(client)) - np.searchsorted(client, client) < MOST
    client, item, bad = client[kept], item[kept], bad[kept]
    likers = np.bincount(item[~bad], minlength=len(names)).astype(np.int64)
    pairs = (_pairs_of(client[rows], item[rows], bad[rows], window, names) for rows in _some_clients(client, window))
    return pairs, pa.table({"item": hashes(names, ITEM_SALT), "likers": likers}), len(np.unique(client[~bad]))


def _some_clients(client: U64, window: int) -> Iterator[slice]:
    """Rows of whole clients that make about PAIRS pairs."""
    start = 0
    while start < len(client):
        last = min(len(client), start + max(1, PAIRS // (2 * window))) - 1
        stop = int(np.searchsorted(client, client[last], side="right"))
        yield slice(start, stop)
        start = stop


def _pairs_of(client: U64, item: I64, bad: Bool, window: int, names: pa.Array) -> pa.Table:
    many = max(1, len(names))
    left, right, dislike = _within(client, item, bad, window)
    groups, inverse = np.unique(left * many + right, return_inverse=True)
    counts = [np.bincount(inverse, weights=flags, minlength=len(groups)).astype(np.int32) for flags in (~dislike, dislike)]
    left, right = np.divmod(groups, many)
    columns = {"item": names.take(pa.array(left)), "other": names.take(pa.array(right))}
    return pa.table(columns | {"liked": counts[0], "disliked": counts[1]})


def _within(client: U64, item: I64, bad: Bool, window: int) -> tuple[I64, I64, Bool]:
    """(liked item, other item, whether the other was disliked) of one client within the window."""
    lefts, rights, flags = [], [], []
    for step in range(1, window + 1):
        same = client[step:] == client[:-step]
        for one, other in ((slice(None, -step), slice(step, None)), (slice(step, None), slice(None, -step))):
            pair = same & ~bad[one]
            lefts.append(item[one][pair])
            rights.append(item[other][pair])
            flags.append(bad[other][pair])
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(flags)
