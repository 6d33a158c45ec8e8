"""Whether each candidate is among the few things that its query knows: compiled loops, one query after another.

numpy would answer for a whole block by sorting millions of pairs; a query knows so few values that looking through them
is cheaper by an order of magnitude, and needs no memory. One thread each: it is tasks that share the queries out.

Q queries, K candidates per query, N items, V values of all items together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.labels.compiled import compiled
from cluster.tables.tables import I64

Bool = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int32] | I64

FEW = 8
"""Up to so many values are compared one by one, more by bisection."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: the high bits of a product with it are well mixed (Knuth 6.4)."""


@compiled()
def _distinct(values: I64) -> I64:
    """The different values, ascending."""
    ordered = np.sort(values)
    count = 0
    for place in range(len(ordered)):
        if place == 0 or ordered[place] != ordered[place - 1]:
            ordered[count] = ordered[place]
            count += 1
    return ordered[:count]


@compiled()
def _among(known: I64, value: np.int64) -> bool:
    """Whether `value` is one of `known`, which ascend."""
    count = len(known)
    if count <= FEW:
        hit = False
        for place in range(count):
            hit |= known[place] == value
        return hit
    found = np.searchsorted(known, value)
    return bool(found < count and known[found] == value)


@compiled()
def _bit(value: np.int64) -> np.uint64:
    return np.uint64(1) << np.uint64(value & 63)


@compiled()
def mark_values(offsets: I64, values: I64, wanted_QK: I64, out_QK: Bool) -> None:
    """out_QK: wanted_QK[q, k] is among values[offsets[q]:offsets[q + 1]]; a negative one never is."""
    for query in range(wanted_QK.shape[0]):
        known = _distinct(values[offsets[query] : offsets[query + 1]])
        for place in range(wanted_QK.shape[1]):
            wanted = wanted_QK[query, place]
            out_QK[query, place] = wanted >= 0 and _among(known, wanted)


@compiled()
def mark_codes(offsets: I64, values: I64, codes_N: Codes, items_QK: I64, out_QK: Bool) -> None:
    """As `mark_values`, of the code of each item; a padding item and a negative code never are."""
    for query in range(items_QK.shape[0]):
        known = _distinct(values[offsets[query] : offsets[query + 1]])
        for place in range(items_QK.shape[1]):
            item = items_QK[query, place]
            code = np.int64(codes_N[item]) if item >= 0 and len(known) else np.int64(-1)
            out_QK[query, place] = code >= 0 and _among(known, code)


@compiled()
def mark_repeats(codes_N: Codes, items_QK: I64, out_QK: Bool) -> None:
    """out_QK: an earlier item of the query has the same code; padding never has."""
    width = items_QK.shape[1]
    bits = 1
    while (1 << bits) < 2 * width:
        bits += 1
    shift, last = np.uint64(64 - bits), np.int64((1 << bits) - 1)
    keys = np.empty(last + 1, np.int64)  # open addressing, at least half empty
    owner = np.full(last + 1, -1, np.int64)  # a slot that is not this query's is free
    for query in range(items_QK.shape[0]):
        for place in range(width):
            item = items_QK[query, place]
            repeated = False
            if item >= 0:
                code = np.int64(codes_N[item])
                slot = np.int64((np.uint64(code) * GOLDEN) >> shift)
                while owner[slot] == query and keys[slot] != code:
                    slot = (slot + 1) & last
                repeated = owner[slot] == query
                owner[slot], keys[slot] = query, code
            out_QK[query, place] = repeated


@compiled()
def sign_lists(list_offsets: Codes, codes_V: Codes, out_N: U64) -> None:
    """out_N: a set bit for the last six bits of each of an item's codes: items without a common bit share no code."""
    for item in range(len(out_N)):
        bits = np.uint64(0)
        for index in range(list_offsets[item], list_offsets[item + 1]):
            bits |= _bit(np.int64(codes_V[index]))
        out_N[item] = bits


@compiled()
def mark_lists(
    offsets: I64, values: I64, list_offsets: Codes, codes_V: Codes, signs_N: U64, exact: bool, items_QK: I64, out_QK: Bool
) -> None:
    """As `mark_values`: whether any of an item's codes is among the query's; padding never has one.

    Args:
        list_offsets: [N + 1] an item's codes are codes_V[list_offsets[n]:list_offsets[n + 1]].
        signs_N: of `sign_lists`.
        exact: all codes are below 64, so that a common bit is a common code.
    """
    for query in range(items_QK.shape[0]):
        known = _distinct(values[offsets[query] : offsets[query + 1]])
        bits = np.uint64(0)
        for place in range(len(known)):
            bits |= _bit(known[place])
        for place in range(items_QK.shape[1]):
            item = items_QK[query, place]
            hit = item >= 0 and (signs_N[item] & bits) != 0
            if hit and not exact:
                hit = False
                for index in range(list_offsets[item], list_offsets[item + 1]):
                    if _among(known, np.int64(codes_V[index])):
                        hit = True
                        break
            out_QK[query, place] = hit
