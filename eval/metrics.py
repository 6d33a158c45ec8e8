"""Retrieval metrics of ranked hits against graded judgements, one value per query.

    judgements = Judgements.from_triples(query_rows, item_rows, gains)
    figures = summarise(per_query_metrics(hits_QK, query_rows_Q, judgements))

Shape suffixes: Q queries evaluated, K hits kept per query, L labels of those queries, F labels found among the hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

DEFAULT_KS = (1, 3, 5, 10, 100)
NDCG_CUT, MRR_CUT, MAP_CUT = 10, 10, 100

LOWER_IS_BETTER = frozenset({"bad_top1"})
_NAMES = {"bad_top1": "bad top-1", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall", "hit": "Hit"}

_BLOCK_CELLS = 1 << 22  # labels x hits compared at once: 32 MiB of int64


@dataclass(frozen=True, eq=False)
class Judgements:
    """Known relevance of items to queries, as CSR over queries; queries and items are dense row numbers.

    Args:
        query_rows: int64 [Q], ascending and unique.
        offsets: int64 [Q + 1]; the labels of `query_rows[n]` lie at `offsets[n]:offsets[n + 1]`.
        item_rows: int64 [L], ascending and unique within a query.
        gains: float64 [L], finite and >= 0: the grade, which only NDCG reads.
        relevant: bool [L]; false is judged irrelevant. A relevant item has a gain above 0.

    Raises:
        ValueError: the arrays break one of these rules.
    """

    query_rows: I64
    offsets: I64
    item_rows: I64
    gains: F64
    relevant: Bool

    def __post_init__(self) -> None:
        size, total = len(self.query_rows), len(self.item_rows)
        ends_fit = [*self.offsets[:1], *self.offsets[-1:]] == [0, total] and len(self.offsets) == size + 1
        if not ends_fit or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets must be {size + 1} ascending numbers, 0 to {total}, found {self.offsets}")
        if (np.diff(self.query_rows) <= 0).any() or (self.query_rows < 0).any():
            raise ValueError("query_rows must be >= 0, ascending and unique; build them with Judgements.from_triples")
        if len(self.gains) != total or not (np.isfinite(self.gains) & (self.gains >= 0)).all():
            raise ValueError(f"gains must be finite and >= 0, one for each of {total} item rows, found {self.gains}")
        if self.relevant.dtype != np.bool_ or len(self.relevant) != total or (self.relevant & (self.gains <= 0)).any():
            raise ValueError(f"relevant must be bool, one for each of {total} item rows, and true only where the gain is above 0")
        same_query = np.diff(np.repeat(np.arange(size), np.diff(self.offsets))) == 0
        if (self.item_rows < 0).any() or (same_query & (np.diff(self.item_rows) <= 0)).any():
            raise ValueError("item_rows must be >= 0, ascending and unique within a query")

    @classmethod
    def from_triples(cls, query_rows: Array, item_rows: Array, gains: Array, relevant: Array | None = None) -> Judgements:
        """Build from (query, item, gain) triples in any order; a repeated pair keeps its largest gain.

        Args:
            query_rows: integers [L], >= 0.
            item_rows: integers [L], >= 0.
            gains: numbers [L], finite and >= 0.
            relevant: bool [L], true only where the gain is above 0; None: true wherever it is.

        Returns:
            The same judgements for every order of the triples.

        Raises:
            ValueError: lengths differ, rows are not integers >= 0, a gain is negative or not finite, or relevant without a gain.
        """
        queries = _integers(query_rows, "query_rows", ndim=1)
        items = _integers(item_rows, "item_rows", ndim=1)
        gains = np.asarray(gains, dtype=np.float64)
        relevant = gains > 0 if relevant is None else np.asarray(relevant)
        if not queries.shape == items.shape == gains.shape == relevant.shape:
            shapes = ", ".join(str(array.shape) for array in (queries, items, gains, relevant))
            raise ValueError(f"triples need one length, found shapes {shapes}")
        # Before repeats are dropped: a NaN must not hide behind a good gain of the same pair.
        if (wrong := (queries < 0) | (items < 0) | ~np.isfinite(gains) | (gains < 0)).any():
            n = int(wrong.argmax())
            triple = f"query row {queries[n]}, item row {items[n]}, gain {gains[n]} in triple {n}"
            raise ValueError(f"rows must be >= 0 and gains finite and >= 0, found {triple}")
        order = np.lexsort((-gains, items, queries))
        queries, items, gains = queries[order], items[order], gains[order]
        keep = (np.diff(queries, prepend=-1) != 0) | (np.diff(items, prepend=-1) != 0)
        unique_queries, starts = np.unique(queries[keep], return_index=True)
        offsets = np.append(starts, np.count_nonzero(keep)).astype(np.int64)
        return cls(unique_queries, offsets, items[keep], gains[keep], relevant[order][keep])


@dataclass(frozen=True)
class _Labels:
    """Labels of the evaluated queries, in their order: `query` is a place in 0..Q-1, not a query row."""

    query: I64
    # The item row; for labels found among the hits their position, 0 is the first hit, ascending within a query.
    place: I64
    gain: F64
    relevant: Bool

    def __getitem__(self, chosen: I64 | Bool | slice) -> _Labels:
        return _Labels(self.query[chosen], self.place[chosen], self.gain[chosen], self.relevant[chosen])


def per_query_metrics(
    hits_QK: I64,
    query_rows_Q: I64,
    judgements: Judgements,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    compatible_top1_Q: Bool | None = None,
) -> dict[str, F64]:
    """Score each query's ranked hits; relevant means what the judgements say, which trec_eval's `-l` decides.

    - `recall@k`: relevant hits in the first k / all relevant items, not min(k, relevant) (trec_eval `recall`).
    - `hit@k`: 1 if the first k hold a relevant item (trec_eval `success`).
    - `ndcg@10`: gain = grade, also of an item that is graded and not relevant, discount log2(position + 1) from position 1,
      over the best order of all graded items (Järvelin & Kekäläinen 2002, trec_eval `ndcg_cut`: linear, not 2^score - 1).
    - `mrr@10`: 1 / position of the first relevant hit within 10, else 0 (trec_eval `recip_rank`, cut as in MS MARCO).
    - `map@100`: sum of the precision at each relevant hit within 100 / all relevant items (trec_eval `map_cut`).
    - `bad_top1`, lower is better: 1 if the first hit is missing, judged irrelevant, or neither relevant nor compatible.

    A metric cut above K is left out. Deterministic; needs 40 MiB, 3 bytes per hit, some arrays as long as the labels.

    Args:
        hits_QK: int64 item rows, best first; -1 is padding and stands only after the hits.
        query_rows_Q: int64 query rows of the hits, any order.
        judgements: labels; queries of theirs that are not in `query_rows_Q` are ignored.
        ks: cuts of recall and hit, each >= 1.
        compatible_top1_Q: bool, whether the first hit is acceptable without a label (shares an attribute value with a
            positive, say). None: no unlabelled hit is.

    Returns:
        float64 [Q] in 0..1 for each metric; NaN in all of them for a query without a relevant item.

    Raises:
        ValueError: shapes or dtypes do not fit, padding stands before a hit, a judged item is twice among a query's
            hits, or a k is below 1. Unjudged items are not checked for repeats.
    """
    hits_QK, query_rows_Q = _checked_hits(hits_QK, query_rows_Q, ks)
    num_queries, num_hits = hits_QK.shape
    labels = _labels_of(query_rows_Q, judgements)
    found = _find(hits_QK[:, : max(*ks, MAP_CUT)], labels, query_rows_Q)
    bad_Q = _bad_top1(hits_QK, found, compatible_top1_Q)

    graded, graded_hits = labels[labels.gain > 0], found[found.gain > 0]
    labels, found = labels[labels.relevant], found[found.relevant]
    num_relevant_Q = np.bincount(labels.query, minlength=num_queries)
    result: dict[str, F64] = {}
    for k in ks:
        if k <= num_hits:
            in_top_Q = np.bincount(found.query[found.place < k], minlength=num_queries)
            result[f"recall@{k}"] = in_top_Q / np.maximum(num_relevant_Q, 1)
            result[f"hit@{k}"] = (in_top_Q > 0).astype(np.float64)
    if num_hits >= NDCG_CUT:
        result[f"ndcg@{NDCG_CUT}"] = _ndcg(graded_hits, graded, num_queries)
    if num_hits >= MRR_CUT:
        result[f"mrr@{MRR_CUT}"] = _reciprocal_position(found, num_queries)
    if num_hits >= MAP_CUT:
        result[f"map@{MAP_CUT}"] = _average_precision(found, num_relevant_Q)
    result["bad_top1"] = bad_Q
    for values_Q in result.values():
        values_Q[num_relevant_Q == 0] = np.nan
    return result


def summarise(per_query: Mapping[str, F64]) -> dict[str, float]:
    """Mean of each metric over the queries that have one.

    Args:
        per_query: float64 [Q] for each metric; NaN is left out.

    Returns:
        Plain floats; NaN for a metric without a value.
    """
    present = {name: values_Q[~np.isnan(values_Q)] for name, values_Q in per_query.items()}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in present.items()}


def metric_name(metric: str) -> str:
    """A metric as a person reads it: ndcg@10 is NDCG@10."""
    base, at, depth = metric.partition("@")
    return _NAMES.get(base, base) + at + depth


def _integers(values: Array, name: str, *, ndim: int) -> I64:
    array = np.asarray(values)
    if array.ndim != ndim or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} must be integers in {ndim} dimension(s), found {array.dtype} of shape {array.shape}")
    return array.astype(np.int64, copy=False)


def _checked_hits(hits_QK: I64, query_rows_Q: I64, ks: Sequence[int]) -> tuple[I64, I64]:
    hits_QK = _integers(hits_QK, "hits_QK", ndim=2)
    query_rows_Q = _integers(query_rows_Q, "query_rows_Q", ndim=1)
    if len(hits_QK) != len(query_rows_Q):
        raise ValueError(f"hits_QK must have one row per query: {len(query_rows_Q)} queries, found {len(hits_QK)} rows")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be one or more cuts >= 1, found {tuple(ks)}")
    if (low := hits_QK.min(initial=0)) < -1:
        raise ValueError(f"hits_QK must hold item rows >= 0 or the padding -1, found {low}")
    if (late_Q := ((hits_QK[:, :-1] < 0) & (hits_QK[:, 1:] >= 0)).any(axis=1)).any():
        raise ValueError(f"padding (-1) must stand after the hits; found a hit behind it in row {int(late_Q.argmax())}")
    return hits_QK, query_rows_Q


def _labels_of(query_rows_Q: I64, judgements: Judgements) -> _Labels:
    row_Q = np.searchsorted(judgements.query_rows, query_rows_Q)
    known_Q = np.append(judgements.query_rows, -1)[row_Q] == query_rows_Q
    count_Q = np.where(known_Q, np.append(np.diff(judgements.offsets), 0)[row_Q], 0)
    query_L = np.repeat(np.arange(len(query_rows_Q)), count_Q)
    label_L = judgements.offsets[row_Q][query_L] + _place_in_group(query_L, count_Q)
    return _Labels(query_L, judgements.item_rows[label_L], judgements.gains[label_L], judgements.relevant[label_L])


def _find(hits_QK: I64, labels: _Labels, query_rows_Q: I64) -> _Labels:
    # Labels are few per query, so looking for each label among the hits beats looking up each hit among the labels.
    step = max(_BLOCK_CELLS // max(hits_QK.shape[1], 1), 1)
    label_parts, position_parts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(labels.query), step):
        block = labels[start : start + step]
        label, position = np.nonzero(hits_QK[block.query] == block.place[:, None])
        label_parts.append(label + start)
        position_parts.append(position)
    label_F, position_F = np.concatenate(label_parts), np.concatenate(position_parts)
    repeated = label_F[1:][np.diff(label_F) == 0]
    if len(repeated):
        item, query_row = labels.place[repeated[0]], query_rows_Q[labels.query[repeated[0]]]
        raise ValueError(f"an item may be a query's hit once, found item row {item} twice for query row {query_row}")
    order = np.lexsort((position_F, labels.query[label_F]))
    return replace(labels[label_F[order]], place=position_F[order])


def _bad_top1(hits_QK: I64, found: _Labels, compatible_top1_Q: Bool | None) -> F64:
    num_queries = len(hits_QK)
    good_Q = np.zeros(num_queries, dtype=np.bool_) if compatible_top1_Q is None else np.array(compatible_top1_Q)
    if good_Q.shape != (num_queries,) or good_Q.dtype != np.bool_:
        raise ValueError(f"compatible_top1_Q must be bool [{num_queries}], found {good_Q.dtype} {list(good_Q.shape)}")
    first = found[found.place == 0]
    good_Q[first.query] = first.relevant
    has_hit_Q = (hits_QK[:, :1] >= 0).any(axis=1)
    return (~(good_Q & has_hit_Q)).astype(np.float64)


def _place_in_group(group: I64, count_Q: I64) -> I64:
    """0, 1, 2 … within each run of equal `group`, which is ascending and has `count_Q[group]` members each."""
    return np.arange(len(group)) - (np.cumsum(count_Q) - count_Q)[group]


def _ndcg(found: _Labels, labels: _Labels, num_queries: int) -> F64:
    best = labels[np.lexsort((-labels.gain, labels.query))]
    position_L = _place_in_group(best.query, np.bincount(best.query, minlength=num_queries))
    ideal_Q = _dcg(replace(best, place=position_L), num_queries)
    # Rounding may lift a near-ideal order a hair above 1.
    return np.minimum(_dcg(found, num_queries) / np.where(ideal_Q > 0, ideal_Q, 1), 1)


def _dcg(found: _Labels, num_queries: int) -> F64:
    top = found[found.place < NDCG_CUT]
    return np.bincount(top.query, top.gain / np.log2(top.place + 2), num_queries).astype(np.float64)


def _reciprocal_position(found: _Labels, num_queries: int) -> F64:
    values_Q = np.zeros(num_queries)
    # Backwards, as the last assignment to a query stays: that of its first relevant hit.
    top = found[found.place < MRR_CUT][::-1]
    values_Q[top.query] = 1 / (top.place + 1)
    return values_Q


def _average_precision(found: _Labels, num_relevant_Q: I64) -> F64:
    top, num_queries = found[found.place < MAP_CUT], len(num_relevant_Q)
    before_F = _place_in_group(top.query, np.bincount(top.query, minlength=num_queries))
    return np.bincount(top.query, (before_F + 1) / (top.place + 1), num_queries) / np.maximum(num_relevant_Q, 1)
