"""Single queries before and after, from tables written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Commit
from cluster.errors import ArtifactError
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.finished.before_after import TEXT_LENGTH, before_after, changed_queries


def commit(store: Store, name: str, **tables: list[pa.Table]) -> Commit:
    """A commit of tables in parts."""
    written: dict[str, list[dict[str, Any]]] = {}
    for table, parts in tables.items():
        first = 0
        for number, part in enumerate(parts):
            done = write_part(store, f"{name}/{table}/{number}", part, first_row=first)
            written.setdefault(table, []).append(done.to_json())
            first += part.num_rows
    return Commit(name, "key", {}, written)


def halves(table: pa.Table) -> list[pa.Table]:
    return [table.slice(0, table.num_rows // 2), table.slice(table.num_rows // 2)]


def world(root: Path, *, titled: bool = True) -> tuple[Store, Commit]:
    """Six items and four queries; query 1 is item 4."""
    store = Store(str(root))
    texts = [f"text {n} " + "x" * 300 for n in range(6)]
    corpus = pa.table({"row": range(6), "id": [f"i{n}" for n in range(6)], "text": texts})
    codes = pa.table({"text_code": range(6)})
    if titled:
        corpus = corpus.append_column("title", pa.array([f"Title {n}" if n != 5 else None for n in range(6)], pa.string()))
    queries = pa.table(
        {
            "row": range(4),
            "id": [f"q{n}" for n in range(4)],
            "text": [f"query {n}" for n in range(4)],
            "item_row": [-1, 4, -1, -1],
        }
    )
    labels = pa.table({"query_row": [0, 0, 1, 2, 2], "item_row": [1, 2, 5, 0, 3], "score": [1, 2, 1, 0, 3]})
    return store, commit(
        store, "ingest", corpus=halves(corpus), codes=halves(codes), queries=halves(queries), labels=halves(labels)
    )


def hits(store: Store, name: str, rows: dict[int, list[int]]) -> Commit:
    table = pa.table(
        {
            "query_row": list(rows),
            "item_rows": list(rows.values()),
            "scores": [[1 - n / 8 for n in range(len(found))] for found in rows.values()],
        }
    )
    return commit(store, name, hits=halves(table))


def test_the_first_hits_of_both_models_with_titles_and_labels(tmp_path: Path) -> None:
    store, ingested = world(tmp_path)
    before = hits(store, "before", {0: [1, 2, 3, 4], 1: [4, 5, 0, 1], 2: [3, 0, 1, 2]})
    after = hits(store, "after", {0: [3, 4, 5, 1], 1: [0, 1, 4, 5], 2: [0, 1, 2, 3]})
    found = before_after(store, ingested, [2, 0, 1], before, after, depth=2)
    assert [one["query_id"] for one in found] == ["q2", "q0", "q1"], "in the order asked for"
    assert found[0]["before"] == [
        {"position": 1, "item_id": "i3", "title": "Title 3", "score": 1.0, "relevant": True},
        {"position": 2, "item_id": "i0", "title": "Title 0", "score": 0.875, "relevant": False},
    ]
    assert [hit["relevant"] for hit in found[0]["after"]] == [False, None], "judged irrelevant, and not judged"
    assert found[1]["relevant"] == [
        {"item_id": "i2", "title": "Title 2", "grade": 2, "before": 2, "after": None},
        {"item_id": "i1", "title": "Title 1", "grade": 1, "before": 1, "after": None},
    ], "the last hit is not measured"
    assert [hit["item_id"] for hit in found[2]["before"]] == ["i5", "i0"], "a query that is an item does not find itself"
    assert [(item["before"], item["after"]) for item in found[2]["relevant"]] == [(1, 3)]
    assert found[2]["before"][0]["title"].startswith("text 5"), "without a title its text"
    assert len(found[2]["before"][0]["title"]) == TEXT_LENGTH


def test_items_without_a_title_column_show_their_text(tmp_path: Path) -> None:
    store, ingested = world(tmp_path, titled=False)
    both = hits(store, "both", {0: [1, 2, 3], 2: [0, 1, 2]})
    assert before_after(store, ingested, [0], both, both)[0]["after"][0]["title"].startswith("text 1 x")
    assert before_after(store, ingested, [], both, both) == []


def test_hits_of_another_split_are_refused(tmp_path: Path) -> None:
    store, ingested = world(tmp_path)
    some, other = hits(store, "some", {0: [1, 2], 1: [1, 2]}), hits(store, "other", {2: [1, 2], 3: [1, 2]})
    with pytest.raises(ArtifactError, match=r"query row 0 in commit other.*another split"):
        before_after(store, ingested, [0], some, other)


def evaluated(store: Store, name: str, rows: list[int], **metrics: list[float]) -> Commit:
    return commit(store, name, per_query=[pa.table({"query_row": rows} | metrics)])


def test_the_largest_loss_comes_first_and_ties_go_by_ndcg(tmp_path: Path) -> None:
    store, nan = Store(str(tmp_path)), float("nan")
    rows = [7, 3, 5, 9, 1]
    before = evaluated(
        store,
        "before",
        rows,
        **{"recall@3": [1, 1, 0, nan, 1], "ndcg@10": [0.9, 0.9, 0, nan, 0.5], "bad_top1": [0, 0, 1, nan, 0]},
    )
    after = evaluated(
        store, "after", rows, **{"recall@3": [0, 0, 1, nan, 1], "ndcg@10": [0.5, 0.1, 1, nan, 0.5], "bad_top1": [1, 0, 0, nan, 0]}
    )
    found, change = changed_queries(store, before, after, "recall@3")
    assert found.tolist() == [3, 7, 1, 5], "a query without a relevant item is none of them"
    assert change.tolist() == [-1, -1, 0, 1]
    found, change = changed_queries(store, before, after, "bad_top1")
    assert found[0] == 7, "a first result that became bad is a loss"
    assert np.sign(change).tolist() == [-1, 0, 0, 1]


def test_other_queries_and_unknown_metrics_are_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one, two = (evaluated(store, f"e{n}", [n, n + 1], **{"recall@3": [0, 1]}) for n in range(2))
    with pytest.raises(ArtifactError, match="expected the same queries"):
        changed_queries(store, one, two, "recall@3")
    with pytest.raises(ArtifactError, match=r"mrr@10.*found recall@3"):
        changed_queries(store, one, one, "mrr@10")
