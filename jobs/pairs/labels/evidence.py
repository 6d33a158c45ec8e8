"""From counts to evidence, and from evidence to one label for each pair: pure.

P pairs of a text and an item, R positions (0: unknown), E pieces of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64
from jobs.pairs.settings import Correction
from jobs.pairs.signals import EXPLICIT, SIGNALS

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
CLIP = 10.0
"""Largest weight of a click under `ipw`."""
RELEVANT_FROM = 1.0
"""A clicked result is relevant from this rate on: clicked as often as the average result at these positions."""
IRRELEVANT_TO = 0.5
"""A result counts as examined and passed over up to this rate."""
PRIOR = 1.0
"""Expected clicks at the average rate that are added to each pair, so that few impressions prove little."""
SMOOTHING = 10.0
"""Impressions at the average rate that each position is given."""
LEAST_WEIGHT = 0.05
"""Of a label; what is lower says nothing."""


@dataclass(frozen=True)
class Positions:
    """How often results are used at each position."""

    expected: F64
    """Clicks that one impression is expected to get."""
    weight: F64
    """What a click counts."""


def positions(shown_R: I64, used_R: I64, correction: Correction) -> Positions:
    """The correction for position, from the whole log.

    COEC (as OpenSearch's CoecClickModel): the click rate of each position, here with SMOOTHING impressions at the average rate
    added, so that a position that was hardly shown is near the average. Unknown positions have the average.
    """
    shown, used = np.asarray(shown_R, np.float64), np.asarray(used_R, np.float64)
    average = used.sum() / shown.sum() if shown.sum() else 0.0
    rate = (used + SMOOTHING * average) / (shown + SMOOTHING)
    rate[0] = average
    ones = np.ones(len(shown))
    if correction == "coec":
        return Positions(rate, ones)
    if correction == "off":
        return Positions(np.full(len(shown), average), ones)
    weight = np.where(rate > 0, np.minimum(CLIP, rate[1] / np.maximum(rate, 1e-9)), CLIP)
    weight[0] = used[1:] @ weight[1:] / used[1:].sum() if used[1:].sum() else 1.0
    weighted = float(used @ weight / shown.sum()) if shown.sum() else 0.0
    return Positions(np.full(len(shown), weighted), weight)


@dataclass(frozen=True)
class Evidence:
    """Pieces of evidence, one for each pair and signal that says something."""

    pair: I64
    grade: F64
    weight: F64
    source: I64
    """Place in the list of sources."""


def evidence(
    counts: Mapping[str, npt.NDArray[Any]], expected: F64, clicks: F64, weights: Mapping[str, float], sources: list[str]
) -> Evidence:
    """What the counts of each pair say, by the rules of docs/logs.md.

    Args:
        counts: signal -> [P] how often. expected: [P] clicks expected at the pair's positions. clicks: [P], weighted.
        weights: those that the settings change. sources: names; extended.
    """
    rate = (clicks + PRIOR) / (expected + PRIOR)
    gates = {
        "click": rate >= RELEVANT_FROM,
        "dwell": rate >= RELEVANT_FROM,
        "quick_return": counts["quick_return"] > counts["click"],
        "skipped": (rate < RELEVANT_FROM) & (counts["click"] == 0),
        "reformulated": (rate < RELEVANT_FROM) & (counts["click"] == 0),
        "not_cited": counts["citation"] == 0,
        "not_clicked": rate <= IRRELEVANT_TO,
    }
    pieces = []
    for name, signal in SIGNALS.items():
        number = expected if name == "not_clicked" else counts.get(name)
        weight = weights.get(name, signal.weight)
        if number is None or weight == 0:
            continue
        says = (number > 0) & gates.get(name, True)
        pair = np.flatnonzero(says)
        trust = np.ones(len(pair)) if name in EXPLICIT else number[pair] / (number[pair] + PRIOR)
        if name not in sources:
            sources.append(name)
        pieces.append((pair, np.full(len(pair), float(signal.grade)), weight * trust, np.full(len(pair), sources.index(name))))
    return joined_evidence(pieces)


def joined_evidence(pieces: list[tuple[Any, ...]]) -> Evidence:
    """Pieces one after another."""
    pair, grade, weight, source = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    return Evidence(pair.astype(np.int64), grade, weight, source.astype(np.int64))


@dataclass(frozen=True)
class Resolved:
    """A label for each pair that evidence agrees on."""

    pair: I64
    score: I64
    """0: judged irrelevant."""
    weight: F64
    source: I64
    conflicts: Mapping[str, int]
    """How pairs were resolved that are both relevant and irrelevant, and what says too little."""
    several: int
    """Pairs that more than one source speaks of."""


def resolve(pieces: Evidence) -> Resolved:
    """One label for each pair: the side with more weight wins, and the weight of the other side is taken off.

    The grade and the source are those of the heaviest evidence of the winning side (of equal ones the highest grade). Pairs whose
    sides weigh the same, and labels below LEAST_WEIGHT, are dropped and counted.
    """
    pairs, inverse = np.unique(pieces.pair, return_inverse=True)
    many = len(pairs)
    good = pieces.grade > 0
    up = np.bincount(inverse, weights=np.where(good, pieces.weight, 0.0), minlength=many)
    down = np.bincount(inverse, weights=np.where(good, 0.0, pieces.weight), minlength=many)
    wins = up > down
    # the heaviest piece of the winning side: last in this order
    on_side = good == wins[inverse]
    order = np.lexsort((pieces.source, pieces.grade, pieces.weight, on_side, inverse))
    last = np.append(np.flatnonzero(np.diff(inverse[order])), len(order) - 1) if len(order) else np.zeros(0, np.int64)
    best = order[last]
    weight = np.minimum(1.0, np.abs(up - down))
    even = (np.abs(up - down) < 1e-9) & (up > 0)
    kept = ~even & (weight >= LEAST_WEIGHT)
    both = (up > 0) & (down > 0)
    conflicts = {
        "relevant won": int((both & wins & ~even).sum()),
        "irrelevant won": int((both & ~wins & ~even).sum()),
        "even, dropped": int((both & even).sum()),
        "too little evidence, dropped": int((~even & (weight < LEAST_WEIGHT)).sum()),
    }
    score = np.where(wins, np.maximum(1, np.rint(pieces.grade[best])), 0).astype(np.int64)
    named = np.unique(np.stack([inverse, pieces.source]), axis=1)[0]
    several = int((np.bincount(named, minlength=many) > 1).sum())
    return Resolved(pairs[kept], score[kept], np.round(weight[kept], 4), pieces.source[best][kept], conflicts, several)
