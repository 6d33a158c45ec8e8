"""What choosing did, in figures that add up over blocks: the driver sees no rows.

Q queries of a block, K candidates, N' negatives of the longest list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64
from mining.candidates import SOURCES, Candidates
from mining.choice.choose import Chosen
from mining.choice.filters import Filtered
from mining.settings import MiningSettings
from mining.teacher.cut import count_ties

I32 = npt.NDArray[np.int32]

HARDNESS_EDGES = np.linspace(-1.0, 1.0, 401)
"""Bins of negative − positive score."""
PERCENTILES = (5, 25, 50, 75, 95)
MOST_USED = 10
"""Items that are named in the report because they are used most."""


@dataclass
class Counts:
    """What choosing did, added up over blocks."""

    queries: int = 0
    candidates: int = 0
    survivors: int = 0
    chosen: int = 0
    judged: int = 0
    judged_left_out: int = 0
    """Items judged irrelevant that no list has: their query has more of them than N."""
    new: int = 0
    """Chosen negatives that their query did not have in the round before; all of them in the first."""
    queries_short: int = 0
    """Queries with fewer than N negatives."""
    queries_empty: int = 0
    suspected: int = 0
    above_positive: int = 0
    """Chosen negatives that score above the query's best relevant item."""
    teacher_read: int = 0
    """Candidates that a teacher has read."""
    teacher_tied: int = 0
    """Of these, candidates that share the teacher's highest score of their query with another or with a relevant item."""
    relabelled: int = 0
    """Candidates that become relevant items in training."""
    weak_queries: int = 0
    """Queries that are left out of training: the teacher scores many candidates above their relevant items."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Filter -> candidates that it, and none before it, dropped."""
    dropped_short: dict[str, int] = field(default_factory=dict)
    """The same, of queries with fewer than N negatives only."""
    from_source: dict[str, int] = field(default_factory=dict)
    """Source -> chosen negatives that it placed best."""
    hardness: I64 = field(default_factory=lambda: np.zeros(len(HARDNESS_EDGES) - 1, np.int64))
    """[400] negatives by negative − best positive score."""

    def add(self, other: Counts) -> None:
        """Add another block's counts."""
        for name, value in vars(other).items():
            own = getattr(self, name)
            setattr(self, name, add_named(own, value) if isinstance(value, dict) else own + value)


def add_named(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    """Sums by name, in the order in which names were first seen."""
    return {name: ours.get(name, 0) + theirs.get(name, 0) for name in {**ours, **theirs}}


def count_block(candidates: Candidates, filtered: Filtered, chosen: Chosen, settings: MiningSettings) -> Counts:
    """The counts of one block. A query without a relevant item counts in all but `hardness` and `above_positive`."""
    real = chosen.rows >= 0
    per_query = real.sum(axis=1)
    harder = (chosen.scores - candidates.highest_positive[:, None])[real]
    known = np.isfinite(harder)
    short = per_query < settings.num_negatives
    read, tied = count_ties(candidates)
    of_short = {name: int(counts[short].sum()) for name, counts in filtered.dropped_per_query().items()} if short.any() else {}
    sources = np.bincount(chosen.source[real], minlength=len(SOURCES))
    return Counts(
        queries=len(candidates.query_rows),
        candidates=filtered.candidates,
        survivors=int(filtered.alive.sum()),
        chosen=int(real.sum()),
        judged=int(chosen.judged[real].sum()),
        queries_short=int(short.sum()),
        dropped_short=of_short,
        queries_empty=int((per_query == 0).sum()),
        suspected=filtered.suspected,
        above_positive=int((harder[known] > 0).sum()),
        teacher_read=read,
        teacher_tied=tied,
        dropped=dict(filtered.dropped),
        from_source={name: int(count) for name, count in zip(SOURCES, sources, strict=True) if count},
        hardness=np.histogram(np.clip(harder[known], -1, 1), HARDNESS_EDGES)[0],
    )


def percentiles(histogram: I64) -> dict[str, float]:
    """Percentiles of negative − positive score from its histogram (bins of 0.005); none of an empty one."""
    total = histogram.sum()
    if not total:
        return {}
    reached = np.cumsum(histogram) / total
    return {f"p{p}": round(float(HARDNESS_EDGES[1:][np.searchsorted(reached, p / 100)]), 4) for p in PERCENTILES}


@dataclass(frozen=True)
class UsedItem:
    """An item that is used most."""

    item_id: str
    title: str
    uses: int
    """Queries whose negative it is."""


@dataclass(frozen=True)
class Reuse:
    """How unevenly the items are used as negatives, as mining.json has it."""

    items: int
    used: int
    """Items that are a negative of any query."""
    top_share: float
    """Share of all uses that the most used 1 % of the items have."""
    gini: float
    """Over all items: 0 all alike, near 1 a few have all uses (Gini 1912)."""
    histogram: dict[str, int]
    """Uses, as "0", "1", "2", "3-4", "5-8" … -> items."""
    most_used: list[UsedItem]


def reuse(uses_N: I32, most_used: Sequence[UsedItem]) -> Reuse:
    """How unevenly the items are used, from the uses of each. Memory: a sorted copy."""
    items = dict(zip(*(column.tolist() for column in np.unique(uses_N, return_counts=True)), strict=True))
    total, count = sum(uses * number for uses, number in items.items()), len(uses_N)
    weighted, most, place, first = 0, 0, 0, count - -(-count // 100)
    histogram: dict[str, int] = {}
    for uses, number in items.items():  # ascending; whole numbers, however many items
        weighted += uses * number * (2 * place + number + 1) // 2  # their places are place + 1 … place + number
        place += number
        most += uses * min(number, max(0, place - first))
        # "0", "1", "2", and beyond: 2^(b-2) < uses <= 2^(b-1)
        power = (uses - 1).bit_length()
        name = str(uses) if uses <= 2 else f"{2 ** (power - 1) + 1}-{2**power}"
        histogram[name] = histogram.get(name, 0) + number
    return Reuse(
        items=count,
        used=count - items.get(0, 0),
        top_share=round(most / max(1, total), 4),
        gini=round(2 * weighted / (count * total) - (count + 1) / count, 4) if total else 0.0,
        histogram=histogram,
        most_used=list(most_used),
    )


def most_used(uses_N: I32) -> I64:
    """Rows of the items used most, most first, equal ones by row; fewer than MOST_USED if fewer are used at all."""
    count = min(MOST_USED, int((uses_N > 0).sum()))
    if not count:
        return np.zeros(0, np.int64)
    least = np.partition(uses_N, len(uses_N) - count)[len(uses_N) - count]
    rows = np.flatnonzero(uses_N >= least)
    return rows[np.argsort(-uses_N[rows].astype(np.int64), kind="stable")[:count]]
