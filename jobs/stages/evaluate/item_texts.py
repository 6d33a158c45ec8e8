"""Which of the items that an evaluation names have one text; of no other item anything is read.

Q queries, K hits, M items that are named, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part
from eval.copies import without_copies
from eval.metrics import Bool


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """Codes of the texts of some items: equal texts have equal ones."""

    rows: I64
    """[M] ascending."""
    codes: I64
    """[M]"""

    @classmethod
    def read(cls, store: Store, codes: Sequence[Part], rows: Sequence[I64]) -> ItemTexts:
        """Of all these items, -1 left out."""
        named = np.unique(np.concatenate([some.ravel() for some in rows]))
        named = named[named >= 0]
        return cls(named, read_rows(store, codes, named, ["text_code"])["text_code"].to_numpy())

    def of(self, rows: I64) -> I64:
        """The code of each item; of -1 some code."""
        return self.codes[np.searchsorted(self.rows, np.maximum(rows, self.rows[0]))] if len(self.rows) else rows

    def without_copies(self, rows_QK: I64, scores_QK: F32, query_L: I64, item_L: I64, relevant_L: Bool) -> tuple[I64, F32, Bool]:
        """As `eval.copies.without_copies`, of rows of the corpus that are named here."""
        if not len(self.rows):
            return rows_QK, scores_QK, np.zeros(len(rows_QK), bool)
        place_QK = np.where(rows_QK >= 0, np.searchsorted(self.rows, rows_QK), -1)
        place_L = np.searchsorted(self.rows, item_L)
        kept, scores, had = without_copies(place_QK, scores_QK, query_L, place_L, relevant_L, self.codes)
        return np.where(kept >= 0, self.rows[kept], -1), scores, had
