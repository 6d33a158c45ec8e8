"""`hardmine compare-live LOG A B`: what users would see change if B took the place of A, from the queries that they ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64
from eval.live.outcome import detectable_share, units_for
from eval.live.rank_overlap import overlap, rank_biased_overlap
from jobs.serving.live.clicks import ClickLog, click_forecast
from jobs.serving.live.queries import BANDS, LoggedQuery
from jobs.serving.search.opened import Opened, refuse_pair

F64 = npt.NDArray[np.float64]
Json = dict[str, Any]
BLOCK = 256
"""Queries encoded and searched at once."""
SHOWN = 100
"""Changes shown, the largest first."""
SHOWN_HITS = 5
MOST_VALUES = 50
"""Values of a slice that are shown, the most frequent."""


@dataclass(frozen=True)
class Changes:
    """What changes for each of Q queries."""

    overlap: F64
    rbo: F64
    first: npt.NDArray[np.bool_]
    """The first result is another one."""
    found_a: F64
    """Share of the relevant items that are shown; nan: none is known."""
    found_b: F64
    gained: list[list[str]]
    """Relevant items that only B shows."""
    lost: list[list[str]]


def replay(
    queries: Sequence[LoggedQuery],
    a: Opened,
    b: Opened,
    *,
    hits: int = 10,
    clicks: ClickLog | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Json:
    """What `--json` prints. Every figure is a mean over the traffic: a query counts as often as it was asked.

    Args:
        hits: K, results that a user sees.
        clicks: what the log says of clicks; None: nothing.

    Raises:
        ConfigError: the exports read different things. DataError: a query cannot be read.
    """
    refuse_pair(a, b)
    ids_a, ids_b = _shown_ids(queries, a, hits, say), _shown_ids(queries, b, hits, say)
    codes_a, codes_b = _codes(ids_a, ids_b, hits)
    changes = _changes(queries, ids_a, ids_b, codes_a, codes_b)
    counts = np.array([query.count for query in queries], np.float64)
    every = np.ones(len(queries), bool)
    band = np.array([query.band for query in queries])
    names = sorted({name for query in queries for name in query.slices})
    return {
        "a": a.name,
        "b": b.name,
        "hits": hits,
        **_figures(changes, counts, every),
        "bands": {name: _figures(changes, counts, band == name) for name in BANDS if (band == name).any()},
        "slices": {name: _slices(queries, name, changes, counts) for name in names},
        "clicks": None if clicks is None else click_forecast(clicks, queries, ids_a, ids_b, hits),
        "interleaving": _forecast(changes, counts),
        "changes": _largest(queries, a, b, ids_a, ids_b, changes, counts),
    }


def _shown_ids(queries: Sequence[LoggedQuery], export: Opened, hits: int, say: Callable[[str], None]) -> list[list[str]]:
    """[Q] ids that each query is answered with, best first."""
    import pyarrow as pa

    result: list[list[str]] = []
    for block in _blocks(queries):
        rows_QK = export.search(export.encode([query.text for query in block]), hits).rows
        ids = export.ids.take(pa.array(np.maximum(rows_QK, 0).ravel())).to_pylist()
        for number, row in enumerate(rows_QK):
            result.append([ids[number * hits + at] for at in np.flatnonzero(row >= 0)])
    say(f"✓ {export.name}: {len(queries):,} distinct queries")
    return result


def _blocks(queries: Sequence[LoggedQuery]) -> Iterator[Sequence[LoggedQuery]]:
    for start in range(0, len(queries), BLOCK):
        yield queries[start : start + BLOCK]


def _codes(ids_a: list[list[str]], ids_b: list[list[str]], hits: int) -> tuple[I64, I64]:
    """Ids as numbers, [Q, K], -1 behind the end: the two exports may hold different items."""
    code: dict[str, int] = {}
    tables = []
    for ids in (ids_a, ids_b):
        table = np.full((len(ids), hits), -1, np.int64)
        for row, names in zip(table, ids, strict=True):
            row[: len(names)] = [code.setdefault(name, len(code)) for name in names]
        tables.append(table)
    return tables[0], tables[1]


def _changes(
    queries: Sequence[LoggedQuery], ids_a: list[list[str]], ids_b: list[list[str]], codes_a: I64, codes_b: I64
) -> Changes:
    found = np.full((2, len(queries)), np.nan)
    gained: list[list[str]] = []
    lost: list[list[str]] = []
    for number, (query, in_a, in_b) in enumerate(zip(queries, ids_a, ids_b, strict=True)):
        gained.append([name for name in in_b if name in query.relevant and name not in in_a])
        lost.append([name for name in in_a if name in query.relevant and name not in in_b])
        if query.relevant:
            found[:, number] = [len(query.relevant.intersection(shown)) / len(query.relevant) for shown in (in_a, in_b)]
    first = codes_a[:, 0] != codes_b[:, 0]
    return Changes(overlap(codes_a, codes_b), rank_biased_overlap(codes_a, codes_b), first, found[0], found[1], gained, lost)


def _figures(changes: Changes, counts: F64, some: npt.NDArray[np.bool_]) -> Json:
    weight = counts[some]
    known = some & ~np.isnan(changes.found_a)
    figures: Json = {
        "queries": int(weight.sum()),
        "distinct": int(some.sum()),
        "overlap": _mean(changes.overlap[some], weight),
        "rbo": _mean(changes.rbo[some], weight),
        "first_changed": _mean(changes.first[some].astype(np.float64), weight),
        "identical": _mean((changes.rbo[some] >= 1 - 1e-12).astype(np.float64), weight),
    }
    if known.any():
        rows = np.flatnonzero(known)
        figures["labelled"] = {
            "queries": int(counts[known].sum()),
            "distinct": len(rows),
            "found_a": _mean(changes.found_a[known], counts[known]),
            "found_b": _mean(changes.found_b[known], counts[known]),
            "gained": sum(len(changes.gained[row]) for row in rows),
            "lost": sum(len(changes.lost[row]) for row in rows),
        }
    return figures


def _mean(values: F64, weight: F64) -> float:
    return round(float(np.average(values, weights=weight)), 6)


def _slices(queries: Sequence[LoggedQuery], name: str, changes: Changes, counts: F64) -> Json:
    values = np.array([query.slices.get(name, "") for query in queries])
    traffic = {value: float(counts[values == value].sum()) for value in set(values.tolist()) - {""}}
    chosen = sorted(traffic, key=lambda value: (-traffic[value], value))[:MOST_VALUES]
    return {value: _figures(changes, counts, values == value) for value in chosen}


def _forecast(changes: Changes, counts: F64) -> Json:
    """What an interleaving of these two could find. Only queries whose lists differ can decide anything."""
    differ = float(np.average(changes.rbo < 1 - 1e-12, weights=counts))
    return {
        "share_that_differs": round(differ, 6),
        "detectable": {str(decided): round(detectable_share(decided), 4) for decided in (100, 1_000, 10_000)},
        "decided_for_55_percent": units_for(0.05),
    }


def _largest(
    queries: Sequence[LoggedQuery],
    a: Opened,
    b: Opened,
    ids_a: list[list[str]],
    ids_b: list[list[str]],
    changes: Changes,
    counts: F64,
) -> list[Json]:
    """The queries that change most: least alike first, of equally alike ones the more frequent."""
    order = np.lexsort((-counts, changes.rbo))[:SHOWN]
    titles_a, titles_b = (export.titles([ids[row][:SHOWN_HITS] for row in order]) for export, ids in ((a, ids_a), (b, ids_b)))
    result = []
    for number, row in enumerate(order):
        if changes.rbo[row] >= 1 - 1e-12:
            break
        query = queries[row]
        result.append(
            {
                "query": query.text,
                "count": query.count,
                "rbo": round(float(changes.rbo[row]), 4),
                "overlap": round(float(changes.overlap[row]), 4),
                "a": _side(ids_a[row], titles_a[number], ids_b[row], query),
                "b": _side(ids_b[row], titles_b[number], ids_a[row], query),
                "gained": changes.gained[row],
                "lost": changes.lost[row],
            }
        )
    return result


def _side(ids: list[str], titles: list[str], other: list[str], query: LoggedQuery) -> list[Json]:
    return [
        {
            "id": name,
            "title": title,
            "other": other.index(name) + 1 if name in other else None,
            "relevant": name in query.relevant if query.relevant else None,
        }
        for name, title in zip(ids, titles, strict=False)
    ]
