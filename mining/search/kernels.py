"""The inner loops of searching: exact scores of pairs, order, and the running best of scores that come in tiles.

Q queries, N items, D dimensions, K or W candidates per query, T columns of a tile. Rows are below 2^32.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from cluster.labels.compiled import compiled
from cluster.tables.tables import F32, I64

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
ROW_MASK = np.uint64(0xFFFFFFFF)
PADDING = np.uint64(0xFFFFFFFFFFFFFFFF)
MINUS_INFINITY = np.int32(-0x00800000)
"""The bits of float32's -inf."""
LOWEST_INT = np.int32(-0x80000000)
CHUNK = 64
"""Scores of a tile that are looked at together: most chunks hold nothing good, and their maximum says so."""


@compiled(reorder_sums=True)
def _product(query_D: F32, item_D: F32) -> np.float32:
    """The one way in which a score is summed up, in float64: every kernel must come to the same bits for a pair."""
    total = 0.0
    for dimension in range(len(query_D)):
        total += np.float64(query_D[dimension]) * np.float64(item_D[dimension])
    return np.float32(total)


@compiled(parallel=True)
def score_pairs(queries_QD: F32, items_ND: F32, index_QK: I64, out_QK: F32) -> None:
    """Inner products of each query with its indexed items, summed in float64, into `out_QK`; -inf where the index is -1."""
    for query in numba.prange(index_QK.shape[0]):
        for place in range(index_QK.shape[1]):
            row = index_QK[query, place]
            if row < 0:
                out_QK[query, place] = -np.inf
                continue
            out_QK[query, place] = _product(queries_QD[query], items_ND[row])


@compiled(parallel=True)
def score_list(queries_QD: F32, items_ND: F32, owner_L: I64, rows_L: I64, out_L: F32) -> None:
    """As `score_pairs`, for a flat list of (query, item) pairs; where the row is negative `out_L` keeps what it holds."""
    for pair in numba.prange(len(owner_L)):
        row, query = rows_L[pair], owner_L[pair]
        if row < 0:
            continue
        out_L[pair] = _product(queries_QD[query], items_ND[row])


@compiled(parallel=True)
def score_needed(
    queries_QD: F32, items_ND: F32, proposed_QW: F32, error_Q: F32, num_hits: int, index_QW: I64, out_QW: F32
) -> None:
    """Exact scores of those proposed items that can be among the best `num_hits`; the others become -1 and -inf.

    The worst exact score of the first K proposed bounds the K-th best from below; whatever cannot reach it, by its
    proposed score and its error, is not read.
    """
    for query in numba.prange(index_QW.shape[0]):
        scored, floor = 0, np.float32(np.inf)
        for place in range(index_QW.shape[1]):
            row = index_QW[query, place]
            if row >= 0 and scored >= num_hits and proposed_QW[query, place] + error_Q[query] < floor:
                index_QW[query, place], row = -1, -1
            if row < 0:
                out_QW[query, place] = -np.inf
                continue
            score = _product(queries_QD[query], items_ND[row])
            out_QW[query, place] = score
            if scored < num_hits:
                floor = min(floor, score)
            scored += 1


@compiled(parallel=True)
def drop_listed(index_QK: I64, offsets: I64, rows: I64) -> None:
    """Set index_QK to -1 wherever it is among its query's `rows` (ascending within offsets[q] … offsets[q+1])."""
    for query in numba.prange(index_QK.shape[0]):
        low, high = offsets[query], offsets[query + 1]
        if low == high:
            continue
        known = rows[low:high]
        for place in range(index_QK.shape[1]):
            found = np.searchsorted(known, index_QK[query, place])
            if found < len(known) and known[found] == index_QK[query, place]:
                index_QK[query, place] = -1


@compiled()
def _key(bits: np.int32, row: np.int64, of_float: bool) -> np.uint64:
    """(score, row) as one number: the smaller, the better the score, then the smaller the row.

    Args:
        bits: the score: an int32, or the bits of a float32.
    """
    value = np.int64(bits)
    if of_float and value < 0:
        value = np.int64(-0x80000000) - value  # negative floats: larger bits are smaller values; -0.0 equals 0.0
    return (np.uint64(np.int64(0x7FFFFFFF) - value) << np.uint64(32)) | np.uint64(row)


@compiled()
def _bits(key: np.uint64, of_float: bool) -> np.int32:
    """The score of a key, as `_key` took it."""
    value = np.int64(0x7FFFFFFF) - np.int64(key >> np.uint64(32))
    if of_float and value < 0:
        value = np.int64(-0x80000000) - value
    return np.int32(value)


