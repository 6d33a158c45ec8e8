"""Which columns may be a negative of which query, and of what kind.

Most columns are another query's items and no one's relevant ones, so what is particular is kept as pairs of row and column, found
from the few items that each query knows; only what the loss looks at in one go becomes a whole array.

B queries of one rank, C gathered columns, no item twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.labels.labels import Labels, find_sorted
from cluster.tables.tables import I64
from training.feed.batches import Batch
from training.telemetry.gradient_geometry import CROSS_RANK, HARD, IN_BATCH, RANDOM

Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Columns:
    """The distinct items that a step gathers, rank after rank."""

    rows: I64
    """[C] item row of each column, ascending within a rank."""
    counts: list[int]
    """Columns of each rank."""
    ascending: I64
    """[C] the rows, ascending."""
    place: I64
    """[C] the column of each of these."""

    @classmethod
    def of(cls, ascending: I64, rank_C: npt.NDArray[np.uint16], ranks: int) -> Columns:
        """Of rows that ascend, and the rank of each."""
        order = np.argsort(rank_C, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return cls(ascending[order], np.bincount(rank_C, minlength=ranks).tolist(), ascending, place)

    @classmethod
    def listed(cls, rows: I64) -> Columns:
        """Of rows in any order, all of one rank."""
        order = np.argsort(rows, kind="stable")
        return cls(rows, [len(rows)], rows[order], order)

    def find(self, rows: I64) -> I64:
        """The column of each item row; -1: it has none."""
        place = find_sorted(self.ascending, rows)
        return np.where(place >= 0, self.place[place], -1) if len(self.place) else place

    def of_all(self, rows: I64) -> I64:
        """The column of each item row; every one must be among the columns."""
        columns = self.find(rows)
        assert (columns >= 0).all(), "a batch was put together without its positives"
        return columns


@dataclass(frozen=True)
class Candidates:
    """What is particular about the columns of a rank's queries."""

    kind_C: U8  # noqa: N815
    """IN_BATCH or CROSS_RANK: what a column is for a query that did not bring it."""
    known: tuple[I64, I64]
    """(row, column), ascending rows: no negatives."""
    random: tuple[I64, I64]
    """The same: drawn for the query."""
    hard: tuple[I64, I64]
    """The same: mined for it; of a column that is both, this counts."""

    def masks(self, rows: slice, device: torch.device, *, in_batch: bool = True) -> tuple[Tensor, Tensor]:
        """(masked, kind), both [rows, C], of some rows; see `candidate_masks`. Made where they are needed: the host waits for
        nothing.

        Args:
            in_batch: other queries' items are candidates.
        """
        start, stop = rows.start, rows.stop
        kind_C = to_device(self.kind_C, device)
        kind = kind_C.repeat(stop - start, 1)
        masked = torch.full(kind.shape, not in_batch, device=device)
        for (row, column), code in ((self.random, RANDOM), (self.hard, HARD), (self.known, None)):
            some = slice(*np.searchsorted(row, (start, stop)).tolist())
            where = to_device(row[some] - start, device), to_device(column[some], device)
            # a one-element tensor: a number would become one by a copy that waits
            if code is not None:
                kind.index_put_(where, torch.full((), code, dtype=torch.uint8, device=device))
            masked.index_put_(where, torch.full((), code is None, device=device))
        return masked, kind


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor, on a GPU by way of pinned memory: the host waits for nothing that the device still has to do."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def find_candidates(batch: Batch, columns: Columns, labels: Labels) -> Candidates:
    """What the queries of a rank know of the columns."""

    def pairs_of(rows_BK: I64) -> tuple[I64, I64]:
        found = columns.find(rows_BK.ravel())
        there = np.flatnonzero(found >= 0)
        return there // max(1, rows_BK.shape[1]), found[there]

    kind_C = np.full(len(columns.rows), CROSS_RANK, np.uint8)
    own = columns.find(batch.item_rows)
    kind_C[own[own >= 0]] = IN_BATCH
    known = labels.known_pairs(batch.query_rows, columns.rows)
    return Candidates(kind_C, known, pairs_of(batch.random_BR), pairs_of(batch.hard_BH))


def candidate_masks(batch: Batch, columns_C: I64, labels: Labels) -> tuple[Bool, U8]:
    """Which gathered columns may not be a negative of which query, and of what kind the others are.

    Returns:
        (masked [B, C]: known positives, their group mates and duplicates; kind [B, C] uint8 of telemetry.gradient_geometry: HARD
        and RANDOM are a query's own, IN_BATCH is another query's of this rank, CROSS_RANK is of no query of this rank).
    """
    candidates = find_candidates(batch, Columns.listed(columns_C), labels)
    masked, kind = candidates.masks(slice(0, len(batch.query_rows)), torch.device("cpu"))
    return masked.numpy(), kind.numpy()
