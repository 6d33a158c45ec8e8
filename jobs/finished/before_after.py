"""What single queries found before and after: which of them got worse or better, and their first hits side by side.

Reads commits only: `*-evaluate` says how each query did, `*-hits` what it found, `ingest` what that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.commits import Commit
from cluster.errors import ArtifactError
from cluster.labels import NO_NEGATIVE
from cluster.rows import cut, has_texts, read_rows
from cluster.storage import Store
from cluster.tables import I64, Part, read_part, read_parts
from eval.copies import without_copies
from eval.metrics import LOWER_IS_BETTER

F64 = npt.NDArray[np.float64]
Hits = tuple[list[int], list[float]]
"""(item rows, scores) of one query, best first."""

DEPTH = 5
"""Hits shown of each model."""
TEXT_LENGTH = 160
"""Characters shown of a text."""
RELEVANT_SHOWN = 8
"""Relevant items shown of a query that has more."""
TIE_BREAK = "ndcg@10"


def changed_queries(store: Store, before: Commit, after: Commit, metric: str) -> tuple[I64, F64]:
    """How much better each query did after than before, the largest loss first.

    Args:
        before: commit of stage evaluate, of the same split as `after`.
        metric: of the `per_query` tables; the sign is such that above 0 is better, also for bad_top1.

    Returns:
        (query rows [Q], change [Q] of the metric); queries without a relevant item are left out. Equal changes of a metric
        with few values are ordered by that of NDCG@10, then by query row.

    Raises:
        ArtifactError: the two are of other queries, or have no such metric.
    """
    tables = [read_parts(store, commit.parts("per_query")) for commit in (before, after)]
    for commit, table in zip((before, after), tables, strict=True):
        if metric not in table.column_names:
            raise ArtifactError(
                f"expected the metric {metric} of every query in commit {commit.name}, found "
                f"{', '.join(table.column_names[1:])}; name one of these"
            )
    if not tables[0]["query_row"].equals(tables[1]["query_row"]):
        raise ArtifactError(
            f"expected the same queries in {before.name} and {after.name}, found {tables[0].num_rows:,} and "
            f"{tables[1].num_rows:,} that differ; compare models that were measured on one split of one run"
        )
    rows, change = tables[0]["query_row"].to_numpy(), _change(tables[0], tables[1], metric)
    kept = np.flatnonzero(~np.isnan(change))
    tied = all(TIE_BREAK in table.column_names for table in tables)
    second = _change(tables[0], tables[1], TIE_BREAK) if tied else change
    order = kept[np.lexsort((rows[kept], second[kept], change[kept].round(9)))]
    return rows[order], change[order]


def _change(before: pa.Table, after: pa.Table, metric: str) -> F64:
    change: F64 = after[metric].to_numpy() - before[metric].to_numpy()
    return -change if metric in LOWER_IS_BETTER else change


def before_after(
    store: Store, ingested: Commit, query_rows: Sequence[int] | I64, before: Commit, after: Commit, *, depth: int = DEPTH
) -> list[dict[str, Any]]:
    """The first hits of some queries under two models, with ids and titles.

    Args:
        ingested: commit of stage ingest. before, after: commits of stage search with the hits of these queries.
        query_rows: [W] rows of the query table, in the order wanted. Memory: their texts and hits, and one part.
        depth: hits shown of each model.

    Returns:
        For each query {"query_row", "query_id", "query", "relevant_total",
        "relevant": [{"item_id", "title", "grade", "before", "after"}] with the item's position under each model (from 1;
        None: not among the hits kept), the best grade first, 8 at most,
        "before", "after": [{"position", "item_id", "title", "score", "relevant"}] with the cosine, and `relevant` True
        (its label says so), False (judged irrelevant) or None (no one has judged it)}.

    Raises:
        ArtifactError: a query is not in the tables or has no hits in one of the commits.
    """
    rows = np.asarray(query_rows, np.int64)
    if not len(rows):
        return []
    queries = read_rows(store, ingested.parts("queries"), rows, ["id", "text", "item_row"])
    own = dict(zip(rows.tolist(), queries["item_row"].to_pylist(), strict=True))
    found = [_hits_of(store, commit, own) for commit in (before, after)]
    judged = _labels_of(store, ingested.parts("labels"), rows)
    found = [_without_copies(store, ingested.parts("corpus"), hits, judged) for hits in found]
    relevant = {row: _relevant(grades) for row, grades in judged.items()}
    items = {item for row in own for hits in found for item in hits[row][0][:depth]}
    items |= {item for shown in relevant.values() for item in shown[:RELEVANT_SHOWN]}
    titles = _titles(store, ingested.parts("corpus"), items)
    result = []
    for row, name, text in zip(rows.tolist(), queries["id"].to_pylist(), cut(queries["text"], TEXT_LENGTH), strict=True):
        was, now = (hits[row] for hits in found)
        grades = judged.get(row, {})
        wanted = relevant.get(row, [])
        result.append(
            {
                "query_row": row,
                "query_id": name,
                "query": text,
                "relevant_total": len(wanted),
                "relevant": [
                    titles[item] | {"grade": grades[item], "before": _position(was, item), "after": _position(now, item)}
                    for item in wanted[:RELEVANT_SHOWN]
                ],
                "before": _shown(was, grades, titles, depth),
                "after": _shown(now, grades, titles, depth),
            }
        )
    return result


def _hits_of(store: Store, commit: Commit, own: Mapping[int, int]) -> dict[int, Hits]:
    """The hits of the queries that are the keys of `own`, without the item that the query itself is (-1: it is none)."""
    wanted, found = np.array(sorted(own), np.int64), dict[int, Hits]()
    for part in commit.parts("hits"):
        table = read_part(store, part, ["query_row", "item_rows", "scores"])
        here = np.flatnonzero(np.isin(table["query_row"].to_numpy(), wanted))
        for hit in table.take(pa.array(here)).to_pylist():
            row, size = hit["query_row"], len(hit["item_rows"])
            kept = [pair for pair in zip(hit["item_rows"], hit["scores"], strict=True) if pair[0] != own[row]]
            kept = kept[: max(1, size - 1)]  # one more than is evaluated was searched, for the query that finds itself
            found[row] = [item for item, _ in kept], [score for _, score in kept]
        if len(found) == len(wanted):
            return found
    missing = sorted(own.keys() - found.keys())
    raise ArtifactError(
        f"expected hits of query row {missing[0]} in commit {commit.name}, found none (nor of {len(missing) - 1} "
        f"others); it holds the hits of another split: compare models that were measured on one split"
    )


def _without_copies(
    store: Store, corpus: Sequence[Part], found: Mapping[int, Hits], judged: Mapping[int, Mapping[int, int]]
) -> dict[int, Hits]:
    """The hits of each query as they are measured: without unlabelled copies of its relevant items."""
    labelled = [item for row in found for item in judged.get(row, ())]
    items = np.unique(np.array([*labelled, *(item for rows, _ in found.values() for item in rows)], np.int64))
    codes = read_rows(store, corpus, items, ["text_code"])["text_code"].to_numpy()
    result = {}
    for row, (hits, scores) in found.items():
        grades = judged.get(row, {})
        known = np.searchsorted(items, np.array(list(grades), np.int64))
        kept, kept_scores, _ = without_copies(
            np.searchsorted(items, np.array([hits], np.int64)),
            np.array([scores], np.float32),
            np.zeros_like(known),
            known,
            np.array([grade > 0 for grade in grades.values()], bool),
            codes,
        )
        real = kept[0] >= 0
        result[row] = items[kept[0][real]].tolist(), kept_scores[0][real].tolist()
    return result


def _labels_of(store: Store, parts: Sequence[Part], rows: I64) -> dict[int, dict[int, int]]:
    """Query row -> item row -> score of the label, of those that are judgements."""
    wanted, found = np.unique(rows), dict[int, dict[int, int]]()
    for part in parts:
        table = read_part(store, part, ["query_row", "item_row", "score"])
        here = np.flatnonzero(np.isin(table["query_row"].to_numpy(), wanted) & (table["score"].to_numpy() != NO_NEGATIVE))
        for label in table.take(pa.array(here)).to_pylist():
            grades = found.setdefault(label["query_row"], {})
            grades[label["item_row"]] = max(label["score"], grades.get(label["item_row"], 0))
    return found


def _relevant(grades: Mapping[int, int]) -> list[int]:
    return sorted((item for item, grade in grades.items() if grade > 0), key=lambda item: (-grades[item], item))


def _titles(store: Store, parts: Sequence[Part], items: set[int]) -> dict[int, dict[str, str]]:
    """Item row -> {"item_id", "title"}; where there is no title, the beginning of the text."""
    rows = np.array(sorted(items), np.int64)
    titled = has_texts(store, parts[0], "title")
    table = read_rows(store, parts, rows, ["id", "text", *(["title"] if titled else [])])
    titles = cut(table["title"], TEXT_LENGTH) if titled else [""] * len(rows)
    return {
        row: {"item_id": name, "title": title or text}
        for row, name, title, text in zip(
            rows.tolist(), table["id"].to_pylist(), titles, cut(table["text"], TEXT_LENGTH), strict=True
        )
    }


def _position(hits: Hits, item: int) -> int | None:
    return hits[0].index(item) + 1 if item in hits[0] else None


def _shown(hits: Hits, grades: Mapping[int, int], titles: Mapping[int, dict[str, str]], depth: int) -> list[dict[str, Any]]:
    return [
        {"position": place} | titles[item] | {"score": round(score, 4), "relevant": grades[item] > 0 if item in grades else None}
        for place, (item, score) in enumerate(zip(*hits, strict=True), start=1)
        if place <= depth
    ]
