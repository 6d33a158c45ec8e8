"""`retrieval_eval` events: what a line says, and files of bounded size and number."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError
from cluster.storage import Store
from cluster.tables import Part, part_name, write_part
from jobs.config.config import parse_config
from jobs.config.evaluation import EventSettings
from jobs.config.toml import to_toml
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
    return EventTask(
        store,
        "events/round-01/key",
        write(store, "hits", hits, 2),
        write(store, "corpus", items, 5),
        write(store, "queries", queries, 3),
        write(store, "labels", labels, 9),
        EventSettings(k=3),
        HEAD,
    )


def read(store: Store, path: str) -> list[dict[str, Any]]:
    data = store.read_bytes(path)
    return [json.loads(line) for line in (gzip.decompress(data) if path.endswith(".gz") else data).decode().split("\n")[:-1]]


def test_a_line_for_each_evaluated_query(task: EventTask) -> None:
    figures = _write(task).figures
    path = "events/round-01/key/retrieval_eval-00000.jsonl"
    assert figures == {"lines": 3, "files": 1, "bytes": task.store.size(path)}
    first, second, third = read(task.store, path)
    assert first == HEAD | {
        "query_id": "q0",
        "query": "eins",
        "kind": "buy",
        "top": [
            {"item_id": "i3", "title": "", "score": 0.9, "relevant": True},
            {"item_id": "i1", "title": "Title 1", "score": 0.82, "relevant": False},
            {"item_id": "i4", "title": "Title 4", "score": 0.74, "relevant": False},
        ],
        "hits": {"hit@1": True, "hit@5": True, "hit@10": True},
        "latency_ms": None,
    }
    assert list(first)[:8] == [*HEAD, "query_id"], "what all lines say comes first"
    assert [hit["item_id"] for hit in second["top"]] == ["i1", "i2", "i3"], "not the item that the query is"
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


def test_packed_lines_are_the_same(task: EventTask) -> None:
    _write(task)
    _write(replace(task, folder="events/packed", settings=EventSettings(k=3, gzip=True)))
    plain, packed = task.store.read_json(INDEX)["files"]
    assert packed.endswith(".jsonl.gz")
    assert read(task.store, packed) == read(task.store, plain)


def test_files_are_bounded_in_size_and_number_and_the_oldest_go_first(tmp_path: Path) -> None:
    store, settings = Store(str(tmp_path)), EventSettings(max_mib=100 / 2**20, keep=3)
    for stage in ("baseline", "round-01"):
        log = EventLog(store, f"events/{stage}", settings)
        for number in range(8):
            log.add({"query": "x" * 20, "number": number})  # 47 bytes: two lines a file
        figures = log.close()
        assert figures == {"lines": 8, "files": 4, "bytes": 8 * 47}
        want = [f"events/{stage}/retrieval_eval-{number:05d}.jsonl" for number in (1, 2, 3)]
        assert store.read_json(INDEX) == {"files": want}
        assert sorted(store.list("events")) == sorted([INDEX, *want])
    log = EventLog(store, "events/long", settings)
    log.add({"query": "x" * 200})
    assert log.close()["files"] == 1, "a line that is larger than a file has one of its own"
    assert EventLog(store, "events/none", settings).close() == {"lines": 0, "files": 0, "bytes": 0}


@pytest.mark.parametrize(
    ("value", "want"),
    [(True, EventSettings()), (False, None), ({"k": 5, "gzip": True}, EventSettings(k=5, gzip=True)), ({}, EventSettings())],
)
def test_a_switch_or_a_section(value: Any, want: EventSettings | None) -> None:
    base = {"name": "a", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}}
    config = parse_config(base | {"evaluation": {"events": value}}, source="test")
    assert config.evaluation.events == want
    assert ("[evaluation.events]" in to_toml(config)) == (want is not None), "and it reads back"


def test_more_results_than_hits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.events\.k = 50 results cannot come from evaluation\.num_hits = 20"):
        parse_config(
            {
                "name": "a",
                "output": "/runs",
                "data": {"folder": "/beir"},
                "encoder": {"kind": "static"},
                "evaluation": {"num_hits": 20, "events": {"k": 50}},
            },
            source="test",
        )
