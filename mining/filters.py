"""Which candidates may be negatives: the filters in their order, each counted.

Q queries of a block, K candidates (hits) per query, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels import Labels
from cluster.tables import F32, I64
from mining.attributes import Attribute, rule_mask
from mining.candidates import Candidates
from mining.settings import MiningSettings

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Filtered:
    """What the filters left."""

    alive: Bool
    """[Q, K]"""
    dropped: dict[str, int]
    """Filter -> candidates that it, and none before it, dropped."""
    candidates: int
    """Candidates before any filter."""
    suspected: int
    """Candidates no label knows that score above the query's best relevant item: perhaps unlabelled positives."""


def first_of_text(rows_QK: I64, text_codes: I64) -> Bool:
    """[Q, K]: True where no earlier candidate of the query has the same normalised text."""
    codes = np.where(rows_QK >= 0, text_codes[np.maximum(rows_QK, 0)], -1)
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    fresh = np.ones(codes.shape, bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty(codes.shape, bool)
    np.put_along_axis(result, order, fresh, axis=1)
    return result


def cut_above(lowest_positive_Q: F32, margin: float) -> F32:
    """Highest score a negative may have: s - |s| × margin, right for negative s too; no positive: no limit.

    Source: NV-Retriever (arXiv 2407.15831) TopK-PercPos; sign-safe as in sentence-transformers#3819.
    """
    limit = lowest_positive_Q - np.abs(lowest_positive_Q) * np.float32(margin)
    return np.where(np.isnan(limit), np.float32(np.inf), limit).astype(np.float32)


def apply_filters(
    found: Candidates, labels: Labels, attributes: Mapping[str, Attribute], settings: MiningSettings,
) -> Filtered:
    """Run every filter over a block. Items judged irrelevant are dropped by none but `self`: a person has spoken."""
    alive = found.rows >= 0
    candidates = int(alive.sum()) + int(found.excluded.sum())
    judged = labels.judged_mask(found.query_rows, found.rows)
    dropped: dict[str, int] = {}

    def drop(name: str, mask: Bool, *, spare_judged: bool = True) -> None:
        nonlocal alive
        hit = alive & mask & ~judged if spare_judged else alive & mask
        dropped[name] = dropped.get(name, 0) + int(hit.sum())
        alive = alive & ~hit

    drop("positive", labels.positive_mask(found.query_rows, found.rows))
    dropped["positive"] += int(found.excluded.sum())
    repeated = ~first_of_text(found.rows, labels.text_codes)
    drop("duplicate", labels.duplicate_mask(found.query_rows, found.rows) | repeated)
    drop("self", found.rows == found.self_rows[:, None], spare_judged=False)
    suspected = int((alive & ~judged & (found.scores > found.highest_positive[:, None])).sum())
    for rule in settings.rules:
        mask = rule_mask(rule, attributes[rule.column], labels, found.query_rows, found.rows)
        drop(f"rule:{rule.column}:{rule.keep}", mask)
    if settings.min_score is not None:
        drop("min_score", found.scores < settings.min_score)
    if settings.max_score is not None:
        drop("max_score", found.scores > settings.max_score)
    if settings.relative_margin is not None:
        drop("relative_margin", found.scores > cut_above(found.positive(settings.margin_reference), settings.relative_margin)[:, None])
    if settings.skip_first:
        drop("position", np.broadcast_to(np.arange(found.rows.shape[1]) < settings.skip_first, found.rows.shape))
    return Filtered(alive, dropped, candidates, suspected)
