"""Which candidates may be negatives: the filters in their order, each with its count, and what makes each drop less.

Q queries of a block, K candidates per query in their order, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels, contains, read_only
from cluster.labels.membership import mark_repeats
from cluster.tables.tables import F32, I64
from mining.candidates import Candidates
from mining.choice.attributes import Attribute, rule_mask
from mining.settings import MiningSettings

Bool = npt.NDArray[np.bool_]

ALIVE, PADDING = 0, 255
Near = tuple[I64, I64]
"""(position of a query in the block [P], item row [P]): the item is a near-duplicate of a relevant item of the query."""


@dataclass(frozen=True)
class Cuts:
    """Limits that depend on the scores of relevant items, for one model."""

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


class _Sieve:
    """The candidates of a block while one filter after another runs."""

    def __init__(self, candidates: Candidates, judged: Bool) -> None:
        real = candidates.rows >= 0
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
    candidates: Candidates,
    labels: Labels,
    attributes: Mapping[str, Attribute],
    settings: MiningSettings,
    *,
    near: Near | None = None,
    cuts: Cuts | None = None,
) -> Filtered:
    """Run every filter over a block. Items judged irrelevant are dropped by none but `self`: a person judged them.

    A query without a relevant item is cut by no margin. Deterministic; a query's outcome does not depend on its block.

    Args:
        near: near-duplicates of relevant items, which `duplicate` drops as it does equal texts.
        cuts: of `mining.choice.calibrate.resolve_cuts`; None: the margins of the settings, if they need no calibration.

    Without `candidates.teacher` the teacher has read nothing yet: only the filters before it run.
    """
    assert cuts is not None or (settings.target_discard_rate is None and settings.positive_quantile is None)
    cuts = cuts or Cuts(settings.relative_margin, settings.absolute_margin, None)
    sieve = _before_cuts(candidates, labels, attributes, settings, near)
    positive = candidates.positive(settings.margin_reference)
    if cuts.relative is not None:
        sieve.drop("relative_margin", candidates.scores > cut_above(positive, cuts.relative)[:, None])
    if cuts.absolute is not None:
        sieve.drop("absolute_margin", candidates.scores > cut_below(positive, cuts.absolute)[:, None])
    if cuts.ceiling is not None:
        sieve.drop("ceiling", candidates.scores > np.float32(cuts.ceiling))
    if settings.skip_first:
        sieve.drop("position", np.broadcast_to(np.arange(candidates.rows.shape[1]) < settings.skip_first, candidates.rows.shape))
    if settings.teacher is not None and candidates.teacher is not None:
        _teacher(sieve, candidates, settings)
    return sieve.result(candidates.excluded)


def filters_before_cuts(
    candidates: Candidates,
    labels: Labels,
    attributes: Mapping[str, Attribute],
    settings: MiningSettings,
    *,
    near: Near | None = None,
) -> Filtered:
    """The first filters of `apply_filters`, up to `max_score`: what cuts are calibrated on."""
    return _before_cuts(candidates, labels, attributes, settings, near).result(candidates.excluded)


def _before_cuts(
    candidates: Candidates, labels: Labels, attributes: Mapping[str, Attribute], settings: MiningSettings, near: Near | None
) -> _Sieve:
    sieve = _Sieve(candidates, labels.judged_mask(candidates.query_rows, candidates.rows))
    sieve.drop("positive", labels.positive_mask(candidates.query_rows, candidates.rows))
    repeated = np.empty(candidates.rows.shape, bool)
    mark_repeats(read_only(labels.text_codes), np.ascontiguousarray(candidates.rows), repeated)
    repeated |= labels.duplicate_mask(candidates.query_rows, candidates.rows)
    if near is not None:
        repeated |= contains(*near, candidates.rows)
    sieve.drop("duplicate", repeated)
    sieve.drop_even_judged("self", candidates.is_self(np.arange(len(candidates.rows))[:, None], candidates.rows))
    sieve.suspected = int(np.count_nonzero(sieve.open & (candidates.scores > candidates.highest_positive[:, None])))
    for rule in settings.rules:
        mask = rule_mask(rule, attributes[rule.column], labels, candidates.query_rows, candidates.rows)
        sieve.drop(f"rule:{rule.column}:{rule.keep}", mask)
    if settings.min_score is not None:
        sieve.drop("min_score", candidates.scores < settings.min_score)
    if settings.max_score is not None:
        sieve.drop("max_score", candidates.scores > settings.max_score)
    return sieve


def _teacher(sieve: _Sieve, candidates: Candidates, settings: MiningSettings) -> None:
    """Drop what the teacher finds relevant, and what it has not read."""
    assert settings.teacher is not None
    assert candidates.teacher is not None
    sieve.drop("teacher:unread", np.isnan(candidates.teacher))
    mask = np.zeros(candidates.rows.shape, bool)
    if settings.teacher.max_score is not None:
        mask |= candidates.teacher > settings.teacher.max_score
    if settings.teacher.relative_margin is not None and candidates.teacher_positive is not None:
        mask |= candidates.teacher > cut_above(candidates.teacher_positive, settings.teacher.relative_margin)[:, None]
    sieve.drop("teacher", mask)


def cures(name: str, settings: MiningSettings, *, num_items: int, cuts: Cuts | None = None) -> list[str]:
    """What to change so that a filter drops less: only what can help, and never what is set already.

    Args:
        name: of the filter, as in `Filtered.filters`. num_items: of the corpus. cuts: calibrated ones, if there were any.
    """
    kind, _, column = name.partition(":")
    hits = more_hits(settings, num_items)
    reference = {"lowest": '"mean" or "highest"', "mean": '"highest"', "highest": None}[settings.margin_reference]
    milder = [f"set mining.margin_reference = {reference}"] if reference else []
    margin = _change("lower", "relative_margin", settings.relative_margin)
    if settings.target_discard_rate is not None:
        margin = _change("lower", "target_discard_rate", settings.target_discard_rate)
        if cuts is not None and cuts.relative == 0.0:  # a lower rate gives the same cut
            margin = ['remove mining.target_discard_rate and set mining.relative_margin = "off"']
    elif settings.relative_margin == 0.0:
        margin = ['set mining.relative_margin = "off"']
    teacher = settings.teacher
    depth = teacher.depth or 2 * settings.num_negatives if teacher else None
    table = {
        "positive": hits,
        "self": hits,
        "duplicate": [*_change("raise", "near_duplicate", settings.near_duplicate), "take repeated texts out of the corpus"],
        "rule": [f"loosen mining.rules (column {column.rpartition(':')[0]})"],
        "min_score": _change("lower", "min_score", settings.min_score),
        "max_score": _change("raise", "max_score", settings.max_score),
        "relative_margin": [*margin, *milder],
        "absolute_margin": [*_change("lower", "absolute_margin", settings.absolute_margin or None), *milder],
        "ceiling": _change("raise", "positive_quantile", settings.positive_quantile),
        "position": _change("lower", "skip_first", settings.skip_first),
        "teacher:unread": _change("raise", "teacher.depth", depth),
        "teacher": [
            *_change("raise", "teacher.max_score", teacher.max_score if teacher else None),
            *_change("lower", "teacher.relative_margin", (teacher.relative_margin or None) if teacher else None),
        ],
    }
    return table.get(name) or table[kind]


def _change(verb: str, setting: str, value: float | None) -> list[str]:
    """Advice to change a setting; none if it is off."""
    return [] if value is None else [f"{verb} mining.{setting} (now {value})"]


def more_hits(settings: MiningSettings, num_items: int) -> list[str]:
    """The advice to look at more items, where there are more."""
    return [f"raise mining.num_hits (now {settings.num_hits})"] if settings.num_hits < num_items else []
