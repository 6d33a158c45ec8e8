"""A teacher's scores: which pairs it reads, and how they join a block's candidates.

Q queries of a block, K candidates per query. Tables, one row per query:

    pairs     query_row i64, also_rows list<i64>
    scored    query_row i64, item_rows list<i64>, teacher_scores list<float>     (a cross-encoder read them)
              query_row i64, also_rows list<i64>, also_scores list<float>        (cosines of an embedding model)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.labels import Labels
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, csr_to_lists, lists_to_csr, offsets_of
from mining.candidates import Candidates, read_span
from mining.settings import MiningSettings

Bool = npt.NDArray[np.bool_]

MOST_POSITIVES = 8
"""Relevant items of a query that the teacher reads, those of the smallest rows: labels that are made from logs give a
query hundreds, and the lowest, mean or highest of eight says what a margin is to be taken from."""


SCORED, COSINES = ("item_rows", "teacher_scores"), ("also_rows", "also_scores")
"""Columns of scored pairs: of an embedding model's, which a search scores, the second."""


@dataclass(frozen=True)
class Pairs:
    """(query, item) pairs of some queries, ordered by query row, then item row, each once."""

    query_rows: I64
    """[P]"""
    item_rows: I64
    """[P]"""
    scores: F32
    """[P] NaN: not scored."""

    @classmethod
    def ordered(cls, query_rows: I64, item_rows: I64, scores: F32 | None = None) -> Pairs:
        """From pairs in any order; of equal pairs the first one's score stays."""
        order = np.lexsort((item_rows, query_rows))
        query_rows, item_rows = query_rows[order].astype(np.int64), item_rows[order].astype(np.int64)
        fresh = np.ones(len(order), bool)
        fresh[1:] = (query_rows[1:] != query_rows[:-1]) | (item_rows[1:] != item_rows[:-1])
        known = np.full(len(order), np.nan, np.float32) if scores is None else scores[order].astype(np.float32)
        return cls(query_rows[fresh], item_rows[fresh], known[fresh])

    @classmethod
    def from_table(cls, table: pa.Table) -> Pairs:
        """From a table of pairs or of scored pairs."""
        rows = "item_rows" if "item_rows" in table.column_names else "also_rows"
        offsets, items = lists_to_csr(table[rows])
        owner = np.repeat(table["query_row"].to_numpy(), np.diff(offsets))
        name = next((name for name in ("teacher_scores", "also_scores") if name in table.column_names), None)
        scores = None if name is None else lists_to_csr(table[name])[1].astype(np.float32)
        return cls.ordered(owner, items, scores)

    def __len__(self) -> int:
        return len(self.query_rows)

    def find(self, query_rows: I64, item_rows: I64) -> I64:
        """Place of each asked pair (any shape), -1 where it is not here; an item row of -1 never is."""
        width = np.int64(max(self.item_rows.max(initial=0), item_rows.max(initial=0)) + 1)
        keys = self.query_rows * width + self.item_rows
        asked = query_rows * width + item_rows
        place = np.minimum(np.searchsorted(keys, asked), max(0, len(keys) - 1))
        found = (keys[place] == asked) & (item_rows >= 0) if len(keys) else np.zeros(asked.shape, bool)
        result: I64 = np.where(found, place, -1)
        return result

    def without(self, other: Pairs) -> Pairs:
        """The pairs that `other` does not have."""
        new = other.find(self.query_rows, self.item_rows) < 0
        return Pairs(self.query_rows[new], self.item_rows[new], self.scores[new])

    def of(self, query_rows: I64) -> Pairs:
        """The pairs of some queries (ascending rows)."""
        mine = np.isin(self.query_rows, query_rows)
        return Pairs(self.query_rows[mine], self.item_rows[mine], self.scores[mine])

    def joined(self, other: Pairs) -> Pairs:
        """All pairs of both; of a pair in both, this one's score."""
        return Pairs.ordered(
            np.concatenate([self.query_rows, other.query_rows]),
            np.concatenate([self.item_rows, other.item_rows]),
            np.concatenate([self.scores, other.scores]),
        )

    def to_table(self, query_rows: I64, *, scored: bool) -> pa.Table:
        """As a table of one row per query of `query_rows` (ascending): of pairs, or of scored pairs."""
        start = np.searchsorted(self.query_rows, query_rows)
        stop = np.searchsorted(self.query_rows, query_rows, side="right")
        assert int((stop - start).sum()) == len(self), "pairs of a query that is not in the table"
        offsets = offsets_of(stop - start)
        columns = {"query_row": pa.array(query_rows, pa.int64())}
        if not scored:
            return pa.table(columns | {"also_rows": csr_to_lists(offsets, self.item_rows)})
        return pa.table(
            columns | {"item_rows": csr_to_lists(offsets, self.item_rows), "teacher_scores": csr_to_lists(offsets, self.scores)}
        )


