"""One order out of several sources' orders: weighted reciprocal rank fusion.

Q queries of a block, K candidates of the longest list of a source, M candidates of all lists together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from cluster.labels.compiled import compiled
from cluster.tables.tables import I64

Number = TypeVar("Number", bound=np.number[Any])
RANK_CONSTANT = 60
"""Of the paper: damps the weight of the first positions, which would be 1 / position."""
ENTRY_BITS = 20
"""A list entry's number in a sort key; the rest of the key is its row or its weight."""
SHARE_UNITS = 10_000
"""Weights are whole numbers, share units × position units: their sums are exact, so equal weights are equal."""
PLACE_UNITS = 1 << 33
"""Of 1: neighbours differ up to position 90,000. Five whole shares in first positions have 43 bits: with ENTRY_BITS and a sign
they fit an int64."""


@dataclass(frozen=True)
class Fused:
    """Candidates of several sources in one order, each once. K' is the longest list."""

    rows: I64
    """[Q, K'] corpus rows, best first; -1 padding, last."""
    source: npt.NDArray[np.uint8]
    """[Q, K'] code of the source that places the item best."""
    position: I64
    """[Q, K'] position in that source's list, from 0; 0 where padding."""


def fuse(lists: Mapping[int, I64], shares: Mapping[int, float]) -> Fused:
    """Fuse the lists of several sources.

    An item weighs Σ share / (60 + position) over the sources that list it, position counted from 1; heavier items come first,
    equal ones by smaller row. Source: reciprocal rank fusion, Cormack, Clarke and Büttcher, SIGIR 2009.

    Args:
        lists: code of the source -> its candidates [Q, K], best first, each once; -1 padding anywhere.
        shares: code of the source -> its weight, above 0 and up to 1, taken to four digits. Only their proportion counts.

    Returns:
        The fused order. An item's `source` is the code of the one that places it best, the smallest code of equals.
        The same for any block size and number of threads.
    """
    codes = sorted(lists)
    widths = [lists[code].shape[1] for code in codes]
    assert sum(widths) < 1 << ENTRY_BITS, "an entry's number must fit its bits"
    weights = np.concatenate(
        [
            max(1, round(SHARE_UNITS * shares[code]))
            * np.rint(PLACE_UNITS / (RANK_CONSTANT + 1 + np.arange(width))).astype(np.int64)
            for code, width in zip(codes, widths, strict=True)
        ]
    )
    sources = np.repeat(np.array(codes, np.uint8), widths)
    positions = np.concatenate([np.arange(width, dtype=np.int64) for width in widths])
    entries_QM = np.concatenate([lists[code] for code in codes], axis=1)
    fused = Fused(
        np.full(entries_QM.shape, -1, np.int64), np.zeros(entries_QM.shape, np.uint8), np.zeros(entries_QM.shape, np.int64)
    )
    width = int(_fuse(entries_QM, weights, sources, positions, fused.rows, fused.source, fused.position).max(initial=1))
    return Fused(fused.rows[:, :width].copy(), fused.source[:, :width].copy(), fused.position[:, :width].copy())


@compiled()
def _by_row(rows_M: I64) -> I64:
    """Sorted keys (row, entry) of the entries of a list that are no padding."""
    keys = np.empty(len(rows_M), np.int64)
    real = 0
    for entry in range(len(rows_M)):
        if rows_M[entry] >= 0:
            keys[real] = (rows_M[entry] << ENTRY_BITS) | entry
            real += 1
    keys = keys[:real]
    keys.sort()
    return keys


@compiled(parallel=True)
def _fuse(
    entries_QM: I64,
    weights_M: I64,
    sources_M: npt.NDArray[np.uint8],
    positions_M: I64,
    out_rows: I64,
    out_source: npt.NDArray[np.uint8],
    out_position: I64,
) -> I64:
    """Returns how many different items each query has."""
    count = np.zeros(len(entries_QM), np.int64)
    entry_mask = np.int64((1 << ENTRY_BITS) - 1)
    for query in numba.prange(len(entries_QM)):
        keys = _by_row(entries_QM[query])
        real = len(keys)  # an item's entries lie together now, those of smaller source codes first
        best = np.empty(real, np.int64)
        weight = np.zeros(real, np.int64)
        items, last = 0, np.int64(-1)
        for number in range(real):
            row, entry = keys[number] >> ENTRY_BITS, keys[number] & entry_mask
            if row != last:
                best[items] = entry
                items, last = items + 1, row
            elif positions_M[entry] < positions_M[best[items - 1]]:
                best[items - 1] = entry
            weight[items - 1] += weights_M[entry]
        order = np.empty(items, np.int64)
        for item in range(items):  # items are in ascending row: that settles ties
            order[item] = (-weight[item] << ENTRY_BITS) | item
        order.sort()
        for position in range(items):
            entry = best[order[position] & entry_mask]
            out_rows[query, position] = entries_QM[query, entry]
            out_source[query, position] = sources_M[entry]
            out_position[query, position] = positions_M[entry]
        count[query] = items
    return count


def look_up(wanted_QK: I64, rows_QM: I64, values_QM: npt.NDArray[Number], *, missing: float) -> npt.NDArray[Number]:
    """[Q, K] the value of each wanted item, from its query's list of known ones, in any order.

    Args:
        wanted_QK, rows_QM: corpus rows, -1 padding. values_QM: of rows_QM.
        missing: value of padding and of an item that is not known.
    """
    values_QK = np.full(wanted_QK.shape, missing, values_QM.dtype)
    _look_up(wanted_QK, rows_QM, values_QM, values_QK)
    return values_QK


@compiled(parallel=True)
def _look_up(wanted_QK: I64, rows_QM: I64, values_QM: npt.NDArray[Number], out_QK: npt.NDArray[Number]) -> None:
    entry_mask = np.int64((1 << ENTRY_BITS) - 1)
    for query in numba.prange(len(wanted_QK)):
        keys = _by_row(rows_QM[query])
        for column in range(wanted_QK.shape[1]):
            row = wanted_QK[query, column]
            at = np.searchsorted(keys, row << ENTRY_BITS)
            if row >= 0 and at < len(keys) and keys[at] >> ENTRY_BITS == row:
                out_QK[query, column] = values_QM[query, keys[at] & entry_mask]
