"""Which of the surviving candidates are taken: judged items first, then the strategy's.

Q queries, K candidates, N negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.labels import contains
from cluster.tables import F32, I64
from mining.candidates import JUDGED, Candidates
from mining.settings import MiningSettings


@dataclass(frozen=True)
class Chosen:
    """The negatives of a block, best first; N' is the longest list."""

    rows: I64
    """[Q, N'] corpus rows, -1 padding."""
    scores: F32
    positions: I64
    """[Q, N'] position in its source's list, from 0; -1: judged irrelevant, chosen wherever it stands."""
    source: npt.NDArray[np.uint8]
    """[Q, N'] code in SOURCES."""
    teacher: F32
    """[Q, N'] the teacher's score; NaN: it has not read the pair."""

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """[Q, N'] a person judged it irrelevant."""
        return self.source == JUDGED


def choose(
    found: Candidates, alive: Any, judged: tuple[I64, I64, F32], settings: MiningSettings, seed: int,
) -> Chosen:
    """The N negatives of each query: items judged irrelevant first, then surviving candidates by the strategy."""
    owner, judged_rows, judged_scores = judged
    other = judged_rows != found.self_rows[owner]  # a query is no negative of itself, whatever was judged
    owner, judged_rows, judged_scores = owner[other], judged_rows[other], judged_scores[other]
    count = len(found.query_rows)
    spot = np.arange(len(owner)) - np.searchsorted(owner, owner)
    width = int(spot.max(initial=-1)) + 1
    first_rows, first_scores = np.full((count, width), -1, np.int64), np.full((count, width), -np.inf, np.float32)
    first_rows[owner, spot], first_scores[owner, spot] = judged_rows, judged_scores
    # a judged item that is also a hit is listed once, among the judged
    eligible = alive & ~contains(owner, judged_rows, found.rows)
    keys = np.broadcast_to(np.arange(found.rows.shape[1], dtype=np.float64), found.rows.shape)
    if settings.choose == "uniform":
        keys = _random_keys(found, seed)
    keys = np.where(eligible, keys, np.inf)
    order = np.argsort(keys, axis=1, kind="stable")[:, : settings.num_negatives]
    taken = np.isfinite(np.take_along_axis(keys, order, axis=1))
    order = np.sort(np.where(taken, order, found.rows.shape[1]), axis=1)  # hits are best first: so are the chosen
    taken = order < found.rows.shape[1]
    safe = np.minimum(order, found.rows.shape[1] - 1)
    rows = np.where(taken, np.take_along_axis(found.rows, safe, axis=1), -1)
    scores = np.where(taken, np.take_along_axis(found.scores, safe, axis=1), -np.inf).astype(np.float32)
    positions = np.where(taken, np.take_along_axis(found.position, safe, axis=1), -1)
    source = np.take_along_axis(found.source, safe, axis=1)
    unread = np.full(rows.shape, np.nan, np.float32)
    teacher = unread if found.teacher is None else np.take_along_axis(found.teacher, safe, axis=1)
    joined = Chosen(
        np.concatenate([first_rows, rows], axis=1), np.concatenate([first_scores, scores], axis=1),
        np.concatenate([np.full(first_rows.shape, -1), positions], axis=1),
        np.concatenate([np.full(first_rows.shape, JUDGED, np.uint8), source], axis=1),
        np.concatenate([np.full(first_rows.shape, np.nan, np.float32), teacher], axis=1),
    )
    return _first_n(joined, settings.num_negatives)


def _random_keys(found: Candidates, seed: int) -> Any:
    """A number in [0, 1) for each candidate that depends on (seed, query, item) only."""
    with np.errstate(over="ignore"):
        x = found.query_rows.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15) + found.rows.astype(np.uint64)
        x = (x ^ np.uint64(seed)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(32))
    return x.astype(np.float64) / 2.0**64


def _first_n(chosen: Chosen, num_negatives: int) -> Chosen:
    """Close the gaps and keep the first N of each row."""
    order = np.argsort(chosen.rows < 0, axis=1, kind="stable")[:, :num_negatives]
    return Chosen(*(np.take_along_axis(value, order, axis=1)
                    for value in (chosen.rows, chosen.scores, chosen.positions, chosen.source, chosen.teacher)))
