"""`retrieval_eval` events: what a line says, and files of bounded size and number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part
from jobs.stages.evaluate.events import INDEX, EventLog, EventTask, _write

HEAD = {
    "event": "retrieval_eval",
    "time": "2026-11-21T12:00:00+00:00",
    "run": "shop",
    "stage": "round-01",
    "round": 1,
    "split": "dev",
    "model": "abc",
}


def write(store: Store, name: str, table: pa.Table, rows: int) -> list[Part]:
    return [
        write_part(store, f"{name}/{part_name(n)}", table.slice(start, rows), first_row=start)
        for n, start in enumerate(range(0, table.num_rows, rows))
    ]


@pytest.fixture
def task(tmp_path: Path) -> EventTask:
    """Fourteen items in three parts, four queries of which three are evaluated, in two blocks."""
    store = Store(str(tmp_path))
    items = pa.table(
        {
            "row": np.arange(14),
            "id": [f"i{n}" for n in range(14)],
            "title": [None if n == 3 else f"Title {n}" for n in range(14)],
            "text": ["…"] * 14,
            "text_code": np.arange(14),
        }
    )
    queries = pa.table(
        {
            "row": np.arange(4),
            "id": [f"q{n}" for n in range(4)],
            "text": ["eins", "zwei „2“", "drei", "vier"],
            "item_row": [-1, 0, -1, -1],
            "intent": ["buy", None, "look", "look"],
        }
    )
    labels = pa.table({"query_row": [0, 0, 1, 2], "item_row": [3, 1, 11, 2], "score": [2, 0, 1, 0]})
    hits = pa.table(
        {
            "query_row": [0, 1, 2],
            "item_rows": [[3, 1, *range(4, 13)], list(range(11)), list(range(2, 13))],
            "scores": [np.linspace(0.9, 0.1, 11).astype(np.float32)] * 3,
        }
    )
    corpus = write(store, "corpus", items, 5)
    return EventTask(
        store,
        "events/round-01/key",
        write(store, "hits", hits, 2),
        corpus,
        corpus,
        write(store, "queries", queries, 3),
        write(store, "labels", labels, 9),
        HEAD,
    )


def read(store: Store, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.read_bytes(path).decode().split("\n")[:-1]]


def test_a_line_for_each_evaluated_query(task: EventTask) -> None:
    figures = _write(task).figures
    path = "events/round-01/key/retrieval_eval-00000.jsonl"
    assert figures == {"lines": 3, "files": 1, "bytes": task.store.size(path)}
    first, second, third = read(task.store, path)
    shown = first.pop("top")
    assert first == HEAD | {
        "query_id": "q0",
        "query": "eins",
        "kind": "buy",
        "hits": {"hit@1": True, "hit@5": True, "hit@10": True},
        "latency_ms": None,
    }
    assert len(shown) == 10, "of eleven hits"
    assert shown[:3] == [
        {"item_id": "i3", "title": "", "score": 0.9, "relevant": True},
        {"item_id": "i1", "title": "Title 1", "score": 0.82, "relevant": False},
        {"item_id": "i4", "title": "Title 4", "score": 0.74, "relevant": False},
    ]
    assert list(first)[:8] == [*HEAD, "query_id"], "what all lines say comes first"
    assert [hit["item_id"] for hit in second["top"]] == [f"i{n}" for n in range(1, 11)], "not the item that the query is"
    assert (second["query"], second["kind"], second["hits"]) == (
        "zwei „2“",
        None,
        {"hit@1": False, "hit@5": False, "hit@10": False},
    )
    assert third["hits"] == {"hit@1": None, "hit@5": None, "hit@10": None}, "nothing relevant is known: not a miss"
    before = task.store.read_bytes(path)
    _write(task)
    assert task.store.read_bytes(path) == before, "the same lines whenever they are written"
    assert task.store.read_json(INDEX) == {"files": [path]}


def test_files_are_bounded_in_size_and_number_and_the_oldest_go_first(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    bounds = {"file_bytes": 100, "kept_files": 3}
    for stage in ("baseline", "round-01"):
        log = EventLog(store, f"events/{stage}", **bounds)
        for number in range(8):
            log.add({"query": "x" * 20, "number": number})  # 47 bytes: two lines a file
        figures = log.close()
        assert figures == {"lines": 8, "files": 4, "bytes": 8 * 47}
        want = [f"events/{stage}/retrieval_eval-{number:05d}.jsonl" for number in (1, 2, 3)]
        assert store.read_json(INDEX) == {"files": want}
        assert sorted(store.list("events")) == sorted([INDEX, *want])
    log = EventLog(store, "events/long", **bounds)
    log.add({"query": "x" * 200})
    assert log.close()["files"] == 1, "a line that is larger than a file has one of its own"
    assert EventLog(store, "events/none", **bounds).close() == {"lines": 0, "files": 0, "bytes": 0}
