"""Commits: a stage runs once per key, its commit comes last, and what it left is checked before it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger, Outcome, digest, until_whole
from cluster.errors import ArtifactError, ClusterError, DamagedObject
from cluster.storage.digests import described
from cluster.storage.records import write_record
from cluster.storage.store import Store
from cluster.tables.tables import read_parts, write_part


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def stage_work(store: Store, folders: list[str], rows: int = 3) -> Callable[[str], Outcome]:
    """Work that writes a table and a file and notes the folder it was given."""

    def work(folder: str) -> Outcome:
        folders.append(folder)
        part = write_part(store, f"{folder}/items/part-00000.parquet", pa.table({"row": list(range(rows))}))
        store.write_bytes(f"{folder}/note", b"1234")
        return Outcome({"items": [part]}, {f"{folder}/note": described(b"1234")}, {"rows": rows}, 0.5)

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


def test_scratch_goes_after_the_commit_and_never_by_a_driver_that_lost_the_run(store: Store) -> None:
    def work(folder: str) -> Outcome:
        store.write_bytes(f"{folder}/ids/bucket", b"read by whoever does the work again")
        return Outcome(scratch=(f"{folder}/ids", f"{folder}/never-written"))

    def lost() -> None:
        raise ClusterError("another driver has the run")

    with pytest.raises(ClusterError, match="another driver"):
        Ledger(store, check_owner=lost).stage("ingest", inputs={}, work=work, folder="ingest")
    assert [path.rsplit("/", 2)[1:] for path in store.list("ingest")] == [["ids", "bucket"]]
    assert Ledger(store).stage("ingest", inputs={}, work=work, folder="ingest").name == "ingest"
    assert not store.list("ingest")


def test_a_driver_that_lost_the_run_commits_nothing(store: Store) -> None:
    def lost() -> None:
        raise ClusterError("this driver lost the run")

    with pytest.raises(ClusterError, match="lost"):
        Ledger(store, check_owner=lost).stage("embed", inputs={}, work=stage_work(store, []), folder="f")
    assert Ledger(store).all() == []


OBJECTS = ["note", "items/part-00000.parquet"]


def spoil(store: Store, path: str, how: str) -> None:
    """Delete an object, make it longer, or flip one bit of it."""
    data = store.read_bytes(path)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    store.delete(path) if how == "gone" else store.write_bytes(path, data + b"!" if how == "longer" else bytes(flipped))


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("how", ["gone", "longer"])
def test_a_stage_whose_object_is_gone_or_has_another_size_is_made_anew_with_one_line(store: Store, name: str, how: str) -> None:
    lines, folders = list[str](), list[str]()
    ledger = Ledger(store, say=lines.append)
    run: dict[str, Any] = {"inputs": {}, "work": stage_work(store, folders), "folder": "f"}
    commit = ledger.stage("embed", **run)
    before = {path: store.read_bytes(path) for path in store.list("f")}
    spoil(store, f"f/{commit.key}/{name}", how)
    with pytest.raises(DamagedObject, match=f"{name} .*commit embed"):
        ledger.verify(commit)
    assert ledger.stage("embed", **run).key == commit.key
    assert len(folders) == 2
    assert {path: store.read_bytes(path) for path in store.list("f")} == before
    (line,) = lines
    assert line.startswith("! ")
    assert name in line
    assert "done now" in line


@pytest.mark.parametrize("name", OBJECTS)
def test_one_flipped_bit_is_found_in_the_content_and_not_in_the_size(store: Store, name: str) -> None:
    ledger = Ledger(store)
    commit = ledger.stage("embed", inputs={}, work=stage_work(store, []), folder="f")
    ledger.verify(commit, content=True)
    spoil(store, f"f/{commit.key}/{name}", "flipped")
    ledger.verify(commit)
    with pytest.raises(DamagedObject, match=name):
        ledger.verify(commit, content=True)
    assert [path for path, _ in ledger.problems(commit, content=True)] == [f"f/{commit.key}/{name}"]


def test_what_a_later_stage_finds_damaged_is_made_anew_and_the_driver_goes_on(store: Store) -> None:
    lines, folders = list[str](), list[str]()
    ledger = Ledger(store, say=lines.append)

    def drive() -> int:
        commit = ledger.stage("embed", inputs={}, work=stage_work(store, folders), folder="f")
        try:
            return read_parts(store, commit.parts("items")).num_rows
        except DamagedObject as error:
            raise RuntimeError("a worker failed") from error  # as deep as Ray may wrap it

    drive()
    before = {path: store.read_bytes(path) for path in store.list("f")}
    part = next(path for path in before if path.endswith(".parquet"))
    spoil(store, part, "flipped")
    assert until_whole(ledger, drive) == 3
    assert len(folders) == 2, "made once, and once more"
    assert {path: store.read_bytes(path) for path in store.list("f")} == before
    assert [part in line for line in lines] == [True]


def test_an_object_that_is_damaged_again_and_again_ends_the_driver(store: Store) -> None:
    ledger, tries = Ledger(store), []

    def drive() -> None:
        tries.append(1)
        commit = ledger.stage("embed", inputs={}, work=stage_work(store, []), folder="f")
        spoil(store, commit.parts("items")[0].path, "flipped")
        read_parts(store, commit.parts("items"))

    with pytest.raises(DamagedObject, match=r"part-00000\.parquet"):
        until_whole(ledger, drive)
    assert len(tries) == 2


def test_nothing_outside_the_run_is_ever_set_aside(store: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "other"))
    run = Store(str(tmp_path / "run"))
    part = write_part(other, "x.parquet", pa.table({"n": [1]}))
    spoil(other, part.path, "flipped")
    with pytest.raises(DamagedObject, match="other/x"):
        until_whole(Ledger(run), lambda: read_parts(other, [part]))
    assert other.exists("x.parquet")


def test_an_edited_commit_is_told_and_its_stage_is_made_anew(store: Store) -> None:
    lines, folders = list[str](), list[str]()
    ledger = Ledger(store, say=lines.append)
    run: dict[str, Any] = {"inputs": {}, "work": stage_work(store, folders), "folder": "f"}
    ledger.stage("embed", **run)
    whole = store.read_bytes("commits/embed.json")
    for edited in (whole.replace(b'"rows": 3', b'"rows": 4'), b"[]", b"{", b'{"name": "embed"}', whole[:-1] + b',"colour": 1}'):
        store.write_bytes("commits/embed.json", edited)
        with pytest.raises(DamagedObject, match=r"commits/embed\.json is not what"):
            ledger.find("embed")
        with pytest.raises(DamagedObject, match=r"commits/embed\.json is not what"):
            ledger.all()
        assert ledger.stage("embed", **run).figures == {"rows": 3}
    assert len(folders) == 6
    assert all("commits/embed.json" in line for line in lines)


def test_a_commit_of_another_version_is_refused(store: Store) -> None:
    for value in ({"name": "embed", "key": "k", "inputs": {}, "colour": "red"}, {"name": "embed"}):
        write_record(store, "commits/embed.json", value)
        with pytest.raises(ArtifactError, match="another version of hardmine"):
            Ledger(store).find("embed")


def test_all_commits_come_oldest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([30.0, 10.0, 20.0])
    monkeypatch.setattr("cluster.commits.time.time", lambda: next(times))
    for name in ("a", "b", "c"):
        Ledger(store).stage(name, inputs={}, work=lambda _: Outcome(), folder="f")
    assert [commit.name for commit in Ledger(store).all()] == ["b", "c", "a"]
