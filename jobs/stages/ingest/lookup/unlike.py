"""Examples of texts that count as one though they are not written alike ("C programming" and "C# programming")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, Part
from jobs.stages.ingest.labels import LabelRows
from jobs.stages.ingest.lookup.equal_texts import EqualTexts, first_of_equal

MOST_READ = 100_000
"""Pairs among which an example is looked for; their texts are held in memory."""
BEFORE, AFTER = 40, 40
"""Characters shown on both sides of where two texts begin to differ."""


def unlike_queries(store: Store, parts: Sequence[Part], splits: Sequence[str], texts: EqualTexts) -> list[str] | None:
    """An example among queries that share their text: [id, text, id, text]; None: all are written alike."""
    rows = np.flatnonzero(np.array([split != "none" for split in splits], bool))
    return _example(store, parts, rows[first_of_equal(texts.questions[rows])], rows)


def unlike_items(store: Store, parts: Sequence[Part], labels: LabelRows, texts: EqualTexts) -> list[str] | None:
    """An example among relevant items and their unlabelled copies."""
    relevant = np.unique(labels.item_rows[labels.scores > 0])
    codes, first = np.unique(texts.items.of(relevant), return_index=True)
    place = np.minimum(np.searchsorted(codes, texts.items.codes), len(codes) - 1)
    copies = np.flatnonzero((codes[place] == texts.items.codes) & ~np.isin(texts.items.rows, relevant))
    return _example(store, parts, relevant[first[place[copies]]], texts.items.rows[copies])


def _example(store: Store, parts: Sequence[Part], left: I64, right: I64) -> list[str] | None:
    """The first pair that differs in more than case and white space; without one, the first that differs at all."""
    pairs = np.flatnonzero(left != right)[:MOST_READ]
    one, other = (read_rows(store, parts, rows[pairs], ["id", "text"]) for rows in (left, right))
    texts = list(zip(one["text"].to_pylist(), other["text"].to_pylist(), strict=True))
    unlike = [number for number, (a, b) in enumerate(texts) if a != b]
    if not unlike:
        return None
    best = next((number for number in unlike if _words(texts[number][0]) != _words(texts[number][1])), unlike[0])
    same = [a == b for a, b in zip(*texts[best], strict=False)] + [False]
    start = max(0, same.index(False) - BEFORE)
    shown = [("…" if start else "") + text[start : start + BEFORE + AFTER] for text in texts[best]]
    return [one["id"][best].as_py(), shown[0], other["id"][best].as_py(), shown[1]]


def _words(text: str) -> list[str]:
    return text.casefold().split()
