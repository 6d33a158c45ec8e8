"""Known relevance: which items may not be a negative of which query, and why.

Q queries of a block, C candidate columns, K candidates per query. Rows are positions in the corpus and query tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ArtifactError
from cluster.tables.tables import I64, offsets_of

Bool = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]
Codes = I32 | I64
Array = TypeVar("Array", bound=npt.NDArray[Any])

SCANNED = 2**20
"""Items that are looked at together."""
CODE_RANGES = 64
"""Ranges of codes, told apart by their last bits, that are numbered one after another: only one of them is sorted at a time."""
LAST_BITS = 2**16 - 1
NO_NEGATIVE = -1
"""Score of a label that is no judgement: the item has the query's own text, or is relevant to a query of the same text in
another split. It is no negative of the query, and does not count as relevant to it."""


def gather_csr(offsets: Codes, rows: I64) -> tuple[I64, I64]:
    """Where the lists of `rows` lie in a flat array.

    Returns:
        (owner i64 [L]: position in `rows` of each element, index i64 [L]: its place in the flat array).
    """
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    first = offsets_of(lengths)[:-1]
    index = np.arange(len(owner), dtype=np.int64) - first[owner] + starts[owner]
    return owner, index


@dataclass(frozen=True)
class Labels:
    """Judgements of every query, and which items count as the same thing.

    Two items are the same thing if they share a group (a franchise, a source package) or their normalised text.
    """

    num_queries: int
    num_items: int
    offsets: I64
    """[Q+1] into item_rows and scores, by query row."""
    item_rows: I64
    scores: npt.NDArray[np.integer[Any]]
    """1 relevant, 0 judged irrelevant, NO_NEGATIVE neither."""
    group_codes: Codes
    """[N] number of each item's group; -1: none. Only equality counts."""
    text_codes: Codes
    """[N] number of each item's normalised text."""
    self_rows: I64 | None = None
    """[Q] the item that a query is; -1: it is none. None: no query is an item."""

    @classmethod
    def from_tables(cls, labels: pa.Table, items: pa.Table, num_queries: int, self_rows: I64 | None = None) -> Labels:
        """Build from the run's `labels` (sorted) and `corpus` (row, group_code, text_code) tables."""
        query_rows = labels["query_row"].to_numpy()
        counts = np.bincount(query_rows, minlength=num_queries)
        return cls(
            num_queries=num_queries,
            num_items=items.num_rows,
            offsets=offsets_of(counts),
            item_rows=labels["item_row"].to_numpy().astype(np.int64),
            scores=np.sign(labels["score"].to_numpy()).astype(np.int8),  # a grade may be a fraction
            group_codes=short_codes(items["group_code"].to_numpy()),
            text_codes=short_codes(items["text_code"].to_numpy()),
            self_rows=self_rows,
        )

    @cached_property
    def groups(self) -> tuple[I64, I64, I64]:
        """The groups that `no_negatives` of any query belong to: (their codes [G], ascending; offsets [G+1] into members;
        members: the items of each group, ascending)."""
        wanted = self.item_rows[self.scores != 0] if len(self.group_codes) else np.zeros(0, np.int64)
        codes = np.unique(self.group_codes[wanted]).astype(np.int64)
        codes = codes[codes >= 0]
        number, members = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, self.num_items if len(codes) else 0, SCANNED):
            some = self.group_codes[start : start + SCANNED]
            place = np.minimum(np.searchsorted(codes, some), len(codes) - 1)
            mine = np.flatnonzero(codes[place] == some)
            number.append(place[mine])
            members.append(mine + start)
        numbers = np.concatenate(number)
        order = np.argsort(numbers, kind="stable")
        return codes, offsets_of(np.bincount(numbers, minlength=len(codes))), np.concatenate(members)[order]

    def positives(self, query_rows: I64) -> tuple[I64, I64]:
        """Relevant items of each query as (offsets [Q+1], item rows), in ascending item row."""
        return self._labelled(query_rows, np.greater)

    def no_negatives(self, query_rows: I64) -> tuple[I64, I64]:
        """Items that may not be a negative of each query, as (offsets [Q+1], item rows): relevant ones, and NO_NEGATIVE."""
        return self._labelled(query_rows, np.not_equal)

    def judged_irrelevant(self, query_rows: I64) -> tuple[I64, I64]:
        """Items judged irrelevant (score 0) of each query as (offsets [Q+1], item rows)."""
        return self._labelled(query_rows, np.equal)

    def _labelled(self, query_rows: I64, than_zero: Callable[[npt.NDArray[np.integer[Any]], int], Bool]) -> tuple[I64, I64]:
        """Items whose score is greater than, equal to or other than 0."""
        owner, index = gather_csr(self.offsets, query_rows)
        kept = than_zero(self.scores[index], 0)
        return offsets_of(np.bincount(owner[kept], minlength=len(query_rows))), self.item_rows[index[kept]]

    def positive_mask(self, query_rows: I64, items_QK: I64) -> Bool:
        """True where a candidate is one of `no_negatives`, or shares a group with an item that is."""
        offsets, rows = self.no_negatives(query_rows)
        owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
        mask = contains(owner, rows, items_QK)
        groups = self.group_codes[rows]
        known = groups >= 0
        if known.any():
            mask |= contains_code(owner[known], groups[known], self.group_codes, items_QK)
        return mask

    def duplicate_mask(self, query_rows: I64, items_QK: I64) -> Bool:
        """True where a candidate has the same normalised text as one of its query's `no_negatives`."""
        offsets, rows = self.no_negatives(query_rows)
        owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
        return contains_code(owner, self.text_codes[rows], self.text_codes, items_QK)

    def copy_mask(self, query_rows: I64, items_QK: I64) -> Bool:
        """True where an item without a label has the same normalised text as a relevant item of the query."""
        offsets, rows = self.positives(query_rows)
        owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
        judged, index = gather_csr(self.offsets, query_rows)
        real = self.scores[index] != NO_NEGATIVE
        labelled = contains(judged[real], self.item_rows[index[real]], items_QK)
        return contains_code(owner, self.text_codes[rows], self.text_codes, items_QK) & ~labelled

    def known_mask(self, query_rows: I64, items: I64) -> Bool:
        """[Q, C]: True where column item c must not be a negative of query q: of `no_negatives`, a group mate, or a duplicate.

        Args:
            items: [C] of all queries, or [Q, C] of each.
        """
        items_QC = np.broadcast_to(items, (len(query_rows), items.shape[-1]))
        known = self.positive_mask(query_rows, items_QC) | self.duplicate_mask(query_rows, items_QC)
        known &= ~self.judged_mask(query_rows, items_QC)
        if self.self_rows is not None:  # a query that is an item is never trained away from itself
            known |= items_QC == self.self_rows[query_rows][:, None]
        return known

    def known_pairs(self, query_rows: I64, columns_C: I64) -> tuple[I64, I64]:
        """Where `known_mask` of columns that are the same for all queries is True, as (query's position, column), by position.

        Takes time by what the queries know, and not by queries times columns.
        """
        width = np.int64(len(columns_C))
        offsets, rows = self.no_negatives(query_rows)
        owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
        keys = [_matches(owner, rows, columns_C), _matches(owner, self.text_codes[rows], self.text_codes[columns_C])]
        groups = self.group_codes[rows]
        if (groups >= 0).any():
            keys.append(_matches(owner, groups, self.group_codes[columns_C]))
        offsets, rows = self.judged_irrelevant(query_rows)
        judged = _matches(np.repeat(np.arange(len(query_rows)), np.diff(offsets)), rows, columns_C)
        known = np.setdiff1d(np.concatenate(keys), judged)
        if self.self_rows is not None:
            known = np.union1d(known, _matches(np.arange(len(query_rows)), self.self_rows[query_rows], columns_C))
        return known // width, known % width

    def judged_mask(self, query_rows: I64, items_QK: I64) -> Bool:
        """True where a person judged the candidate irrelevant: that outweighs any group or likeness."""
        offsets, rows = self.judged_irrelevant(query_rows)
        return contains(np.repeat(np.arange(len(query_rows)), np.diff(offsets)), rows, items_QK)


