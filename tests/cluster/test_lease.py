"""One run has one writer: refused while the other beats, taken over where it is dead, noticed by the one that lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import lease as module
from cluster.errors import ClusterError, ConfigError, StorageError
from cluster.lease import PATH, Lease, Owner
from cluster.storage.conditional import read_version, replace
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store

BEAT_S = 0.05
WATCH_S = 0.4


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", BEAT_S)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def leave(store: Store, *, host: str = "another-host", pid: int = 1, token: str = "theirs", beat: int = 4) -> None:
    store.write_bytes(PATH, json.dumps(vars(Owner(token, host, pid, time.time() - 300, beat))).encode())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_is_held_beats_and_is_given_back(store: Store) -> None:
    with Lease(store) as lease:
        lease.check()
        first = store.read_json(PATH)
        assert first["token"] == lease.owner.token
        deadline = time.monotonic() + 5
        while store.read_json(PATH)["beat"] == first["beat"] and time.monotonic() < deadline:
            time.sleep(BEAT_S)
        assert store.read_json(PATH)["beat"] > first["beat"]
        lease.check()
    assert not store.exists(PATH)
    with Lease(store):
        pass


def test_a_second_writer_is_refused_while_the_first_one_beats(store: Store) -> None:
    with Lease(store) as lease:
        with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .*one writer.*--takeover") as error:
            Lease(store, watch_s=5).__enter__()
        assert "\n" not in str(error.value)
        lease.check()  # and the first one is not disturbed
    assert not store.exists(PATH)


def test_a_dead_process_of_this_host_is_taken_over_at_once(store: Store) -> None:
    leave(store, host=Owner.here().host, pid=dead_pid())
    started = time.monotonic()
    with Lease(store, watch_s=60) as lease:
        assert time.monotonic() - started < 5
        lease.check()


def test_a_zombie_of_this_host_counts_as_dead(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but nobody took its exit status
    leave(store, host=Owner.here().host, pid=process.pid)
    started = time.monotonic()
    with Lease(store, watch_s=60) as lease:
        assert time.monotonic() - started < 5
        lease.check()
    process.wait()


@pytest.mark.parametrize("host", ["another-host", None])
def test_a_beat_that_stands_still_is_taken_over_after_watching(store: Store, host: str | None) -> None:
    leave(store, host=host or Owner.here().host, pid=os.getpid())
    started = time.monotonic()
    with Lease(store, watch_s=WATCH_S) as lease:
        assert time.monotonic() - started >= WATCH_S
        lease.check()


def test_an_owner_that_finishes_while_watched_is_followed(store: Store) -> None:
    leave(store)
    timer = threading.Timer(0.15, lambda: store.delete(PATH))
    timer.start()
    with Lease(store, watch_s=30) as lease:
        lease.check()


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_of_several_drivers_that_want_a_dead_ones_lease_one_gets_it(
    where: str, tmp_path: Path, s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60)
    root = str(tmp_path) if where == "disk" else f"{s3_bucket}/run"
    store = Store(root, StorageSettings(endpoint=s3_endpoint))
    leave(store)
    start, refused, leases = threading.Barrier(4), [], []

    def drive() -> None:
        lease = Lease(Store(root, store.settings), watch_s=WATCH_S)
        start.wait()
        try:
            leases.append(lease.__enter__())
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(leases) == 1
    assert len(refused) == 3
    assert all("a run has one writer" in text for text in refused)
    leases[0].check()
    leases[0].__exit__()


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_lease_that_is_given_back_in_the_moment_of_a_takeover_is_the_new_drivers(
    where: str, tmp_path: Path, s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60)
    store = Store(str(tmp_path) if where == "disk" else f"{s3_bucket}/run", StorageSettings(endpoint=s3_endpoint))
    replace, first = module.replace, Lease(store).__enter__()

    def given_back_before(*arguments: Any) -> str | None:
        monkeypatch.setattr(module, "replace", replace)
        first.__exit__()
        return replace(*arguments)

    monkeypatch.setattr(module, "replace", given_back_before)
    second = Lease(store, takeover=True).__enter__()
    give_up = module.give_up

    def taken_before(*arguments: Any) -> bool:
        monkeypatch.setattr(module, "give_up", give_up)
        taken.append(Lease(store, takeover=True).__enter__())
        return give_up(*arguments)

    taken: list[Lease] = []
    monkeypatch.setattr(module, "give_up", taken_before)
    second.__exit__()
    taken[0].check()
    taken[0].__exit__()
    with Lease(store, watch_s=60) as lease:  # nobody is waited for
        lease.check()


def test_a_takeover_from_an_owner_that_beats_in_that_moment_takes_its_next_beat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = module.replace

    def beaten_before(*arguments: Any) -> str | None:
        monkeypatch.setattr(module, "replace", replace)
        leave(store, beat=5)
        return replace(*arguments)

    leave(store)
    monkeypatch.setattr(module, "replace", beaten_before)
    with Lease(store, takeover=True) as lease:
        lease.check()


def test_a_lease_that_always_changes_is_not_tried_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_bytes(PATH, b"{}")
    monkeypatch.setattr(module, "replace", lambda *_: None)
    with pytest.raises(ClusterError, match=r"changed 10 times .* conditional writes"):
        Lease(store).__enter__()


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_only_the_version_that_was_read_is_replaced(where: str, tmp_path: Path, s3_endpoint: str, s3_bucket: str) -> None:
    root = str(tmp_path) if where == "disk" else f"{s3_bucket}/run"
    store = Store(root, StorageSettings(endpoint=s3_endpoint))
    store.write_bytes("note", b"one")
    data, first = read_version(store, "note")
    assert data == b"one"
    second = replace(store, "note", b"two", first)
    assert second == read_version(store, "note")[1] != first
    assert replace(store, "note", b"three", first) is None
    assert store.read_bytes("note") == b"two"
    store.delete("note")
    assert replace(store, "note", b"four", str(second)) is None
    assert not store.exists("note")
    assert list(store.list()) == []


def test_takeover_does_not_watch_and_the_first_driver_notices(store: Store) -> None:
    with Lease(store) as first:
        with Lease(store, takeover=True, watch_s=60) as second:
            second.check()
            with pytest.raises(ClusterError, match=r"this driver lost .* to process \d+"):
                first.check()
            time.sleep(4 * BEAT_S)  # and its beats do not win the lease back
            second.check()
        assert first.lost


def test_a_driver_that_lost_without_noticing_leaves_the_other_ones_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60)
    with Lease(store):
        leave(store, token="theirs")
    assert store.read_json(PATH)["token"] == "theirs"


def test_a_lease_that_someone_deleted_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60)
    with Lease(store) as lease:
        store.delete(PATH)
        with pytest.raises(ClusterError, match="someone who has finished"):
            lease.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": "x"}'])
def test_a_damaged_lease_is_replaced(store: Store, content: bytes) -> None:
    store.write_bytes(PATH, content)
    with Lease(store, watch_s=60) as lease:
        lease.check()


def test_a_lease_whose_first_put_was_repeated_is_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Store.create
    monkeypatch.setattr(Store, "create", lambda self, path, data: create(self, path, data) and False)
    started = time.monotonic()
    with Lease(store, watch_s=20) as lease:
        assert time.monotonic() - started < 5
        lease.check()


def test_storage_that_fails_for_a_while_does_not_lose_the_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = module.replace

    def fail(*_: object) -> str:
        raise StorageError("unreachable")

    with Lease(store) as lease:
        monkeypatch.setattr(module, "replace", fail)
        time.sleep(3 * BEAT_S)
        monkeypatch.setattr(module, "replace", replace)
        lease.check()
        before = store.read_json(PATH)["beat"]
        time.sleep(10 * BEAT_S)
        assert store.read_json(PATH)["beat"] > before
