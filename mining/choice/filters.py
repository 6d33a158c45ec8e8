"""Which candidates may be negatives: the filters in their order, each counted.

Q queries of a block, K candidates per query in their order, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels import Labels, contains
from cluster.membership import mark_repeats
from cluster.tables import F32, I64
from mining.candidates import Candidates
from mining.choice.attributes import Attribute, rule_mask
from mining.settings import MiningSettings

Bool = npt.NDArray[np.bool_]

ALIVE, PADDING = 0, 255
Near = tuple[I64, I64]
"""(position of a query in the block [P], item row [P]): the item is a near-duplicate of a relevant item of the query."""


@dataclass(frozen=True)
class Cuts:
    """The limits that are taken from scores of relevant items, as they hold for one model."""

    relative: float | None
    """Margin: a negative scores at most s - |s| × margin."""
    absolute: float | None
    """Margin: a negative scores at most s - margin."""
    ceiling: float | None
    """A negative scores at most this."""


@dataclass(frozen=True)
class Filtered:
    """What the filters left, and what each took."""

    filters: tuple[str, ...]
    """Names in their order."""
    code: npt.NDArray[np.uint8]
    """[Q, K] ALIVE, PADDING, or n: filters[n - 1] dropped the candidate, and none before it would have."""
    spared: Bool
    """[Q, K] judged irrelevant: no filter but `self` drops these."""
    excluded: I64
    """[Q] known positives that were no candidates to begin with; `positive` counts them."""
    suspected: int
    """Candidates no label knows that score above the query's best relevant item: perhaps unlabelled positives."""
    dropped: dict[str, int]
    """Filter -> candidates that it, and none before it, dropped."""

    @property
    def alive(self) -> Bool:
        """[Q, K] candidates that may be negatives."""
        alive: Bool = self.code == ALIVE
        return alive

    @property
    def candidates(self) -> int:
        """Candidates before any filter."""
        return int(np.count_nonzero(self.code != PADDING)) + int(self.excluded.sum())

    def dropped_per_query(self) -> dict[str, I64]:
        """Filter -> [Q] candidates that it dropped; sums to `dropped`."""
        counts = {name: (self.code == number).sum(axis=1) for number, name in enumerate(self.filters, start=1)}
        counts["positive"] = counts["positive"] + self.excluded
        return counts

    def dropped_by(self, query: int, place: int) -> str | None:
        """The filter that dropped candidate `place` of the block's `query`; None: it is alive, or padding."""
        number = int(self.code[query, place])
        return None if number in (ALIVE, PADDING) else self.filters[number - 1]


class _Sieve:
    """Candidates that filters are taken from one after another."""

    def __init__(self, found: Candidates, judged: Bool) -> None:
        real = found.rows >= 0
        self.code = np.where(real, np.uint8(ALIVE), np.uint8(PADDING))
        self.judged = judged
        self.open = real & ~judged
        """Alive and not spared."""
        self.dropped: dict[str, int] = {}
        self.suspected = 0

    def drop(self, name: str, mask: Bool) -> None:
        """Drop what `mask` marks, but for what is spared."""
        self._take(name, self.open & mask)

    def drop_even_judged(self, name: str, mask: Bool) -> None:
        self._take(name, (self.code == ALIVE) & mask)

    def _take(self, name: str, hit: Bool) -> None:
        number = list(self.dropped).index(name) + 1 if name in self.dropped else len(self.dropped) + 1
        self.dropped[name] = self.dropped.get(name, 0) + int(np.count_nonzero(hit))
        np.copyto(self.code, np.uint8(number), where=hit)
        self.open &= ~hit

    def result(self, excluded: I64) -> Filtered:
        dropped = self.dropped | {"positive": self.dropped["positive"] + int(excluded.sum())}
        return Filtered(tuple(self.dropped), self.code, self.judged, excluded, self.suspected, dropped)


def cut_above(positive_Q: F32, margin: float) -> F32:
    """Highest score a negative may have: s - |s| × margin, right for negative s too; no positive: no limit.

    Source: NV-Retriever (arXiv 2407.15831) TopK-PercPos; sign-safe as in sentence-transformers#3819.
    """
    limit = positive_Q - np.abs(positive_Q) * np.float32(margin)
    return np.where(np.isnan(limit), np.float32(np.inf), limit).astype(np.float32)


