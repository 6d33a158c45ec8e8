"""The most asked of all rejected queries, and the items that are proposed for them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from cluster.storage.store import Store
from jobs.pairs.rejected import stage
from jobs.pairs.rejected.proposals import propose
from jobs.pairs.tasks import write_object
from tests.jobs.pairs.conftest import START, Make, query


def test_the_most_asked_ones_of_all_partitions_are_clustered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST", 5)
    store = Store(str(tmp_path))
    paths = []
    for number in range(4):
        counts = [20 - row if number == 2 else 3 for row in range(6)]
        keys = pa.array([10 * number + row for row in range(6)], pa.uint64())
        table = pa.table({"text": keys, "query": [f"q{number}{row}" for row in range(6)], "count": counts})
        paths += write_object(store, f"refused-{number}.parquet", table)
    most, total = stage._most_asked(store, paths)
    assert total == 24
    assert most["query"].to_pylist() == ["q20", "q21", "q22", "q23", "q24"], "however many come from one partition"


def test_of_many_items_that_fit_equally_the_first_ids_are_proposed() -> None:
    items = [{"id": f"i{n:03}", "title": f"item {n}", "genre": "crime novel"} for n in range(200)]
    items += [{"id": "j1", "title": "a crime", "genre": "cooking"}, {"id": "j2", "title": "crime novel", "genre": "cooking"}]
    (got,) = propose(["crime novel"], [pa.Table.from_pylist(items[:100]), pa.Table.from_pylist(items[100:])])
    assert [item for _, item, _ in got.relevant] == ["i000", "i001", "i002"]
    assert [item for _, item, _ in got.irrelevant] == ["j2", "j1"]


def test_a_listed_word_is_found_beside_punctuation(pairs: Make) -> None:
    rows = [query(f"q{n}", text, ["a"], user=f"u{n}", time=START + n) for n, text in enumerate(["so LIT!", "split shoe"])]
    made = pairs({"log.jsonl": rows}, 'rejected_words=["Lit"]')
    assert made.summary["rejected"]["clusters"][0]["examples"] == ["so LIT!"]
