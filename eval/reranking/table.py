"""Every retriever with every re-ranker, on the same queries, each against the retriever that is kept, alone.

compared = compare_cells(values, reference, primary="recall@3")
compared[Cell(FINE_TUNED, OFF_THE_SHELF)]["recall@3"].interval.mean
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.metrics import F64
from eval.significance import Comparison, compare

NONE, OFF_THE_SHELF, FINE_TUNED = "none", "off-the-shelf", "fine-tuned"
METRICS = ("recall@3", "recall@10", "ndcg@10", "mrr@10", "bad_top1")
"""Shown and compared, besides the primary one."""


@dataclass(frozen=True)
class Cell:
    """A retriever with a re-ranker behind it, or without one."""

    retriever: str
    """OFF_THE_SHELF or FINE_TUNED."""
    reranker: str = NONE
    """NONE, OFF_THE_SHELF or FINE_TUNED."""

    @property
    def label(self) -> str:
        """For a person."""
        return f"the {self.retriever} retriever " + (f"with the {self.reranker} re-ranker" if self.reranker != NONE else "alone")


def compare_cells(
    values: Mapping[Cell, Mapping[str, F64]], reference: Cell, *, primary: str, resamples: int = 10_000, confidence: float = 0.95
) -> dict[Cell, dict[str, Comparison]]:
    """Interval and p of each metric of each cell against the reference, p corrected by Holm for the number of them.

    The primary metric was named beforehand: its tests, one for each cell, are one family. Those of all others are another.

    Args:
        values: float64 [Q] for each metric, the same queries in the same order in all cells; NaN drops a pair.
        reference: one of the cells; it is not compared.

    Returns:
        Cells in the order of `values`, metrics as METRICS has them, the primary one first.
    """
    names = [name for name in dict.fromkeys((primary, *METRICS)) if name in values[reference]]
    others = [cell for cell in values if cell != reference]
    compared: dict[tuple[Cell, str], Comparison] = {}
    for family in ([primary], [name for name in names if name != primary]):
        compared |= compare(
            {(cell, name): values[cell][name] for cell in others for name in family},
            {(cell, name): values[reference][name] for cell in others for name in family},
            resamples=resamples,
            confidence=confidence,
        )
    return {cell: {name: compared[cell, name] for name in names} for cell in others}