def cut_below(positive_Q: F32, margin: float) -> F32:
    """Highest score a negative may have: s - margin; no positive: no limit. Source: as `cut_above`, TopK-MarginPos."""
    limit = positive_Q - np.float32(margin)
    return np.where(np.isnan(limit), np.float32(np.inf), limit).astype(np.float32)


def apply_filters(
    found: Candidates,
    labels: Labels,
    attributes: Mapping[str, Attribute],
    settings: MiningSettings,
    *,
    near: Near | None = None,
    cuts: Cuts | None = None,
) -> Filtered:
    """Run every filter over a block. Items judged irrelevant are dropped by none but `self`: a person has spoken.

    A query without a relevant item is cut by no margin. Deterministic; a query's outcome does not depend on its block.

    Args:
        near: near-duplicates of relevant items, which `duplicate` drops as it does equal texts.
        cuts: of `mining.choice.calibrate.resolve_cuts`; None: the margins that the settings give, which must then be given.

    Where `found.teacher` is None nothing has been read yet, and the filters are those before the teacher.
    """
    assert cuts is not None or (settings.target_discard_rate is None and settings.positive_quantile is None)
    cuts = cuts or Cuts(settings.relative_margin, settings.absolute_margin, None)
    sieve = _before_cuts(found, labels, attributes, settings, near)
    positive = found.positive(settings.margin_reference)
    if cuts.relative is not None:
        sieve.drop("relative_margin", found.scores > cut_above(positive, cuts.relative)[:, None])
    if cuts.absolute is not None:
        sieve.drop("absolute_margin", found.scores > cut_below(positive, cuts.absolute)[:, None])
    if cuts.ceiling is not None:
        sieve.drop("ceiling", found.scores > np.float32(cuts.ceiling))
    if settings.skip_first:
        sieve.drop("position", np.broadcast_to(np.arange(found.rows.shape[1]) < settings.skip_first, found.rows.shape))
    if settings.teacher is not None and found.teacher is not None:
        _teacher(sieve, found, settings)
    return sieve.result(found.excluded)


def filters_before_cuts(
    found: Candidates, labels: Labels, attributes: Mapping[str, Attribute], settings: MiningSettings, *, near: Near | None = None
) -> Filtered:
    """The first filters of `apply_filters`, up to `max_score`: what cuts are calibrated on."""
    return _before_cuts(found, labels, attributes, settings, near).result(found.excluded)


def _before_cuts(
    found: Candidates, labels: Labels, attributes: Mapping[str, Attribute], settings: MiningSettings, near: Near | None
) -> _Sieve:
    sieve = _Sieve(found, labels.judged_mask(found.query_rows, found.rows))
    sieve.drop("positive", labels.positive_mask(found.query_rows, found.rows))
    repeated = np.empty(found.rows.shape, bool)
    mark_repeats(labels.text_codes, np.ascontiguousarray(found.rows), repeated)
    repeated |= labels.duplicate_mask(found.query_rows, found.rows)
    if near is not None:
        repeated |= contains(*near, found.rows)
    sieve.drop("duplicate", repeated)
    sieve.drop_even_judged("self", found.rows == found.self_rows[:, None])
    sieve.suspected = int(np.count_nonzero(sieve.open & (found.scores > found.highest_positive[:, None])))
    for rule in settings.rules:
        mask = rule_mask(rule, attributes[rule.column], labels, found.query_rows, found.rows)
        sieve.drop(f"rule:{rule.column}:{rule.keep}", mask)
    if settings.min_score is not None:
        sieve.drop("min_score", found.scores < settings.min_score)
    if settings.max_score is not None:
        sieve.drop("max_score", found.scores > settings.max_score)
    return sieve


def _teacher(sieve: _Sieve, found: Candidates, settings: MiningSettings) -> None:
    """The teacher says that a candidate is relevant; what it has not read is not taken either."""
    assert settings.teacher is not None
    assert found.teacher is not None
    sieve.drop("teacher:unread", np.isnan(found.teacher))
    mask = np.zeros(found.rows.shape, bool)
    if settings.teacher.max_score is not None:
        mask |= found.teacher > settings.teacher.max_score
    if settings.teacher.relative_margin is not None and found.teacher_positive is not None:
        mask |= found.teacher > cut_above(found.teacher_positive, settings.teacher.relative_margin)[:, None]
    sieve.drop("teacher", mask)
