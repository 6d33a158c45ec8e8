"""The candidates of a block of queries, with everything that filters and choice compare them to.

Q queries of a block, K candidates per query in their order (best first; of several sources, fused by rank).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.tables import F32, I64

SOURCES = ("model", "baseline", "bm25", "earlier", "judged")
"""What a source code stands for. "judged" is no source of candidates: a person judged the item irrelevant."""
JUDGED = SOURCES.index("judged")


@dataclass(frozen=True)
class Candidates:
    """The candidates of a block."""

    query_rows: I64
    """[Q]"""
    rows: I64
    """[Q, K] corpus rows, -1 padding."""
    scores: F32
    """[Q, K] cosines under the current model, whatever source found the item; -inf padding."""
    lowest_positive: F32
    """[Q] lowest score among the query's relevant items; NaN: it has none."""
    mean_positive: F32
    """[Q]"""
    highest_positive: F32
    """[Q]"""
    self_rows: I64
    """[Q] the item that the query is; -1: it is none."""
    excluded: I64
    """[Q] known positives that the search left out of the candidates though they were near enough."""
    source: npt.NDArray[np.uint8]
    """[Q, K] code in SOURCES of the source that places the item best."""
    position: I64
    """[Q, K] position in that source's list, from 0."""
    teacher: F32 | None = None
    """[Q, K] the teacher's scores; NaN: not read. None: no teacher."""
    teacher_positive: F32 | None = None
    """[Q] the teacher's score of the relevant item that counts (margin_reference); NaN: none."""

    def positive(self, reference: str) -> F32:
        """[Q] the score that margins are taken from: "lowest", "mean" or "highest"."""
        return {"lowest": self.lowest_positive, "mean": self.mean_positive, "highest": self.highest_positive}[reference]
