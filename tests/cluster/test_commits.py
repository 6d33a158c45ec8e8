"""Commits: a stage runs once per key, its commit comes last, and what it left is checked before it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger, Outcome, digest
from cluster.errors import ArtifactError, ClusterError
from cluster.storage import Store
from cluster.tables import write_part


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def stage_work(store: Store, folders: list[str], rows: int = 3) -> Callable[[str], Outcome]:
    """Work that writes a table and a file and notes the folder it was given."""

    def work(folder: str) -> Outcome:
        folders.append(folder)
        part = write_part(store, f"{folder}/items/part-00000.parquet", pa.table({"row": list(range(rows))}))
        store.write_bytes(f"{folder}/note", b"1234")
        return Outcome({"items": [part]}, {f"{folder}/note": {"bytes": 4, "sha256": "x"}}, {"rows": rows}, 0.5)

    return work


def test_a_digest_does_not_depend_on_the_order_of_keys_but_on_every_value() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {})}) == 6


def test_the_same_key_is_skipped_and_another_key_runs_in_another_folder(store: Store) -> None:
    ledger, folders, skipped = Ledger(store), list[str](), list[Commit]()
    run = {"work": stage_work(store, folders), "folder": "round-01", "on_skip": skipped.append}
    first = ledger.stage("embed", inputs={"model": "m1"}, **run)
    again = ledger.stage("embed", inputs={"model": "m1"}, **run)
    assert (len(folders), skipped, again) == (1, [first], first)
    changed = ledger.stage("embed", inputs={"model": "m2"}, **run)
    assert len(folders) == len(set(folders)) == 2
    assert folders[1] == f"round-01/{changed.key}"
    assert len(store.list("round-01")) == 4  # nothing was overwritten
    assert ledger.find("embed") == changed
    assert ledger.find("embed", first.key) is None


def test_two_stages_with_equal_inputs_have_different_keys(store: Store) -> None:
    ledger = Ledger(store)
    keys = {ledger.stage(name, inputs={"a": 1}, work=lambda _: Outcome(), folder="f").key for name in ("x", "y")}
    assert len(keys) == 2


def test_a_commit_tells_tables_rows_figures_and_time(store: Store) -> None:
    commit = Ledger(store).stage("embed", inputs={"path": Path("a")}, work=stage_work(store, []), folder="f")
    found = Ledger(store).find("embed")
    assert found == commit
    assert (found.rows("items"), found.figures, found.inputs) == (3, {"rows": 3}, {"path": "a"})
    assert found.seconds["work"] == 0.5
    assert found.seconds["overhead"] == 0.0
    with pytest.raises(ArtifactError, match=r"holds the tables \['items'\], not 'hits'"):
        found.parts("hits")


def test_work_that_fails_leaves_no_commit(store: Store) -> None:
    def fail(_: str) -> Outcome:
        raise ClusterError("gone")

    ledger = Ledger(store)
    with pytest.raises(ClusterError):
        ledger.stage("embed", inputs={}, work=fail, folder="f")
    assert (ledger.find("embed"), ledger.all()) == (None, [])


def test_a_driver_that_lost_the_run_commits_nothing(store: Store) -> None:
    def lost() -> None:
        raise ClusterError("this driver lost the run")

    with pytest.raises(ClusterError, match="lost"):
        Ledger(store, check_owner=lost).stage("embed", inputs={}, work=stage_work(store, []), folder="f")
    assert Ledger(store).all() == []


@pytest.mark.parametrize("name", ["note", "items/part-00000.parquet"])
def test_an_object_that_is_gone_or_has_another_size_is_found_before_the_stage_is_skipped(store: Store, name: str) -> None:
    ledger = Ledger(store)
    run: dict[str, Any] = {"inputs": {}, "work": stage_work(store, []), "folder": "f"}
    path = f"f/{ledger.stage('embed', **run).key}/{name}"
    store.write_bytes(path, store.read_bytes(path) + b"!")
    with pytest.raises(ArtifactError, match=r"bytes, but commit embed recorded \d+ bytes.*commits/embed\.json"):
        ledger.stage("embed", **run)
    store.delete(path)
    with pytest.raises(ArtifactError, match="is missing, but commit embed"):
        ledger.stage("embed", **run)
    store.delete("commits/embed.json")  # what the message says to do
    ledger.verify(ledger.stage("embed", **run))


def test_a_commit_of_another_version_is_refused(store: Store) -> None:
    for value in ({"name": "embed", "key": "k", "inputs": {}, "colour": "red"}, {"name": "embed"}):
        store.write_json("commits/embed.json", value)
        with pytest.raises(ArtifactError, match="another version of hardmine"):
            Ledger(store).find("embed")


def test_all_commits_come_oldest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([30.0, 10.0, 20.0])
    monkeypatch.setattr("cluster.commits.time.time", lambda: next(times))
    for name in ("a", "b", "c"):
        Ledger(store).stage(name, inputs={}, work=lambda _: Outcome(), folder="f")
    assert [commit.name for commit in Ledger(store).all()] == ["b", "c", "a"]
