"""Single queries before and after: which of them got worse or better, and their first hits side by side.

Reads commits only: `*-evaluate` has the metrics of each query, `*-hits` its hits, `ingest` their texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.commits import Commit
from cluster.errors import ArtifactError
from cluster.labels.labels import NO_NEGATIVE
from cluster.storage.store import Store
from cluster.tables.rows import cut, has_texts, read_rows
from cluster.tables.tables import I64, Part, read_part, read_parts
from eval.copies import without_copies
from eval.metrics import LOWER_IS_BETTER

F64 = npt.NDArray[np.float64]
Hits = tuple[list[int], list[float]]
"""(item rows, scores) of one query, best first."""

DEPTH = 5
"""Hits shown per model."""
TEXT_LENGTH = 160
"""Characters shown per text."""
RELEVANT_SHOWN = 8
"""Relevant items shown per query."""
TIE_BREAK = "ndcg@10"


def changed_queries(store: Store, before: Commit, after: Commit, metric: str) -> tuple[I64, F64]:
    """How much better each query did after than before, the largest loss first.

    Args:
        before: commit of stage evaluate, on the same split as `after`.
        metric: a column of the `per_query` tables.

    Returns:
        (query rows [Q], change [Q] of the metric; above 0 is better, also for bad_top1). Queries without a relevant item are
        left out. Equal changes are ordered by the change of NDCG@10, then by query row.

    Raises:
        ArtifactError: the two were measured on different queries, or lack the metric.
    """
    tables = [read_parts(store, commit.parts("per_query")) for commit in (before, after)]
    for commit, table in zip((before, after), tables, strict=True):
        if metric not in table.column_names:
            raise ArtifactError(
                f"expected the metric {metric} in commit {commit.name}, found "
                f"{', '.join(table.column_names[1:])}; choose one of these"
            )
    if not tables[0]["query_row"].equals(tables[1]["query_row"]):
        raise ArtifactError(
            f"expected the same queries in {before.name} and {after.name}, found {tables[0].num_rows:,} and "
            f"{tables[1].num_rows:,} different ones; compare models that were measured on the same split of one run"
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
        query_rows: [W] rows of the query table, in the order to return. Memory: their texts and hits, and one part.
        depth: hits shown per model.

    Returns:
        For each query {"query_row", "query_id", "query", "relevant_total",
        "relevant": [{"item_id", "title", "grade", "before", "after"}] with the item's position under each model (from 1;
        None: not among the kept hits), the best grade first, at most 8,
        "before", "after": [{"position", "item_id", "title", "score", "relevant"}] with the cosine, and `relevant` True
        (its label says so), False (judged irrelevant) or None (nobody judged it)}.

    Raises:
        ArtifactError: a query is not in the tables or has no hits in one of the commits.
    """
    rows = np.asarray(query_rows, np.int64)
    if not len(rows):
        return []
    queries = read_rows(store, ingested.parts("queries"), rows, ["id", "text", "item_row"])
    own = dict(zip(rows.tolist(), queries["item_row"].to_pylist(), strict=True))
    hits_of_both = [_hits_of(store, commit, own) for commit in (before, after)]
    judged = _labels_of(store, ingested.parts("labels"), rows)
    hits_of_both = [_without_copies(store, ingested.parts("codes"), hits, judged) for hits in hits_of_both]
    relevant = {
        row: sorted((item for item, grade in grades.items() if grade > 0), key=lambda item: (-grades[item], item))
        for row, grades in judged.items()
    }
    items = {item for row in own for hits in hits_of_both for item in hits[row][0][:depth]}
    items |= {item for ranked in relevant.values() for item in ranked[:RELEVANT_SHOWN]}
    titles = _titles(store, ingested.parts("corpus"), items)
    result = []
    for row, name, text in zip(rows.tolist(), queries["id"].to_pylist(), cut(queries["text"], TEXT_LENGTH), strict=True):
        hits_before, hits_after = (hits[row] for hits in hits_of_both)
        grades = judged.get(row, {})
        ranked = relevant.get(row, [])
        result.append(
            {
                "query_row": row,
                "query_id": name,
                "query": text,
                "relevant_total": len(ranked),
                "relevant": [
                    titles[item]
                    | {"grade": grades[item], "before": _position(hits_before, item), "after": _position(hits_after, item)}
                    for item in ranked[:RELEVANT_SHOWN]
                ],
                "before": _shown(hits_before, grades, titles, depth),
                "after": _shown(hits_after, grades, titles, depth),
            }
        )
    return result


