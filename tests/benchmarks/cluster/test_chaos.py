"""What chaos remembers from one command to the next: outcomes, the undisturbed run of the same code, a run that was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.cluster.chaos import Record
from benchmarks.cluster.faulty_storage import FaultyStorage, faulty_storage
from benchmarks.cluster.small_runs import BUCKET, KEYS, Runs, digest_of
from cluster.storage.store import Store

ROW = {"run": "seed-1-1", "seed": 1, "kills": {"driver": 2, "node": 1}, "code": 0, "seconds": 9.0}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStorage]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with faulty_storage() as storage:
        yield storage


def runs(folder: Path, storage: FaultyStorage) -> Runs:
    nodes: Any = SimpleNamespace(variables={})
    return Runs(folder, nodes, storage)


def test_a_later_command_counts_on_and_takes_the_undisturbed_run_of_the_same_code(tmp_path: Path) -> None:
    record = Record(tmp_path / "chaos.jsonl")
    assert (record.kills, record.next_number(1), record.calm("a")) == (0, 1, None)
    record.add({"digest": "a", "seconds": 3.0, "artifacts": {"ingest": "1f"}})
    record.add(ROW)
    again = Record(tmp_path / "chaos.jsonl")
    assert (again.kills, again.next_number(1), again.next_number(2)) == (3, 2, 1)
    calm = again.calm("a")
    assert calm is not None
    assert calm["artifacts"] == {"ingest": "1f"}
    assert again.calm("b") is None, "other code may leave other bytes"


def test_a_run_that_was_cut_off_goes_on_with_what_it_has_stored(tmp_path: Path, storage: FaultyStorage) -> None:
    record, first = Record(tmp_path / "chaos.jsonl"), runs(tmp_path, storage)
    assert record.take(first, "seed-1-1") == {}
    first.store("seed-1-1").write_bytes("commits/ingest.json", b"{}")
    record.keep(first, ROW | {"code": None, "faults": ["driver"], "starts": 2})
    with faulty_storage() as other:
        later = runs(tmp_path, other)
        assert record.take(later, "seed-1-1")["faults"] == ["driver"]
        assert later.store("seed-1-1").read_bytes("commits/ingest.json") == b"{}"
        assert record.take(later, "seed-1-1") == {}, "it is taken once"


def test_objects_are_counted_and_beats_of_a_lease_are_not(tmp_path: Path, storage: FaultyStorage) -> None:
    mine = runs(tmp_path, storage)
    assert sorted(Store(f"s3://{BUCKET}/data", mine.settings).list()) == ["corpus.parquet", "qrels.parquet", "queries.parquet"]
    before, store = storage.writes, mine.store("run")
    store.write_bytes("part", b"1")
    store.write_bytes("writer.json", b"{}")
    assert storage.writes == before + 1


def test_times_and_notes_are_no_part_of_what_is_compared() -> None:
    figures = {"recall": 0.5, "seconds": 3.0, "notes": ["resumed"], "rounds": [{"work_seconds": 1, "steps": 4}]}
    assert digest_of(figures) == digest_of({"recall": 0.5, "rounds": [{"steps": 4}]})
    assert digest_of(figures) != digest_of(figures | {"recall": 0.6})
