"""Model folders: what is fetched is what was uploaded, or it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.errors import ArtifactError, ConfigError
from cluster.storage import model_folders as folders
from cluster.storage.digests import sha256
from cluster.storage.model_folders import Manifest, fetch_folder, folder_digest, upload_folder
from cluster.storage.store import Store

FILES = {"config.json": b"{}", "weights/model.bin": b"w" * 1000, "empty": b""}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


@pytest.fixture
def manifest(tmp_path: Path, store: Store) -> Manifest:
    for name, data in FILES.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(data)
    return upload_folder(tmp_path / "model", store, "models/m1")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_uploaded_is_fetched(store: Store, manifest: Manifest) -> None:
    assert manifest["models/m1/weights/model.bin"] == {"bytes": 1000, "sha256": sha256(b"w" * 1000)}
    assert content(fetch_folder(store, manifest, "models/m1")) == FILES
    assert content(fetch_folder(store, manifest, "models/m1/")) == FILES


def test_a_folder_is_fetched_once_per_node(store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_folder(store, manifest, "models/m1")
    monkeypatch.setattr(Store, "read_bytes", None)
    assert fetch_folder(store, manifest, "models/m1") == first


def test_of_several_processes_that_want_a_folder_at_once_one_fetches_it(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Path] = []
    read, fetched = Store.read_bytes, list[str]()

    def slowly(self: Store, path: str) -> bytes:
        fetched.append(path)
        time.sleep(0.05)
        return read(self, path)

    monkeypatch.setattr(Store, "read_bytes", slowly)

    def fetch() -> None:
        got.append(fetch_folder(store, manifest, "models/m1"))

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    assert sorted(fetched) == sorted(manifest), "each file once"
    assert content(got[0]) == FILES
    assert [path.name for path in got[0].parent.iterdir()] == [got[0].name]  # no litter


def test_a_tampered_file_is_refused_and_nothing_of_it_stays(store: Store, manifest: Manifest, tmp_path: Path) -> None:
    store.write_bytes("models/m1/weights/model.bin", b"v" * 1000)  # the same size
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"models/m1/weights/model\.bin does not have the SHA-256"):
            fetch_folder(store, manifest, "models/m1")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cached_folder_that_was_damaged_or_thinned_out_is_fetched_anew(store: Store, manifest: Manifest) -> None:
    folder = fetch_folder(store, manifest, "models/m1")
    (folder / "weights/model.bin").write_bytes(b"w" * 999 + b"v")
    assert content(fetch_folder(store, manifest, "models/m1")) == FILES
    (folder / "config.json").unlink()  # as a cleaner of temporary folders does
    assert fetch_folder(store, manifest, "models/m1") == folder
    assert content(folder) == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_process_half_fetched_is_removed_after_hours(store: Store, manifest: Manifest, tmp_path: Path) -> None:
    old, new = tmp_path / "cache/.0123.aa", tmp_path / "cache/.0123.bb"
    for partial in (old, new):
        partial.mkdir(parents=True)
    os.utime(old, (time.time() - folders.STALE_S - 60,) * 2)
    fetch_folder(store, manifest, "models/m1")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_file_that_was_damaged_on_the_way_is_fetched_once_more(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, fetched = Store.read_bytes, list[str]()

    def damaged_once(self: Store, path: str) -> bytes:
        fetched.append(path)
        data = read(self, path)
        return data if fetched.count(path) > 1 else data + b"!"

    monkeypatch.setattr(Store, "read_bytes", damaged_once)
    assert content(fetch_folder(store, manifest, "models/m1")) == FILES
    assert len(fetched) == 2 * len(FILES)


def test_a_missing_file_is_told(store: Store, manifest: Manifest) -> None:
    store.delete("models/m1/empty")
    with pytest.raises(ArtifactError, match="models/m1/empty: there is no such object"):
        fetch_folder(store, manifest, "models/m1")


def test_a_folder_that_the_manifest_does_not_hold_is_refused(store: Store, manifest: Manifest) -> None:
    with pytest.raises(ArtifactError, match=r"expected files below .*/models/m, but its commit lists none"):
        fetch_folder(store, manifest, "models/m")


def test_the_digest_follows_names_and_content_but_not_the_place(tmp_path: Path, store: Store, manifest: Manifest) -> None:
    elsewhere = upload_folder(tmp_path / "model", store, "other/place")
    want = folder_digest(manifest, "models/m1")
    assert folder_digest(elsewhere, "other/place/") == want
    assert folder_digest({**manifest, **elsewhere}, "models/m1") == want
    (tmp_path / "model" / "empty").write_bytes(b"!")
    assert folder_digest(upload_folder(tmp_path / "model", store, "models/m2"), "models/m2") != want


def test_what_a_process_fetched_goes_with_it(store: Store, manifest: Manifest, tmp_path: Path) -> None:
    code = (
        "import json, sys;"
        "from cluster.storage.model_folders import fetch_folder; from cluster.storage.store import Store;"
        "folder = fetch_folder(Store(sys.argv[1]), json.loads(sys.argv[2]), 'models/m1');"
        "print((folder / 'config.json').exists())"
    )
    (tmp_path / "tmp").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "HARDMINE_CACHE"}
    done = subprocess.run(
        [sys.executable, "-c", code, store.root, json.dumps(manifest)],
        cwd=Path(__file__).parents[3],
        env=environment | {"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_cache_of_another_user_is_refused(store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(ConfigError, match="set HARDMINE_CACHE"):
        fetch_folder(store, manifest, "models/m1")
