"""Drawing queries to read: fair, the same for every block size, shown with texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage.store import Store
from cluster.tables.tables import write_part
from mining.report.samples import RELEVANT_SHOWN, Sample, ShownNegative, best_samples, draw_samples, show_samples, tickets


def negatives_table(queries: int, *, empty: int = 0) -> pa.Table:
    """Query q has relevant item q and the negatives q+1 and q+2, but every `empty`-th has no negative."""
    some = [[] if empty and q % empty == 0 else [q + 1, q + 2] for q in range(queries)]
    return pa.table(
        {
            "query_row": pa.array(range(queries), pa.int64()),
            "positive_rows": pa.array([[q] for q in range(queries)], pa.list_(pa.int64())),
            "positive_scores": pa.array([[0.8]] * queries, pa.list_(pa.float32())),
            "negative_rows": pa.array(some, pa.list_(pa.int64())),
            "negatives": [
                [
                    {"item_id": f"i{row}", "score": 0.9 - 0.2 * place, "position": place, "source": "model"}
                    for place, row in enumerate(rows)
                ]
                for rows in some
            ],
        }
    )


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_the_drawn_queries_do_not_depend_on_the_blocks(size: int) -> None:
    table = negatives_table(500, empty=5)
    want = draw_samples(table, 17, 20)
    blocks = [draw_samples(table.slice(start, size), 17, 20) for start in range(0, 500, size)]
    got = best_samples([sample for block in blocks for sample in block], 20)
    assert got == best_samples(want, 20)
    rows = [sample.query_row for sample in got]
    assert len(set(rows)) == 20
    assert rows == sorted(rows)
    assert all(row % 5 for row in rows), "a query without negatives has nothing to read"


def test_the_draw_is_fair_over_rows_and_differs_by_seed() -> None:
    drawn = np.concatenate([np.argsort(tickets(np.arange(1000), seed))[:20] for seed in range(500)])
    counts = np.bincount(drawn // 100, minlength=10)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000), "every tenth of the rows is drawn from alike"
    assert len(np.unique(tickets(np.arange(100_000), 3))) == 100_000


def test_few_queries_are_all_shown_and_none_where_none_are_wanted() -> None:
    assert len(best_samples(draw_samples(negatives_table(3), 1, 20), 20)) == 3
    assert draw_samples(negatives_table(3), 1, 0) == []


def test_a_sample_is_shown_with_texts_and_its_suspects(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    items = pa.table({"id": [f"i{n}" for n in range(12)], "text": [f"item {n} " + "x" * 300 for n in range(12)]})
    corpus = [write_part(store, f"c/{start}", items.slice(start, 5), first_row=start) for start in (0, 5, 10)]
    queries = [write_part(store, "q/0", pa.table({"id": ["q0", "q1"], "text": ["what", "why"]}))]
    sample = Sample(5, 1, ((3, 0.5), (11, 0.25)), 9, ((7, 0.75, 0, "model"), (2, 0.75, -1, "judged"), (0, 0.25, 4, "bm25")))
    (shown,) = show_samples([sample], store, corpus, queries)
    assert all(len(item.text) == 200 and item.text.endswith("…") for item in [*shown.relevant, *shown.negatives])
    assert (shown.query_id, shown.query, shown.relevant_total) == ("q1", "why", 9)
    assert [(item.item_id, item.score) for item in shown.relevant] == [("i3", 0.5), ("i11", 0.25)]
    assert [replace(item, text=item.text[:6]) for item in shown.negatives] == [
        ShownNegative("i7", "item 7", 0.75, position=0, source="model", suspected=True),
        ShownNegative("i2", "item 2", 0.75, position=-1, source="judged", suspected=False),
        ShownNegative("i0", "item 0", 0.25, position=4, source="bm25", suspected=False),
    ]
    assert show_samples([], store, corpus, queries) == []


def test_of_many_relevant_items_the_best_are_shown() -> None:
    table = negatives_table(1)
    rows, scores = list(range(20)), [n / 20 for n in range(20)]
    table = table.set_column(1, "positive_rows", pa.array([rows])).set_column(
        2, "positive_scores", pa.array([scores], pa.list_(pa.float32()))
    )
    sample = draw_samples(table, 1, 1)[0]
    assert sample.relevant_total == 20
    assert [row for row, _ in sample.relevant] == list(range(19, 19 - RELEVANT_SHOWN, -1))
