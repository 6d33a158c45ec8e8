"""The queries of a log, each once with how often it was asked, what is known to be relevant to it, and its slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import DataError
from jobs.serving.live.log_files import ids_of, read_rows_of

QUERY_NAMES = ("user_query", "query", "text", "search_term", "q")
COUNT_NAMES = ("count", "searches", "frequency")
RELEVANT = "relevant"
BANDS = ("head", "middle", "tail")
"""Queries by how often they are asked: each band has about a third of the traffic."""


@dataclass
class LoggedQuery:
    """A distinct query."""

    text: str
    count: int = 0
    relevant: set[str] = field(default_factory=set)
    """Ids of items that a person or a click called relevant; empty: nothing is known."""
    slices: dict[str, str] = field(default_factory=dict)
    """Column -> its most frequent value."""
    band: str = ""


def read_queries(
    path: Path,
    slices: Sequence[str] = (),
    labels: Path | None = None,
    each: Callable[[str, Mapping[str, Any]], None] = lambda place, row: None,
) -> list[LoggedQuery]:
    """The distinct queries of a log, most frequent first.

    A query is a row's user_query (UBI), query, text, search_term or q. Rows without one (events, in a log of both) are left out.
    Further columns: count (how often it was asked; 1), relevant (ids), and those named by `slices`.

    Args:
        labels: a file with query (or query_id), item_id and perhaps score; above 0 is relevant.
        each: is called with every row and where it stands, those without a query too: the log is read once.

    Raises:
        DataError: no row has a query, or a column is not there.
    """
    queries: dict[str, LoggedQuery] = {}
    values: dict[tuple[str, str], Counter[str]] = {}
    names: set[str] = set()
    text_of: dict[str, str] = {}
    for place, row in read_rows_of(path):
        each(place, row)
        names |= row.keys()
        text = text_of_row(row)
        if not text:
            continue
        query = queries.setdefault(text, LoggedQuery(text))
        query.count += _count(row, place)
        query.relevant |= set(ids_of(row.get(RELEVANT)))
        if row.get("query_id") is not None:
            text_of[str(row["query_id"])] = text
        for name in slices:
            if row.get(name) is not None:
                values.setdefault((text, name), Counter())[str(row[name])] += 1
    _refuse_unknown(path, names, queries, slices)
    for (text, name), counts in values.items():
        queries[text].slices[name] = min(counts, key=lambda value, counts=counts: (-counts[value], value))  # type: ignore[misc]
    if labels is not None:
        _add_labels(queries, text_of, labels)
    ordered = sorted(queries.values(), key=lambda query: (-query.count, query.text))
    for query, band in zip(ordered, bands(np.array([query.count for query in ordered])), strict=True):
        query.band = BANDS[band]
    return ordered


def text_of_row(row: Mapping[str, Any]) -> str:
    """The query of a row; "": it has none."""
    return next((str(row[name]).strip() for name in QUERY_NAMES if row.get(name)), "")


def _count(row: Mapping[str, Any], place: str) -> int:
    value = next((row[name] for name in COUNT_NAMES if row.get(name) not in (None, "")), 1)
    try:
        count = int(float(value))
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise DataError(f"{place}: expected how often the query was asked, a number from 1 on, found {value!r}")
    return count


def _refuse_unknown(path: Path, names: set[str], queries: Mapping[str, LoggedQuery], slices: Sequence[str]) -> None:
    if not queries:
        raise DataError(
            f"{path}: expected queries in a column {', '.join(QUERY_NAMES[:-1])} or {QUERY_NAMES[-1]}, found "
            f"{', '.join(sorted(names)) or 'no row'}; rename the column"
        )
    missing = [name for name in slices if name not in names]
    if missing:
        raise DataError(f"--slice {missing[0]}: expected a column of {path}, found {', '.join(sorted(names))}")


def _add_labels(queries: Mapping[str, LoggedQuery], text_of: Mapping[str, str], labels: Path) -> None:
    known = 0
    for place, row in read_rows_of(labels):
        item = row.get("item_id")
        if item is None:
            raise DataError(f"{place}: expected the columns query (or query_id) and item_id, found {', '.join(row)}")
        text = text_of_row(row) or text_of.get(str(row.get("query_id")), "")
        try:
            relevant = float(row.get("score") or 0 if "score" in row else 1) > 0
        except (TypeError, ValueError) as error:
            raise DataError(f"{place}: expected a number as score, found {row['score']!r}") from error
        if text in queries and relevant:
            queries[text].relevant.add(str(item))
            known += 1
    if not known:
        raise DataError(f"{labels}: no label is of a query of the log; labels name a query by its text, or by the log's query_id")


def bands(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[Q] 0 head, 1 middle, 2 tail: by the share of the traffic that is asked at least as often. counts: descending."""
    before = np.cumsum(counts) - counts
    first_of_equal = np.searchsorted(-counts, -counts, side="left")  # queries asked equally often are in one band
    result: npt.NDArray[np.int64] = np.minimum(3 * before[first_of_equal] // max(1, int(counts.sum())), 2)
    return result