def distinct(rows: I64) -> I64:
    """The different rows, ascending; by a flag for each possible row where these are not many more, which sorts nothing."""
    top = int(rows.max(initial=-1)) + 1
    if top > 64 * len(rows) + 2**16:
        return np.unique(rows)
    flags = np.zeros(top, bool)
    flags[rows] = True
    return np.flatnonzero(flags)


def find_sorted(ascending: Codes, values: Codes) -> I64:
    """Position of each value among distinct ones that ascend; -1: it is not there."""
    if not len(ascending):
        return np.full(len(values), -1, np.int64)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[place] == values, place, -1)


def _matches(owner: I64, values: Codes, values_C: Codes) -> I64:
    """owner times C, plus column, for every column that has one of the owner's values; a negative value never matches."""
    wanted = np.unique(values[values >= 0].astype(np.int64))
    flags = np.zeros(LAST_BITS + 1, bool)  # most columns are told apart by their last bits
    flags[wanted & LAST_BITS] = True
    column = np.flatnonzero(flags[values_C & LAST_BITS])
    place = find_sorted(wanted, values_C[column])
    column, place = column[place >= 0], place[place >= 0]
    order = np.argsort(place, kind="stable")
    column, first = column[order], offsets_of(np.bincount(place, minlength=len(wanted)))
    real = np.flatnonzero(values >= 0)
    which, index = gather_csr(first, find_sorted(wanted, values[real]))
    keys: I64 = owner[real][which] * np.int64(len(values_C)) + column[index]
    return keys


