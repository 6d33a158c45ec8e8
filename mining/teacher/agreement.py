"""Whether a judge agrees with what is known: graded before anything that it says is believed.

Known are relevant items, and items that a person judged irrelevant. Where there are hardly any of these, items drawn at random
stand in for them, nearly all of which are irrelevant.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.labels.labels import Labels
from cluster.labels.read import read_labels
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, read_parts
from mining.teacher.judge import Judge, MakeJudge, grades_of

OF_EACH = 100
"""Relevant and irrelevant pairs that are graded, at most."""
FEW = 20
"""Judged negatives below which random items are graded instead."""
FLOOR = 0.4
"""Least kappa: where "moderate" agreement begins (Landis and Koch 1977)."""


@dataclass(frozen=True)
class Agreement:
    """How well grades and known labels go together."""

    relevant: int
    """Relevant pairs that were graded."""
    irrelevant: int
    drawn: bool
    """The irrelevant ones are random items; no person judged them."""
    accuracy: float
    kappa: float
    """Agreement beyond chance (Cohen 1960)."""
    mean_relevant: float
    """Mean grade of the relevant pairs."""
    mean_irrelevant: float

    def to_json(self) -> dict[str, Any]:
        """As the commit has it."""
        return asdict(self)


def agreement(grades: F32, relevant: Any, scale: list[int], *, drawn: bool) -> Agreement:
    """Of graded pairs: a grade in the upper half of the scale says that the item is relevant.

    Args:
        grades: [P] NaN: none was given, which counts as a disagreement.
        relevant: [P] what is known.
    """
    graded = ~np.isnan(grades)
    says = grades > (scale[0] + scale[-1]) / 2
    agrees = float((graded & (says == relevant)).mean())
    chance = float(says.mean() * relevant.mean() + (~says).mean() * (~relevant).mean())
    means = [
        float(np.nanmean(grades[side & graded])) if (side & graded).any() else float("nan") for side in (relevant, ~relevant)
    ]
    kappa = (agrees - chance) / (1 - chance) if chance < 1 else 0.0
    return Agreement(int(relevant.sum()), int((~relevant).sum()), drawn, agrees, kappa, *means)


def known_pairs(labels: Labels, query_rows: I64, seed: int) -> tuple[I64, I64, Any, bool]:
    """(query rows, item rows, whether relevant, whether the irrelevant ones are drawn) of pairs that are known.

    One pair of a query at most on each side, of queries in a random order.

    Args:
        query_rows: whose labels may be looked at.
    """
    rng = np.random.default_rng([seed, 0xA6])
    order = rng.permutation(query_rows)
    chosen: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for query in order.tolist():
        of_query = slice(int(labels.offsets[query]), int(labels.offsets[query + 1]))
        for side in (True, False):
            items = labels.item_rows[of_query][(labels.scores[of_query] > 0) if side else (labels.scores[of_query] == 0)]
            if len(items) and len(chosen[side]) < OF_EACH:
                chosen[side].append((query, int(rng.choice(items))))
        if min(map(len, chosen.values())) == OF_EACH:
            break
    drawn = len(chosen[False]) < FEW
    if drawn:
        askers = np.array([query for query, _ in chosen[True]], np.int64)
        items = rng.integers(0, labels.num_items, len(askers))
        other = ~labels.known_mask(askers, items).diagonal()
        chosen[False] = list(zip(askers[other].tolist(), items[other].tolist(), strict=True))
    pairs = np.array([*chosen[True], *chosen[False]], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < len(chosen[True]), drawn


@dataclass(frozen=True)
class Known:
    """Tables that say what is known."""

    store: Store
    queries: list[Part]
    corpus: list[Part]
    labels: list[Part]
    codes: list[Part]
    seed: int


def measure_agreement(known: Known, make: MakeJudge) -> Agreement:
    """Ask a judge about known pairs of training queries.

    Raises:
        ConfigError: it agrees too little, or there is no relevant pair to ask about.
    """
    splits = read_parts(known.store, known.queries, ["split"])["split"].to_pylist()
    labels = read_labels(known.store, known.labels, known.codes, len(splits))
    train = np.flatnonzero([split == "train" for split in splits])
    queries, items, relevant, drawn = known_pairs(labels, train, known.seed)
    if not relevant.any():
        raise ConfigError('mining.teacher.kind = "llm": no training query has a relevant item, so the judge cannot be checked')
    asked, shown = _texts(known.store, known.queries, queries), _texts(known.store, known.corpus, items)
    grades = np.full(len(queries), np.nan, np.float32)
    for places, some in Judge(make).answers(asked, shown):
        grades[places] = some
    result = agreement(grades, relevant, grades_of(make.rubric), drawn=drawn)
    if not result.kappa >= FLOOR:
        raise ConfigError(
            f"mining.teacher: {describe(result)}; expected a kappa of at least {FLOOR}, so nothing that it says is used. Read "
            f"its rubric (mining.teacher.rubric), give another model, or look whether the labels are right"
        )
    return result


def describe(found: Agreement) -> str:
    """For a person."""
    others = "random" if found.drawn else "judged-irrelevant"
    return (
        f"the judge agrees with {found.accuracy:.0%} of {found.relevant} relevant and {found.irrelevant} {others} pairs (kappa "
        f"{found.kappa:.2f}; mean grade {found.mean_relevant:.1f} and {found.mean_irrelevant:.1f})"
    )


def _texts(store: Store, parts: list[Part], rows: I64) -> list[str]:
    distinct, place = np.unique(rows, return_inverse=True)
    texts = read_rows(store, parts, distinct, ["text"])["text"].to_pylist()
    return [texts[index] for index in place]
