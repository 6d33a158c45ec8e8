"""What the negatives look like: the same for every cut into blocks, here and in Ray tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from cluster.tables.tables import read_part, write_part
from mining.report.counts import UsedItem
from mining.report.describe import DescribeTask, Glance, describe, glance_block, load_buckets, name_most_used
from mining.settings import MiningSettings

ITEMS, QUERIES = 40, 30


def make_task(root: Path, block: int, settings: MiningSettings, *, title: bool = True) -> DescribeTask:
    store, generator = Store(str(root)), np.random.default_rng(5)
    columns: dict[str, Any] = {
        "row": range(ITEMS),
        "id": [f"i{n}" for n in range(ITEMS)],
        "text": [f"text of {n}" for n in range(ITEMS)],
        "group_code": [-1] * ITEMS,
        "text_code": range(ITEMS),
        "genres": [[f"g{n % 3}"] for n in range(ITEMS)],
    }
    if title:
        columns["title"] = [None if n % 2 else f"title {n}" for n in range(ITEMS)]
    relevant = [sorted(generator.choice(ITEMS, 2, replace=False).tolist()) for _ in range(QUERIES)]
    chosen = [
        generator.choice(ITEMS, generator.integers(0, 6), replace=False, p=np.arange(1, ITEMS + 1) / 820).tolist()
        for _ in range(QUERIES)
    ]
    negatives = pa.table(
        {
            "query_row": pa.array(range(QUERIES), pa.int64()),
            "positive_rows": relevant,
            "positive_scores": pa.array([[0.5, 0.6]] * QUERIES, pa.list_(pa.float32())),
            "negative_rows": pa.array(chosen, pa.list_(pa.int64())),
            "negatives": [
                [{"item_id": f"i{row}", "score": 0.5, "position": 0, "source": "model"} for row in rows] for rows in chosen
            ],
        }
    )
    labels = pa.table(
        {
            "query_row": np.repeat(np.arange(QUERIES), 2),
            "item_row": np.concatenate(relevant),
            "score": np.ones(2 * QUERIES, np.int64),
        }
    )
    queries = pa.table({"row": range(QUERIES), "id": [f"q{n}" for n in range(QUERIES)], "text": ["ask"] * QUERIES})
    return DescribeTask(
        store=store,
        corpus=[write_part(store, "corpus/0", pa.table(columns))],
        queries=[write_part(store, "queries/0", queries)],
        labels=[write_part(store, "labels/0", labels)],
        num_items=ITEMS,
        num_queries=QUERIES,
        settings=settings,
        seed=3,
        negatives=[
            write_part(store, f"negatives-{block}/{start:03d}", negatives.slice(start, block))
            for start in range(0, QUERIES, block)
        ],
    )


SETTINGS = MiningSettings(samples=4, confusion="genres")


def test_blocks_of_any_size_give_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    for block in (1, 7, 30):
        task = make_task(tmp_path, block, SETTINGS)
        buckets = load_buckets(task)
        total, uses = Glance([], np.zeros((5, 5), np.int64), []), np.zeros(ITEMS, np.int32)
        for part in task.negatives:
            glance, rows = glance_block(read_part(task.store, part.path), task, buckets)
            total = total.add(glance, 4)
            uses = uses + np.bincount(rows, minlength=ITEMS)
        pictures.append((total.samples, total.confusion.tolist(), uses.tolist()))
    assert pictures[0] == pictures[1] == pictures[2]
    assert len(pictures[0][0]) == 4
    table = read_part(task.store, task.negatives[0].path)
    want = Counter(row for rows in table["negative_rows"].to_pylist() for row in rows)
    assert pictures[0][2] == [want[row] for row in range(ITEMS)]
    assert sum(map(sum, pictures[0][1])) == sum(
        len({row % 3 for row in relevant}) * len(chosen)
        for relevant, chosen in zip(table["positive_rows"].to_pylist(), table["negative_rows"].to_pylist(), strict=True)
    )


def test_the_items_used_most_are_named_by_title_or_text(tmp_path: Path) -> None:
    uses = np.zeros(ITEMS, np.int32)
    uses[[3, 4]] = [9, 2]
    task = make_task(tmp_path, 30, SETTINGS)
    assert name_most_used(uses, task) == [UsedItem("i3", "text of 3", 9), UsedItem("i4", "title 4", 2)]
    untitled = make_task(tmp_path / "untitled", 30, SETTINGS, title=False)
    assert [row.title for row in name_most_used(uses, untitled)] == ["text of 3", "text of 4"]


@pytest.mark.cluster
def test_describing_in_ray_tasks_does_not_depend_on_the_blocks(tmp_path: Path, ray_local: ClusterSize) -> None:
    got = [describe(make_task(tmp_path, block, SETTINGS), retries=0) for block in (4, 30)]
    assert got[0] == got[1]
    assert got[0].reuse.items == ITEMS
    assert got[0].reuse.most_used[0].uses == max(row.uses for row in got[0].reuse.most_used)
    assert got[0].confusion is not None
    assert got[0].confusion.column == "genres"
    assert len(got[0].samples) == 4
    bare = describe(make_task(tmp_path, 30, MiningSettings(samples=0)), retries=0)
    assert (bare.confusion, bare.samples) == (None, [])
