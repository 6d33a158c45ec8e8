"""An export of a finished run: what lies in it, nothing twice, killed anywhere and finished with the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import column_to_vectors
from jobs.record.record import RunRecord
from jobs.record.stages import Kind, ModelName
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run, live_command
from jobs.serving.export.stamp import LIVE, STAMP, open_home, read_stamp
from tests.jobs.serving.conftest import interrupted_after
from tests.support.shipped_run import DIMENSION, ShippedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return ShippedRun(tmp_path_factory.mktemp("runs") / "shop").write()


def content(store: Store, name: str) -> dict[str, bytes]:
    """Every file of an export but the one with times."""
    return {
        path: store.read_bytes(path) for path in store.list(name) if not path.endswith("choice.json") and not path.startswith(".")
    }


def test_an_export_holds_model_vectors_index_and_a_stamp(run: Store, tmp_path: Path) -> None:
    home = Store(str(tmp_path))
    exported = export_run(run, home, Budget())
    names = {path.removeprefix(f"{exported.name}/") for path in home.list(exported.name)}
    assert {"stamp.json", "index/index.faiss", "index/choice.json", "model/README.md", "model/model.safetensors"} <= names
    table = pq.read_table(tmp_path / exported.name / "items")
    assert table.column_names == ["id", "vector", "text", "title", "genre", "tags", "year"]
    assert table["id"].to_pylist() == [f"i{n}" for n in range(240)]
    record = RunRecord.read(run)
    vectors = next(v for v in record.vectors if v.key == record.expect(ModelName(1)).hits.inputs["vectors"])
    np.testing.assert_array_equal(column_to_vectors(table["vector"]), load_vectors(run, vectors.parts("corpus")))
    stamp = read_stamp(Store(home.url(exported.name)))
    assert (stamp.items, stamp.dimension, stamp.reads, stamp.dtype) == (240, DIMENSION, "texts", "float32")
    assert stamp.model.keys() == {"weights", "tokenizer", "prompts", "pooling", "architecture"}
    assert stamp.index == {"kind": "flat", "setting": 0, "recall": 1.0, "queries": 40, "megabytes": 0.0}
    assert stamp.run["label"] == "round 1"
    assert str(tmp_path) not in home.read_bytes(f"{exported.name}/{STAMP}").decode(), "a stamp names no address"


def test_the_same_export_is_there_already_and_another_model_lies_beside_it(run: Store, tmp_path: Path) -> None:
    home = Store(str(tmp_path))
    first = export_run(run, home, Budget())
    before = content(home, first.name)
    again = export_run(run, home, Budget())
    assert (again.name, again.kept, first.kept) == (first.name, True, False)
    base = export_run(run, home, Budget(), number=-1)
    assert base.name.startswith("shop-baseline-")
    assert content(home, first.name) == before, "an export never changes"
    assert (first.live, base.live) == (first.name, first.name), "the first one is live until somebody says otherwise"
    assert export_run(run, home, Budget(), number=-1, live=True).live == base.name
    assert live_command(home, first.name) == {"live": first.name, "before": base.name, "exports": sorted([first.name, base.name])}
    assert open_home(str(tmp_path)).root == home.url(first.name)


@pytest.mark.parametrize("writes", [1, 3, 7, 8, 9, 10, 11, 12])
def test_killed_at_any_write_the_same_command_ends_with_the_same_bytes(
    run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    whole = Store(str(tmp_path / "whole"))
    name = export_run(run, whole, Budget()).name
    home = Store(str(tmp_path / "killed"))
    with interrupted_after(writes, home.root, monkeypatch):
        export_run(run, home, Budget())
    if not home.exists(f"{name}/{STAMP}"):
        with pytest.raises(ConfigError, match=r"not finished|expected an export"):
            read_stamp(Store(home.url(name)))
    assert export_run(run, home, Budget()).name == name
    assert content(home, name) == content(whole, name)
    assert home.read_bytes(LIVE) == whole.read_bytes(LIVE)


def test_a_part_that_was_damaged_meanwhile_is_written_again(run: Store, tmp_path: Path) -> None:
    whole, home = Store(str(tmp_path / "whole")), Store(str(tmp_path / "damaged"))
    name = export_run(run, whole, Budget()).name
    export_run(run, home, Budget())
    home.delete(f"{name}/{STAMP}")  # as if it had been killed before its last write
    for path in ("items/part-00001.parquet", "index/index.faiss"):
        home.write_bytes(f"{name}/{path}", home.read_bytes(f"{name}/{path}")[:-5] + b"wrong")
    export_run(run, home, Budget())
    assert content(home, name) == content(whole, name)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_same_command_mends_an_export_that_was_damaged(run: Store, tmp_path: Path) -> None:
    whole, home = Store(str(tmp_path / "whole")), Store(str(tmp_path / "exports"))
    name = export_run(run, whole, Budget()).name
    folder = tmp_path / "exports" / export_run(run, home, Budget()).name
    for spoil in (
        lambda: flip(folder / "items/part-00001.parquet"),
        lambda: flip(folder / "index/index.faiss"),
        lambda: flip(folder / "model/model.safetensors"),
        lambda: flip(folder / "stamp.json"),
        (folder / "items/part-00002.parquet").unlink,
        (folder / "model/tokenizer.json").unlink,
        (folder / "index/choice.json").unlink,
    ):
        spoil()
        assert not export_run(run, home, Budget()).kept
        assert content(home, name) == content(whole, name)
    (folder / "model/README.md").write_text("# the licence is filled in\n")
    assert export_run(run, home, Budget()).kept
    assert (folder / "model/README.md").read_text() == "# the licence is filled in\n"


def test_an_export_lies_on_s3_too(run: Store, tmp_path: Path, s3_bucket: str, s3_endpoint: str) -> None:
    from cluster.storage.settings import StorageSettings

    local, remote = Store(str(tmp_path)), Store(f"{s3_bucket}/exports", StorageSettings(endpoint=s3_endpoint))
    name = export_run(run, local, Budget()).name
    export_run(run, remote, Budget())
    assert content(remote, name) == content(local, name)


def test_nothing_but_exports_lies_in_their_folder(run: Store, tmp_path: Path) -> None:
    (tmp_path / "photos" / "holiday").mkdir(parents=True)
    exported = export_run(run, Store(str(tmp_path / "exports")), Budget())
    for folder, words in (
        (str(tmp_path / "photos"), "found holiday in it"),
        (run.root, "the folder of a run"),
        (exported.path, "is an export itself"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_run(run, Store(folder), Budget())


def test_a_round_that_is_not_there_is_told_with_those_that_are(run: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--round 7: expected a round of this run, found -1, 1"):
        export_run(run, Store(str(tmp_path)), Budget(), number=7)


def test_vectors_that_are_gone_are_made_again_or_asked_for(tmp_path: Path) -> None:
    made = ShippedRun(tmp_path / "shop", items=40, queries=8)
    store, home = made.write(), Store(str(tmp_path / "exports"))
    record = RunRecord.read(store)
    vectors = next(v for v in record.vectors if v.key == record.expect(ModelName(1)).hits.inputs["vectors"])
    path, asked = vectors.parts("corpus")[0].path, list[ModelName]()
    data = store.read_bytes(path)
    store.delete(path)
    with pytest.raises(ArtifactError, match=r"found no commit of them.*hardmine embed CONFIG --round 1"):
        export_run(store, home, Budget())

    def again(name: ModelName) -> None:
        asked.append(name)
        store.write_bytes(path, data)

    export_run(store, home, Budget(), embed_again=again)
    assert asked == [ModelName(1)]
    store.write_bytes(path, data[:-3])
    export_run(store, Store(str(tmp_path / "other")), Budget(), embed_again=again)
    assert len(asked) == 2


def test_a_damaged_model_of_the_run_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    store = ShippedRun(tmp_path / "shop", items=40, queries=8).write()
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "another"))
    commit = RunRecord.read(store).find(Kind.FINISH)
    assert commit is not None
    path = next(path for path in commit.files if path.endswith("model.safetensors"))
    store.write_bytes(path, store.read_bytes(path)[:-4] + b"0000")
    with pytest.raises(DamagedObject, match="does not have the SHA-256"):
        export_run(store, Store(str(tmp_path / "exports")), Budget())
