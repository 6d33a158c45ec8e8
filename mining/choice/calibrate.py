"""Cuts that are computed anew for every model, from histograms that add up over blocks: no scores are kept.

Two passes over the candidates: `block_histogram` of every block, added up; then `resolve_cuts`, and the filters.

Q queries of a block, K candidates per query, P relevant items of the block's queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cluster.tables.tables import F32, I64
from mining.candidates import Candidates
from mining.choice.filters import Cuts, Filtered
from mining.settings import MiningSettings

BINS = 10_000
"""Per unit of margin or score: both are exact to 1e-4."""


def needs_calibration(settings: MiningSettings) -> bool:
    """Whether a cut must be computed from all candidates before any can be filtered."""
    return settings.target_discard_rate is not None or settings.positive_quantile is not None


@dataclass
class Histogram:
    """What cuts are computed from. Whole numbers: the sum does not depend on how queries were cut into blocks."""

    survivors: int = 0
    """Candidates that the filters before the cuts left."""
    margins: I64 = field(default_factory=lambda: np.zeros(BINS + 2, np.int64))
    """[BINS + 2] survivors by the margin above which the relative cut drops them: at any; in bins of [0, 1); at none."""
    positives: I64 = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    """[2 BINS] relevant items by score, bins of [-1, 1]."""

    def add(self, other: Histogram) -> None:
        """Add another block's."""
        self.survivors += other.survivors
        self.margins = self.margins + other.margins
        self.positives = self.positives + other.positives


def block_histogram(candidates: Candidates, before: Filtered, settings: MiningSettings, positive_scores: F32) -> Histogram:
    """The histogram of one block.

    Args:
        before: of `filters_before_cuts`.
        positive_scores: [P] scores of all relevant items of the block's queries.
    """
    alive = before.alive
    counted = alive & ~before.spared
    reference = np.broadcast_to(candidates.positive(settings.margin_reference)[:, None], alive.shape)[counted].astype(np.float64)
    scores = candidates.scores[counted].astype(np.float64)
    size = np.abs(reference)
    # score > s - |s| m means m > (s - score) / |s|; where s = 0 the margin plays no part, and without s nothing is cut
    margin = np.divide(reference - scores, size, out=np.where(scores > 0, -1.0, 1.0), where=size > 0)
    margin[np.isnan(reference)] = 1.0
    margins = np.bincount(_bin(margin, -1, BINS) + 1, minlength=BINS + 2)
    margins[-1] += np.count_nonzero(alive) - np.count_nonzero(counted)
    known = positive_scores[~np.isnan(positive_scores)].astype(np.float64)
    positives = np.bincount(_bin(known, -BINS, BINS - 1) + BINS, minlength=2 * BINS)
    return Histogram(int(np.count_nonzero(alive)), margins, positives)


def _bin(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], lowest: int, highest: int) -> I64:
    return np.clip(np.floor(values * BINS), lowest, highest).astype(np.int64)


def resolve_cuts(settings: MiningSettings, histogram: Histogram | None) -> Cuts:
    """The cuts of this round's model.

    Args:
        histogram: of all blocks; None only if `needs_calibration` says no.

    `target_discard_rate` gives the relative margin in [0, 1), a multiple of 1e-4, whose cut drops a share of the survivors
    nearest to it; of margins that drop the same, the one in the middle. What scores above s is dropped at any margin, and
    what a person judged, what belongs to a query without a relevant item and (where s > 0) what scores 0 or less at none:
    a target that these do not allow gives a margin that drops as few, or as many, as there can be. The filters count what
    was dropped in the end.

    `positive_quantile` gives the ceiling, rounded up to a multiple of 1e-4; without any relevant item there is none.
    """
    if histogram is None:
        assert not needs_calibration(settings)
        return Cuts(settings.relative_margin, settings.absolute_margin, None)
    relative = settings.relative_margin
    if settings.target_discard_rate is not None:
        relative = _margin(histogram, settings.target_discard_rate)
    ceiling = None
    if settings.positive_quantile is not None:
        ceiling = _quantile(histogram.positives, settings.positive_quantile)
    return Cuts(relative, settings.absolute_margin, ceiling)


def _margin(histogram: Histogram, target: float) -> float:
    # bin n holds what margins above n / BINS drop, so a margin of n / BINS drops the bins before it
    dropped = np.cumsum(histogram.margins[:BINS])
    missed = np.abs(dropped - target * histogram.survivors)
    first = int(np.argmin(missed))
    differ = np.flatnonzero(dropped[first:] != dropped[first])
    last = first + int(differ[0]) - 1 if len(differ) else BINS - 1
    return (first + last) // 2 / BINS  # in the middle, so that no candidate lies within rounding of the cut


def _quantile(positives: I64, share: float) -> float | None:
    reached = np.cumsum(positives)
    if not reached[-1]:
        return None
    number = int(np.searchsorted(reached, share * reached[-1]))
    return (number + 1 - BINS) / BINS