def depth_of(settings: MiningSettings) -> int:
    """Survivors of each query that the teacher reads."""
    assert settings.teacher is not None
    return settings.teacher.depth or 2 * settings.num_negatives


def pairs_to_read(found: Candidates, alive: Bool, labels: Labels, depth: int) -> Pairs:
    """What the teacher has to read for a block.

    Args:
        alive: [Q, K] candidates that every filter before the teacher's left.
        depth: candidates of each query, in their order. Items judged irrelevant are not among them: a person judged
            them, so no teacher drops them.

    Returns:
        Those candidates, and up to MOST_POSITIVES relevant items of each query (those of the smallest rows, never the
        item that the query itself is), which the candidates are compared with; no scores yet.
    """
    wanted = alive & ~labels.judged_mask(found.query_rows, found.rows)
    wanted &= np.cumsum(wanted, axis=1) <= depth
    owner, column = np.nonzero(wanted)
    offsets, positives = labels.positives(found.query_rows)
    positive_owner = np.repeat(np.arange(len(found.query_rows)), np.diff(offsets))
    other = ~found.is_self(positive_owner, positives)
    positive_owner, positives = positive_owner[other], positives[other]
    spot = np.arange(len(positive_owner)) - np.searchsorted(positive_owner, positive_owner)
    few = spot < MOST_POSITIVES
    owners = np.concatenate([owner, positive_owner[few]])
    return Pairs.ordered(found.query_rows[owners], np.concatenate([found.rows[owner, column], positives[few]]))


def attach(found: Candidates, scored: Pairs, labels: Labels, settings: MiningSettings) -> Candidates:
    """The candidates with the teacher's scores, and its score of the relevant item that counts.

    Args:
        scored: what it read, of at least the block's queries. Pairs that it read in an earlier round count as well.
        settings: margin_reference says which of several relevant items counts.

    Returns:
        `found` with teacher [Q, K] (NaN: not read), teacher_positive [Q] (NaN: it read no relevant item) and
        teacher_positives [P].
    """
    place = scored.find(found.query_rows[:, None], found.rows)
    known = np.append(scored.scores, np.float32(np.nan))  # the place -1 is the last
    offsets, positives = labels.positives(found.query_rows)
    owner = np.repeat(np.arange(len(found.query_rows)), np.diff(offsets))
    scores = known[scored.find(found.query_rows[owner], positives)]
    read = ~np.isnan(scores) & ~found.is_self(owner, positives)
    return replace(
        found,
        teacher=known[place],
        teacher_positive=_reference(owner[read], scores[read], len(found.query_rows), settings.margin_reference),
        teacher_positives=np.where(read, scores, np.float32(np.nan)),
    )


def count_ties(found: Candidates) -> tuple[int, int]:
    """(candidates that the teacher has read, those of them that share their query's highest score).

    The highest is over the candidates and the relevant item that counts, and is shared if two of these have it. Scores of
    which many are shared are saturated: no margin tells such candidates from relevant items.
    """
    if found.teacher is None:
        return 0, 0
    scores_QK = np.where(np.isnan(found.teacher), -np.inf, found.teacher)
    positive_Q = np.full(len(scores_QK), -np.inf) if found.teacher_positive is None else found.teacher_positive
    positive_Q = np.where(np.isnan(positive_Q), -np.inf, positive_Q)
    highest_Q = np.maximum(scores_QK.max(axis=1, initial=-np.inf), positive_Q)
    at_the_top_QK = (scores_QK == highest_Q[:, None]) & np.isfinite(scores_QK)
    top_Q = at_the_top_QK.sum(axis=1)
    shared_Q = top_Q + (positive_Q == highest_Q) > 1
    return int(np.isfinite(scores_QK).sum()), int(top_Q[shared_Q].sum())


def read_scored(store: Store, teacher: Sequence[Part], kind: str, start: int, query_rows: I64) -> Pairs:
    """What the teacher has read of some queries.

    Args:
        kind: of the teacher.
        start: place of the first of `query_rows` among all queries of the hits.

    Raises:
        ArtifactError: the teacher's parts are of other queries than the hits.
    """
    return Pairs.from_table(read_span(store, teacher, start, query_rows, COSINES if kind == "encoder" else SCORED))


def _reference(owner: I64, scores: F32, count: int, reference: str) -> F32:
    """[count] lowest, mean or highest of the scores of each owner; NaN where it has none."""
    result: F32
    many = np.bincount(owner, minlength=count)
    if reference == "mean":
        total = np.bincount(owner, scores.astype(np.float64), minlength=count)
        result = np.divide(total, many, out=np.full(count, np.nan), where=many > 0).astype(np.float32)
        return result
    first, best = (np.inf, np.minimum) if reference == "lowest" else (-np.inf, np.maximum)
    result = np.full(count, first, np.float32)
    best.at(result, owner, scores)
    result[many == 0] = np.nan
    return result