def short_codes(codes_N: Codes) -> I32:
    """Codes of 64 bits as numbers of 32: equal ones stay equal, others different, a negative one becomes -1.

    Memory: 5 bytes per item beside what is given, and what returns.
    """
    codes_N = codes_N.astype(np.int64, copy=False)
    result = np.full(len(codes_N), -1, np.int32)
    several = 0
    ranges = CODE_RANGES if len(codes_N) > SCANNED else 1
    ranges_N = (codes_N & (ranges - 1)).astype(np.uint8)
    for number in range(ranges):
        rows = np.flatnonzero(ranges_N == number)
        rows = rows[codes_N[rows] >= 0]
        codes = codes_N[rows]
        values, counts = np.unique(codes, return_counts=True)
        values = values[counts > 1]
        place = np.searchsorted(values, codes)
        shared = place < len(values)
        shared[shared] = values[place[shared]] == codes[shared]
        result[rows[shared]] = several + place[shared]
        result[rows[~shared]] = -2  # an item of its own: it gets a number when it is known how many are shared
        several += len(values)
    if several + len(codes_N) > np.iinfo(np.int32).max:
        raise ArtifactError(f"expected fewer than 1.4 billion items, found {len(codes_N):,}; cut the corpus into several runs")
    alone = result == -2
    result[alone] = several + np.flatnonzero(alone)
    return result


def read_only(array: Array) -> Array:
    """A view that cannot be written to, as what a node's processes share is: a compiled loop then knows one type only."""
    view = array.view()
    view.flags.writeable = False
    return view


def by_owner(owner: I64, values: Codes, owners: int) -> tuple[I64, I64]:
    """(offsets [owners + 1], values grouped by owner, in the order given within each)."""
    if (np.diff(owner) < 0).any():
        order = np.argsort(owner, kind="stable")
        owner, values = owner[order], values[order]
    return np.searchsorted(owner, np.arange(owners + 1)).astype(np.int64), values.astype(np.int64, copy=False)


def contains(owner: I64, values: I64, wanted_QK: I64) -> Bool:
    """[Q, K]: whether wanted_QK[q, k] is among the `values` owned by q; a negative number never is."""
    if not len(values):
        return np.zeros(wanted_QK.shape, bool)
    from cluster.labels.membership import mark_values  # numba takes a while to load, and the command line reads this module

    result = np.empty(wanted_QK.shape, bool)
    mark_values(*by_owner(owner, values, len(wanted_QK)), np.ascontiguousarray(wanted_QK), result)
    return result


def contains_code(owner: I64, values: Codes, codes_N: Codes, items_QK: I64) -> Bool:
    """[Q, K]: whether the code of item items_QK[q, k] is among the `values` owned by q; -1, as item or code, never is."""
    if not len(values):
        return np.zeros(items_QK.shape, bool)
    from cluster.labels.membership import mark_codes

    result = np.empty(items_QK.shape, bool)
    mark_codes(*by_owner(owner, values, len(items_QK)), read_only(codes_N), np.ascontiguousarray(items_QK), result)
    return result
