"""Near-duplicates of relevant items in a mining: found by the off-the-shelf vectors, and never chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit, Ledger
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from mining.sources.near import NEIGHBOURS

pytestmark = pytest.mark.cluster


def unit(values: Any) -> list[float]:
    vector = np.asarray(values, np.float64)
    return [float(value) for value in vector / np.linalg.norm(vector)]


def spoil(case: Any, items: Any, queries: Any) -> None:
    """Items and queries that are their vectors; query n asks for item n."""
    case.items = [{"id": f"i{n}", "text": f"item {n}", "vector": unit(vector)} for n, vector in enumerate(items)]
    case.queries = [
        {"id": f"q{n}", "text": f"query {n}", "vector": unit(vector), "split": "train"} for n, vector in enumerate(queries)
    ]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 1} for n in range(len(queries))]
    case.set("encoder", {"kind": "vectors"})
    case.set("mining", {"num_hits": 30, "num_negatives": 20, "relative_margin": "off"})


def commit_of(case: Any, name: str) -> Commit:
    found = Ledger(Store(str(case.folder / "out/run"))).find(name)
    assert found is not None
    return found


def table_of(case: Any, name: str, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_parts(Store(str(case.folder / "out/run")), commit_of(case, name).parts(table)).to_pylist()
    return rows


@pytest.mark.usefixtures("ray_local")
def test_near_duplicates_of_relevant_items_are_no_negatives(ray_case: Any) -> None:
    generator = np.random.default_rng(3)
    items = generator.normal(size=(60, 8))
    items[20:60:10] = items[0] + 0.02 * generator.normal(size=(4, 8))  # 20, 30, 40 and 50 are almost item 0
    items[33] = items[2] + 0.02 * generator.normal(size=8)
    items[45] = items[44] + 0.01 * generator.normal(size=8)  # near to each other, but relevant to no one
    spoil(ray_case, items, items[:6] + 0.3 * generator.normal(size=(6, 8)))
    ray_case.set("cluster.query_block", 4)
    ray_case.set("cluster.shards", 3)

    assert ray_case.run(command="mine").code == 0
    before = {row["query_row"]: set(row["negative_rows"]) for row in table_of(ray_case, "mine", "negatives")}
    assert before[0] & {20, 30, 40, 50}, "without the setting they are taken"

    ray_case.set("mining.near_duplicate", 0.98)
    assert ray_case.run(command="mine").code == 0
    vectors = np.array([unit(item) for item in items])
    cosines = vectors @ vectors.T
    want = {row: set(np.flatnonzero(cosines[row] >= 0.98).tolist()) - {row} for row in range(6)}
    assert (want[0], want[2]) == ({20, 30, 40, 50}, {33}), "what the test is about"
    near = {row["item_row"]: set(row["near_rows"]) for row in table_of(ray_case, "mine-near-duplicates", "near")}
    assert near == {row: found for row, found in want.items() if found}
    figures = commit_of(ray_case, "mine-near-duplicates").figures
    assert (figures["items"], figures["items_with_near"], figures["pairs"], figures["items_full"]) == (6, 2, 5, 0)
    after = {row["query_row"]: set(row["negative_rows"]) for row in table_of(ray_case, "mine", "negatives")}
    assert all(not after[query] & want[query] for query in range(6))
    assert commit_of(ray_case, "mine").figures["dropped"]["duplicate"] == sum(len(want[q]) for q in range(6))

    kept = commit_of(ray_case, "mine-near-duplicates").created
    ray_case.set("mining.num_negatives", 5)
    assert ray_case.run(command="mine").code == 0
    assert commit_of(ray_case, "mine-near-duplicates").created == kept


@pytest.mark.usefixtures("ray_local")
def test_an_item_with_more_near_duplicates_than_are_looked_at_is_told(ray_case: Any) -> None:
    generator = np.random.default_rng(4)
    items = generator.normal(size=(NEIGHBOURS + 20, 8))
    items[10 : NEIGHBOURS + 15] = items[1] + 0.01 * generator.normal(size=(NEIGHBOURS + 5, 8))
    spoil(ray_case, items, items[:4])
    ray_case.set("mining.near_duplicate", 0.9)
    answer = ray_case.run(command="mine")
    assert answer.code == 0
    assert f"all {NEIGHBOURS} nearest neighbours of 1 of 4 relevant items" in answer.err
    assert "raise mining.near_duplicate" in answer.err
