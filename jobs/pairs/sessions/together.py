"""Items that one user liked one after another, and those that a user disliked who liked another one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.tables.tables import I64
from jobs.pairs.reading.rows import EVENT, NOBODY
from jobs.pairs.signals import CODES
from jobs.pairs.tasks import hashes

ITEM_SALT = "item"
"""Of the hashes of items, which are no secret."""

LIKED = ("click", "dwell", "cart", "purchase", "wishlist", "thumbs_up", "citation")
WINDOW = 50
"""Items that one user liked one after another within this many are used together."""
MOST = 1000
"""Items of one client that are looked at, the first ones: who has more is a shop."""


def used_together(table: pa.Table, window: int) -> tuple[pa.Table, pa.Table, int]:
    """(pairs, likers, users): item str, other str, liked i32, disliked i32: how many clients liked `item` and, within `window`
    items, liked or disliked `other`, in both directions; item u64, likers i64; clients who liked anything.
    """
    events = table.filter(pc.and_(pc.equal(table["kind"], EVENT), pc.not_equal(table["client"], NOBODY)))
    action = events["action"].to_numpy()
    liked = np.isin(action, [CODES[name] for name in LIKED])
    bad = np.isin(action, [CODES["thumbs_down"], CODES["deletion"]])
    events, bad = events.filter(pa.array(liked | bad)), bad[liked | bad]
    encoded = events["item"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    item = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    client, time = events["client"].to_numpy(), events["time"].to_numpy()
    order = np.lexsort((np.arange(len(item)), time, client))
    client, item, bad = client[order], item[order], bad[order]
    first = np.zeros(len(item), bool)
    many = max(1, len(encoded.dictionary))
    clients = np.unique(client, return_inverse=True)[1]
    first[np.unique(clients * many + item, return_index=True)[1]] = True
    client, item, bad = clients[first], item[first], bad[first]
    starts = np.searchsorted(client, client)
    kept = np.arange(len(client)) - starts < MOST
    client, item, bad = client[kept], item[kept], bad[kept]
    left, right, dislike = _within(client, item, bad, window)
    groups, inverse = np.unique(left * many + right, return_inverse=True)
    counts = [np.bincount(inverse, weights=flags, minlength=len(groups)).astype(np.int32) for flags in (~dislike, dislike)]
    names = encoded.dictionary.cast(pa.string())
    pairs = pa.table(
        {
            "item": names.take(pa.array(groups // many)),
            "other": names.take(pa.array(groups % many)),
            "liked": counts[0],
            "disliked": counts[1],
        }
    )
    likers = np.bincount(item[~bad], minlength=len(names)).astype(np.int64)
    return pairs, pa.table({"item": hashes(names, ITEM_SALT), "likers": likers}), len(np.unique(client[~bad]))


def _within(client: I64, item: I64, bad: npt.NDArray[np.bool_], window: int) -> tuple[I64, I64, npt.NDArray[np.bool_]]:
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
