"""What a teacher makes of the labels: candidates that become relevant items in training, queries whose own one is too weak.

Q queries of a block, K candidates per query, P relevant items of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels
from cluster.tables.tables import F32, I64, offsets_of
from mining.candidates import Candidates
from mining.choice.filters import Filtered
from mining.settings import TeacherSettings

Bool = npt.NDArray[np.bool_]

MOST_RELABELLED = 8
"""Candidates of a query that become relevant items, those of the highest scores: a query of a hundred would train on little
else, and a teacher that finds so many judges too mildly."""
NO_CANDIDATE = ("positive", "duplicate", "self")
"""Filters whose candidates are the relevant items themselves, or the query."""


@dataclass(frozen=True)
class Verdicts:
    """Of a block."""

    offsets: I64
    """[Q+1] into `relabelled`."""
    relabelled: I64
    """Corpus rows of candidates that become relevant items, of a query highest score first."""
    scores: F32
    """The teacher's, of the same."""
    better: I64
    """[Q] candidates that the teacher scores above every relevant item that it has read; 0: it has read none of these."""
    left_out: Bool
    """[Q] the query is not trained on."""


def verdicts_of(candidates: Candidates, filtered: Filtered, labels: Labels, settings: TeacherSettings) -> Verdicts:
    """What the teacher makes of a block's labels.

    Relabelled is what the teacher's filter dropped (it scores above the margin, or mining.teacher.max_score) and scores at
    least mining.teacher.relabel. Equal scores are ordered by smaller row, so that blocks do not matter.
    """
    assert candidates.teacher is not None
    assert candidates.teacher_positives is not None
    scores_QK = candidates.teacher
    count = len(candidates.query_rows)
    offsets, _ = labels.positives(candidates.query_rows)
    best_Q = np.full(count, -np.inf, np.float32)
    np.fmax.at(best_Q, np.repeat(np.arange(count), np.diff(offsets)), candidates.teacher_positives)
    known = [number for number, name in enumerate(filtered.filters, start=1) if name in NO_CANDIDATE]
    with np.errstate(invalid="ignore"):  # NaN: not read
        above_QK = (scores_QK > best_Q[:, None]) & (candidates.rows >= 0) & ~np.isin(filtered.code, known)
    better_Q = np.where(np.isfinite(best_Q), above_QK.sum(axis=1), 0).astype(np.int64)
    weak = settings.weak_positive
    left_out = np.zeros(count, bool) if weak is None else better_Q >= weak
    owner, rows, scores = _relabelled(candidates, filtered, settings)
    return Verdicts(offsets_of(np.bincount(owner, minlength=count)), rows, scores, better_Q, left_out)


def _relabelled(candidates: Candidates, filtered: Filtered, settings: TeacherSettings) -> tuple[I64, I64, F32]:
    """(query of the block, ascending; corpus row; score) of what becomes a relevant item."""
    assert candidates.teacher is not None
    if settings.relabel is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    dropped = filtered.code == filtered.filters.index("teacher") + 1
    owner, column = np.nonzero(dropped & (candidates.teacher >= settings.relabel))
    rows, scores = candidates.rows[owner, column], candidates.teacher[owner, column]
    order = np.lexsort((rows, -scores, owner))
    owner, rows, scores = owner[order], rows[order], scores[order]
    kept = np.arange(len(owner)) - np.searchsorted(owner, owner) < MOST_RELABELLED
    return owner[kept].astype(np.int64), rows[kept].astype(np.int64), scores[kept]
