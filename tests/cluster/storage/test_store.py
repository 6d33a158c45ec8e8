"""A local folder and a real S3 endpoint behave alike; what can go wrong is told in one paragraph."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ArtifactError, ClusterError, ConfigError
from cluster.storage.s3 import open_s3
from cluster.storage.settings import StorageSettings
from cluster.storage.store import PARTIAL, Store, is_s3, join
from cluster.storage.usable import check_reachable, check_writable

CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "run"))
    bucket: str = request.getfixturevalue("s3_bucket")
    return Store(f"{bucket}/run", StorageSettings(endpoint=request.getfixturevalue("s3_endpoint")))


@pytest.fixture
def s3_store(s3_bucket: str, s3_endpoint: str) -> Store:
    return Store(f"{s3_bucket}/run", StorageSettings(endpoint=s3_endpoint))


def one_paragraph(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_is_written_is_read_back_and_replaced_by_the_next_write(store: Store) -> None:
    store.write_bytes("a/b/x", b"first")
    store.write_bytes("a/b/x", b"")
    assert store.read_bytes("a/b/x") == b""
    store.write_bytes("a/b/x", b"second")
    assert store.read_bytes("a/b/x") == b"second"
    assert store.size("a/b/x") == 6


def test_list_gives_sorted_addresses_below_a_folder_and_not_below_its_namesakes(store: Store) -> None:
    for path, data in {"a/2": b"22", "a/1": b"1", "a/deep/3": b"333", "ab/4": b"4444", "top": b""}.items():
        store.write_bytes(path, data)
    assert list(store.list("a").items()) == [("a/1", 1), ("a/2", 2), ("a/deep/3", 3)]
    assert store.list() == {"a/1": 1, "a/2": 2, "a/deep/3": 3, "ab/4": 4, "top": 0}
    assert store.list("nothing") == {}


def test_a_listing_sees_what_another_process_wrote_a_moment_ago(store: Store) -> None:
    assert store.list("a") == {}
    other: Store = pickle.loads(pickle.dumps(store))
    other.write_bytes("a/x", b"1")
    assert store.list("a") == {"a/x": 1}
    assert store.exists("a/x")


def test_a_listing_of_a_disk_follows_symbolic_links(tmp_path: Path) -> None:
    """Folders of links are how DVC, git-annex and the Hugging Face cache keep data and models."""
    (tmp_path / "there/deep").mkdir(parents=True)
    (tmp_path / "there/deep/file").write_bytes(b"four")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/own").write_bytes(b"1")
    for name, target in (("file", "../there/deep/file"), ("folder", "../there"), ("up", ".."), ("none", "nowhere"), ("a", "a")):
        (tmp_path / "here" / name).symlink_to(target)
    os.mkfifo(tmp_path / "here/pipe")
    want = {"a": 0, "file": 4, "folder/deep/file": 4, "none": 0, "own": 1, "up/there/deep/file": 4}
    assert Store(str(tmp_path / "here")).list() == want, "without the pipe, and up/here is where we came from"
    with pytest.raises(ArtifactError, match="none: there is no such object"):
        Store(str(tmp_path / "here")).read_bytes("none")
    with pytest.raises(ConfigError, match=r"symbolic links.*fix the address, or the link"):
        Store(str(tmp_path / "here")).read_bytes("a")


def test_an_address_that_no_disk_has_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name too long.*fix the address"):
        Store(str(tmp_path)).write_bytes("x" * 300, b"")
    with pytest.raises(ConfigError, match="without NUL characters"):
        Store(f"{tmp_path}/a\0b")


def test_size_and_exists_tell_objects_from_folders_and_from_nothing(store: Store) -> None:
    store.write_bytes("a/x", b"12")
    assert (store.size("a/x"), store.size("a"), store.size("b")) == (2, None, None)
    assert (store.exists("a/x"), store.exists("a"), store.exists("b")) == (True, True, False)


def test_delete_removes_objects_and_folders_and_forgives_what_is_gone(store: Store) -> None:
    for path in ("a/x", "a/y", "b/z"):
        store.write_bytes(path, b"1")
    store.delete("a")
    store.delete("b/z")
    store.delete("b/z")
    assert store.list() == {}


def test_a_folder_into_which_somebody_still_writes_is_deleted_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, late, rmdir = Store(str(tmp_path)), ["busy/late", "busy/later"], os.rmdir
    store.write_bytes("busy/x", b"1")

    def while_it_is_emptied(*arguments: Any, **options: Any) -> None:
        if late:
            (tmp_path / late.pop(0)).write_bytes(b"1")
        rmdir(*arguments, **options)

    monkeypatch.setattr(os, "rmdir", while_it_is_emptied)
    store.delete("busy")
    assert not late
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("cluster.storage.store.BUSY_FOLDER_S", 0.0)
    store.write_bytes("busy/x", b"1")
    late.append("busy/late")
    with pytest.raises(ClusterError, match=r"cannot delete .*busy"):
        store.delete("busy")


def test_create_is_exclusive(store: Store) -> None:
    assert store.create("lease", b"first")
    assert not store.create("lease", b"second")
    assert store.read_bytes("lease") == b"first"


def test_of_many_creators_at_once_exactly_one_wins_and_the_object_is_whole(store: Store) -> None:
    stores = [pickle.loads(pickle.dumps(store)) for _ in range(3)]
    won: list[bytes] = []

    def create(number: int) -> None:
        data = str(number).encode() * 50_000
        if stores[number].create("lease", data):
            won.append(data)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read_bytes("lease")]


def test_json_comes_back_and_damage_is_told(store: Store) -> None:
    store.write_json("a.json", {"ä": [1, None, 2.5]})
    assert store.read_json("a.json") == {"ä": [1, None, 2.5]}
    store.write_bytes("a.json", b"{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        store.read_json("a.json")


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.read_bytes("a/x"),
        lambda store: store.read_json("a/x"),
        lambda store: store.open("a/x"),
        lambda store: store.fingerprint("a/x"),
    ],
)
def test_a_missing_object_is_an_artifact_error_with_its_address(store: Store, use: Callable[[Store], Any]) -> None:
    store.write_bytes("other", b"1")
    with pytest.raises(ArtifactError) as error:
        use(store)
    assert f"{store.root}/a/x" in one_paragraph(error)


def test_a_stream_and_a_fingerprint_follow_the_content(store: Store) -> None:
    store.write_bytes("x", b"content")
    with store.open("x") as stream:
        assert stream.read(4) == b"cont"
    before = store.fingerprint("x")
    store.write_bytes("y", b"content")
    assert store.fingerprint("y") == before
    store.write_bytes("x", b"kontent")
    assert store.fingerprint("x") != before


def test_check_writable_leaves_nothing(store: Store) -> None:
    check_writable(store)
    assert store.list() == {}


def test_check_reachable_writes_nothing(store: Store, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check_reachable(Store(f"{store.root}/deep/run", store.settings))
    assert store.list() == {}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_above_the_folder_is_found_without_writing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(ConfigError, match="a file where a folder"):
        check_reachable(Store(str(tmp_path / "file" / "run")))


def test_a_store_can_be_pickled_after_use(store: Store) -> None:
    store.write_bytes("x", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.root, copy.settings, copy.read_bytes("x")) == (store.root, store.settings, b"1")


def test_local_readers_never_see_half_an_object(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    whole = {bytes([65 + number]) * 400_000 for number in range(2)}
    store.write_bytes("x", next(iter(whole)))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in whole:
                store.write_bytes("x", data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(store.read_bytes("x") in whole for _ in range(50))
    finally:
        stop.set()
        writer.join()


def test_a_local_write_that_fails_leaves_the_old_object_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("x", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ClusterError, match="No space left"):
        store.write_bytes("x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert store.read_bytes("x") == b"old"


def test_a_local_file_that_is_being_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".killed{PARTIAL}").write_bytes(b"half")
    assert Store(str(tmp_path)).list() == {}


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="a folder where a file should be"):
        Store(str(tmp_path / "file")).write_bytes("x", b"1")
    with pytest.raises(ConfigError, match="a folder where a file should be"):
        Store(str(tmp_path)).read_bytes("folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_without_talk_of_keys(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ClusterError, match="permissions of the folder"):
        check_writable(Store(str(tmp_path)))
    with pytest.raises(ClusterError, match="permissions of the folder"):
        check_reachable(Store(str(tmp_path / "run")))


def test_other_storages_and_keys_in_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a local folder or s3://"):
        Store("gs://bucket/run")
    with pytest.raises(ConfigError, match="must not hold keys") as error:
        Store("s3://AKIA:topsecret@bucket/run")
    assert "topsecret" not in str(error.value)


def test_addresses_are_joined_with_single_slashes() -> None:
    assert join("s3://bucket/", "/a/", "b", "") == "s3://bucket/a/b"
    assert Store("s3://bucket/run/").url("a/b") == "s3://bucket/run/a/b"
    assert is_s3("s3://bucket")
    assert not is_s3("/s3")


@pytest.mark.parametrize(
    "use",
    [
        check_writable,
        check_reachable,
        lambda store: store.read_bytes("x"),
        lambda store: store.list("x"),
        lambda store: store.create("x", b""),
    ],
)
def test_a_missing_bucket_is_a_config_error(s3_endpoint: str, use: Callable[[Store], Any]) -> None:
    with pytest.raises(ConfigError, match="the bucket does not exist; create it first") as error:
        use(Store("s3://no-such-bucket/run", StorageSettings(endpoint=s3_endpoint)))
    assert "s3://no-such-bucket/run" in one_paragraph(error)


def test_a_wrong_endpoint_is_told_within_seconds(s3_endpoint: str) -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"at http://127\.0\.0\.1:9 after 2 attempts.*check storage\.") as error:
        check_writable(Store("s3://bucket/run", StorageSettings(endpoint=CLOSED_PORT)))
    with pytest.raises(ClusterError, match="after 2 attempts"):
        check_reachable(Store("s3://bucket/run", StorageSettings(endpoint=CLOSED_PORT)))
    assert time.monotonic() - started < 12
    one_paragraph(error)


def test_missing_credentials_are_the_users_to_mend(s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for check in (check_writable, check_reachable):
        with pytest.raises(ConfigError, match=r"no usable credentials.*AWS_ACCESS_KEY_ID") as error:
            check(Store(s3_bucket, StorageSettings(endpoint=s3_endpoint)))
        one_paragraph(error)
        with pytest.raises(ConfigError, match="no usable credentials"):
            check(Store(s3_bucket, StorageSettings(endpoint=s3_endpoint, profile="unknown")))


def test_no_key_travels_with_a_store_or_its_arrow_file_system(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "MARKER-of-a-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MARKER-of-a-key")
    store = Store(s3_bucket, StorageSettings(endpoint=s3_endpoint))
    check_writable(store)
    filesystem, _ = store.arrow_filesystem()
    assert filesystem is not None
    filesystem.get_file_info(store.root.removeprefix("s3://"))
    for thing in (store, filesystem):
        assert b"MARKER" not in pickle.dumps(thing)
        assert "MARKER" not in repr(thing) + str(vars(thing) if hasattr(thing, "__dict__") else "")


def test_the_arrow_file_system_reads_and_writes_what_the_store_does(s3_store: Store) -> None:
    filesystem, root = s3_store.arrow_filesystem()
    pq.write_table(pa.table({"n": [1, 2, 3]}), f"{root}/t.parquet", filesystem=filesystem)
    assert list(s3_store.list()) == ["t.parquet"]
    copy = pickle.loads(pickle.dumps(filesystem))
    assert pq.read_table(f"{root}/t.parquet", filesystem=copy)["n"].to_pylist() == [1, 2, 3]


def test_a_named_profile_serves_the_store_and_its_arrow_file_system(
    s3_bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = MARKER\naws_secret_access_key = MARKER\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = Store(s3_bucket, StorageSettings(endpoint=s3_endpoint, profile="mine"))
    filesystem, root = store.arrow_filesystem()
    pq.write_table(pa.table({"n": [1]}), f"{root}/t.parquet", filesystem=filesystem)
    assert store.size("t.parquet")
    assert b"MARKER" not in pickle.dumps(filesystem)


def test_a_process_reads_the_descriptions_of_s3_once_for_all_its_file_systems() -> None:
    one, other = (open_s3(StorageSettings()).session for _ in range(2))
    assert one is not other, "each has its own credentials"
    assert one.get_component("data_loader") is other.get_component("data_loader")


def test_a_local_store_needs_no_arrow_file_system(tmp_path: Path) -> None:
    assert Store(str(tmp_path)).arrow_filesystem() == (None, str(tmp_path))


def test_endpoint_and_region_come_from_the_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert (StorageSettings().resolved_endpoint(), StorageSettings().resolved_region()) == (None, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert (StorageSettings().resolved_endpoint(), StorageSettings().resolved_region()) == ("http://all", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert (StorageSettings().resolved_endpoint(), StorageSettings().resolved_region()) == ("http://s3", "eu-west-2")
    assert StorageSettings(endpoint="http://set").resolved_endpoint() == "http://set"


@pytest.mark.parametrize("root", ["out\0put", "out\nput", "s3://bucket/out\0put"])
def test_control_characters_in_an_address_are_refused(root: str) -> None:
    with pytest.raises(ConfigError, match="without NUL characters and line breaks"):
        Store(root)


def test_what_killed_writers_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a/b/x.parquet", b"1")
    store.write_bytes("a/y.partial", b"1")  # a name that someone may have chosen
    for name in ("a/.0123456789ab.partial", "a/b/.ba9876543210.partial"):
        (tmp_path / name).write_bytes(b"half")
    assert store.sweep() == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["x.parquet", "y.partial"]
    assert store.sweep() == 0
    assert Store("s3://bucket/run").sweep() == 0
