"""What the first results look like taken together: how many items are ever shown, whether best sellers take the places,
and how alike the results of one query are.

A model can raise recall and still show everybody the same hundred items. None of these figures has a right value; they
are read against those of the baseline on the same queries.

Shape suffixes: Q queries, K first hits (10), N items, S items that are shown, L labels, M vectors, D dimensions. The N - S items
that no query shows are counted, never listed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_BLOCK_QUERIES = 256


def exposure(hits_QK: I64) -> I64:
    """[S] how many of the lists each item is in that is in any, by row; -1 in `hits_QK` is padding."""
    return np.unique(hits_QK[hits_QK >= 0], return_counts=True)[1]


def coverage(exposure_S: I64, num_items: int) -> float:
    """Catalogue coverage: items that are shown at all / all items (Herlocker et al. 2004, Ge et al. 2010).

    At most Q · K / N: with few queries it is small whatever the model.
    """
    return float(np.count_nonzero(exposure_S) / max(num_items, 1))


def gini(exposure_S: I64, num_items: int) -> float:
    """Gini coefficient of the exposure over all items (Gini 1912; for recommendations Fleder & Hosanagar 2009).

    Returns:
        0 if all items are shown equally often, near 1 if a few have all places; 0 if nothing is shown.
    """
    total, count = int(exposure_S.sum()), num_items
    place = np.arange(count - len(exposure_S) + 1, count + 1)  # behind the items that are never shown
    weighted = float(place @ np.sort(exposure_S).astype(np.float64))
    return 2 * weighted / (count * total) - (count + 1) / count if total else 0.0


def top_share(exposure_S: I64, num_items: int, share: float = 0.01) -> float:
    """Share of all places that the most shown `share` of the items have (their number rounded up).

    Returns:
        `share` if all items are shown equally often, 1 if those few have all places; 0 if nothing is shown.
    """
    most = int(np.ceil(share * num_items))
    shown = np.sort(exposure_S)[max(0, len(exposure_S) - most) :].sum()
    return float(shown / max(int(exposure_S.sum()), 1))


def percentiles(values_M: F64, others: F64, zeros: int = 0) -> F64:
    """[M] each value's share of items below it, plus half of those equal to it: 0 … 1; NaN counts as smallest.

    Args:
        others: the values of all items, in any order; sorted here, in place.
        zeros: items of the value 0 that are not among `others`.
    """
    for values in (values_M, others):
        values[np.isnan(values)] = -np.inf
    others.sort()
    below, upto = np.searchsorted(others, values_M, side="left"), np.searchsorted(others, values_M, side="right")
    below, upto = below + zeros * (values_M > 0), upto + zeros * (values_M >= 0)
    return np.asarray((below + upto) / (2 * max(len(others) + zeros, 1)), np.float64)


def popularity(hits_QK: I64, percentile_N: F64) -> float:
    """Average recommendation popularity: mean over queries of the mean percentile of their hits (Abdollahpouri et al. 2019,
    with percentiles in place of counts, so that a long tail does not drown the rest).

    Args:
        hits_QK: int64; -1 is padding. A query without hits is left out.
        percentile_N: of `percentiles`.

    Returns:
        0.5 if hits are as popular as any item; NaN without a hit.
    """
    query, place = np.nonzero(hits_QK >= 0)
    return mean_by_owner(query, percentile_N[hits_QK[query, place]])


def mean_by_owner(owner_L: I64, values_L: F64) -> float:
    """Mean over owners of the mean of their values; NaN without a value."""
    if not len(owner_L):
        return float("nan")
    counts = np.bincount(owner_L)
    sums = np.bincount(owner_L, values_L)
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def intra_list_similarity(places_QK: I64, vectors_MD: F32) -> F64:
    """Mean cosine between any two results of a query (Ziegler et al. 2005).

    Without a pair in memory: of n unit vectors the mean is (|their sum|² − n) / (n (n − 1)).

    Args:
        places_QK: int64, a hit's place in `vectors_MD`; -1 is padding.
        vectors_MD: not all zero, of any length.

    Returns:
        float64 [Q] in -1 … 1: 1 if all results are alike; NaN for a query with fewer than 2 hits.
    """
    result_Q = np.full(len(places_QK), np.nan)
    for start in range(0, len(places_QK), _BLOCK_QUERIES):
        places = places_QK[start : start + _BLOCK_QUERIES]
        real = places >= 0
        found = vectors_MD[np.where(real, places, 0)].astype(np.float64)
        found *= (real / np.linalg.norm(found, axis=2))[:, :, None]
        count = real.sum(axis=1)
        pairs = count * (count - 1)
        excess = (found.sum(axis=1) ** 2).sum(axis=1) - count
        result_Q[start : start + _BLOCK_QUERIES][pairs > 0] = excess[pairs > 0] / pairs[pairs > 0]
    return result_Q