@compiled(parallel=True)
def _sort(bits_QK: I32, rows_QK: I64, out_bits: I32, out_rows: I64) -> None:
    width, keep = bits_QK.shape[1], out_bits.shape[1]
    for query in numba.prange(bits_QK.shape[0]):
        keys = np.empty(width, np.uint64)
        for place in range(width):
            row = rows_QK[query, place]
            keys[place] = _key(bits_QK[query, place], row, True) if row >= 0 else PADDING
        keys.sort()
        for place in range(keep):
            padding = keys[place] == PADDING
            out_bits[query, place] = MINUS_INFINITY if padding else _bits(keys[place], True)
            out_rows[query, place] = -1 if padding else np.int64(keys[place] & ROW_MASK)


def sort_hits(scores_QK: F32, rows_QK: I64, num_hits: int) -> tuple[F32, I64]:
    """The best `num_hits` per query, best first, equal scores by smaller row; padding (-1, -inf) last."""
    keep = min(num_hits, scores_QK.shape[1])
    scores, rows = np.empty((len(scores_QK), keep), np.float32), np.empty((len(scores_QK), keep), np.int64)
    _sort(np.ascontiguousarray(scores_QK).view(np.int32), np.ascontiguousarray(rows_QK), scores.view(np.int32), rows)
    return scores, rows


@compiled()
def _smallest_first(keys: U64, count: int, last: int) -> None:
    """Reorder keys[:count] so that the smallest last + 1 come first, the largest of them at `last` (Hoare's quickselect).

    In place: numba's np.partition copies, and takes three times as long.
    """
    low, high = 0, count - 1
    while low < high:
        first, middle, final = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), final))
        left, right = low, high
        while left <= right:
            while keys[left] < pivot:
                left += 1
            while keys[right] > pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if last <= right:
            high = right
        elif last >= left:
            low = left
        else:
            return


@compiled(parallel=True)
def _offer(
    tile_QT: npt.NDArray[np.generic],
    bits_QT: I32,
    of_float: bool,
    owners_Q: I64,
    rows_T: I64,
    keys: U64,
    counts: I64,
    limits: npt.NDArray[np.generic],
    keep: int,
) -> None:
    width, room = tile_QT.shape[1], keys.shape[1]
    for line in numba.prange(tile_QT.shape[0]):
        worst = np.empty(1, np.int32)
        owner = owners_Q[line]
        limit, count = limits[owner], counts[owner]
        for start in range(0, width, CHUNK):
            stop = min(start + CHUNK, width)
            above = False
            for column in range(start, stop):
                above |= tile_QT[line, column] > limit
            if not above:
                continue
            for column in range(start, stop):
                if tile_QT[line, column] > limit:
                    keys[owner, count] = _key(bits_QT[line, column], rows_T[column], of_float)
                    count += 1
            if count + CHUNK > room:
                _smallest_first(keys[owner], count, keep - 1)
                count = keep
                worst[0] = _bits(keys[owner, keep - 1], of_float)
                limit = worst.view(limits.dtype)[0]
        limits[owner], counts[owner] = limit, count


class RunningTop:
    """The best `keep` items of each query, of scores that come tile by tile. Ties at the edge fall either way.

    Memory: Q × 2 (keep + 64) × 8 bytes.
    """

    def __init__(self, num_queries: int, keep: int, dtype: type[np.int32] | type[np.float32]) -> None:
        self._keep, self._dtype = keep, dtype
        self._keys = np.empty((num_queries, 2 * (keep + CHUNK)), np.uint64)
        self._counts = np.zeros(num_queries, np.int64)
        lowest = np.iinfo(np.int32).min if dtype is np.int32 else -np.inf
        self._limits = np.full(num_queries, lowest, dtype)

    def offer(self, tile_QT: npt.NDArray[np.generic], owners_Q: I64, rows_T: I64) -> None:
        """Scores [Q, T] of the queries `owners_Q` (each once) with the items `rows_T`; the dtype's lowest value is no score."""
        _offer(
            tile_QT,
            tile_QT.view(np.int32),
            self._dtype is np.float32,
            owners_Q,
            rows_T,
            self._keys,
            self._counts,
            self._limits,
            self._keep,
        )

    def best(self) -> tuple[npt.NDArray[np.generic], I64]:
        """(scores [Q, keep] best first, of the dtype offered; rows [Q, keep], -1 where fewer were offered)."""
        bits = np.empty((len(self._keys), self._keep), np.int32)
        rows = np.empty(bits.shape, np.int64)
        _finish(self._keys, self._counts, self._dtype is np.float32, bits, rows)
        return bits.view(self._dtype), rows


@compiled(parallel=True)
def _finish(keys: U64, counts: I64, of_float: bool, out_bits: I32, out_rows: I64) -> None:
    for query in numba.prange(len(keys)):
        known = np.sort(keys[query, : counts[query]])
        for place in range(out_bits.shape[1]):
            real = place < counts[query]
            out_bits[query, place] = _bits(known[place], of_float) if real else LOWEST_INT
            out_rows[query, place] = np.int64(known[place] & ROW_MASK) if real else -1