def _hits_of(store: Store, commit: Commit, own: Mapping[int, int]) -> dict[int, Hits]:
    """The hits of the queries in `own` (query row -> the item that the query itself is, or -1), without that item."""
    query_rows, hits = np.array(sorted(own), np.int64), dict[int, Hits]()
    for part in commit.parts("hits"):
        table = read_part(store, part, ["query_row", "item_rows", "scores"])
        here = np.flatnonzero(np.isin(table["query_row"].to_numpy(), query_rows))
        for hit in table.take(pa.array(here)).to_pylist():
            row, size = hit["query_row"], len(hit["item_rows"])
            kept = [pair for pair in zip(hit["item_rows"], hit["scores"], strict=True) if pair[0] != own[row]]
            kept = kept[: max(1, size - 1)]  # the search kept one hit more than is evaluated, for a query that finds itself
            hits[row] = [item for item, _ in kept], [score for _, score in kept]
        if len(hits) == len(query_rows):
            return hits
    missing = sorted(own.keys() - hits.keys())
    raise ArtifactError(
        f"expected hits of query row {missing[0]} in commit {commit.name}, found none (nor of {len(missing) - 1} "
        f"others); it holds the hits of another split: compare models that were measured on the same split"
    )


def _without_copies(
    store: Store, codes: Sequence[Part], hits_of: Mapping[int, Hits], judged: Mapping[int, Mapping[int, int]]
) -> dict[int, Hits]:
    """The hits of each query as they are measured: without unlabelled copies of its relevant items."""
    labelled = [item for row in hits_of for item in judged.get(row, ())]
    items = np.unique(np.array([*labelled, *(item for rows, _ in hits_of.values() for item in rows)], np.int64))
    texts = read_rows(store, codes, items, ["text_code"])["text_code"].to_numpy()
    result = {}
    for row, (hits, scores) in hits_of.items():
        grades = judged.get(row, {})
        known = np.searchsorted(items, np.array(list(grades), np.int64))
        kept, kept_scores, _ = without_copies(
            np.searchsorted(items, np.array([hits], np.int64)),
            np.array([scores], np.float32),
            np.zeros_like(known),
            known,
            np.array([grade > 0 for grade in grades.values()], bool),
            texts,
        )
        real = kept[0] >= 0
        result[row] = items[kept[0][real]].tolist(), kept_scores[0][real].tolist()
    return result


def _labels_of(store: Store, parts: Sequence[Part], rows: I64) -> dict[int, dict[int, int]]:
    """Query row -> item row -> score of the label; only of labels that are judgements."""
    query_rows, grades_of = np.unique(rows), dict[int, dict[int, int]]()
    for part in parts:
        table = read_part(store, part, ["query_row", "item_row", "score"])
        here = np.flatnonzero(np.isin(table["query_row"].to_numpy(), query_rows) & (table["score"].to_numpy() != NO_NEGATIVE))
        for label in table.take(pa.array(here)).to_pylist():
            grades = grades_of.setdefault(label["query_row"], {})
            grades[label["item_row"]] = max(label["score"], grades.get(label["item_row"], 0))
    return grades_of


def _titles(store: Store, parts: Sequence[Part], items: set[int]) -> dict[int, dict[str, str]]:
    """Item row -> {"item_id", "title"}; an item without a title has the beginning of its text."""
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
        {"position": position}
        | titles[item]
        | {"score": round(score, 4), "relevant": grades[item] > 0 if item in grades else None}
        for position, (item, score) in enumerate(zip(*hits, strict=True), start=1)
        if position <= depth
    ]
