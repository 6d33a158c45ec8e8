"""Storage that fails as networks do: what is written is read back, and one that stays away is told as such."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.cluster import faulty_storage as module
from benchmarks.cluster.faulty_storage import KINDS, FaultyStorage, faulty_storage
from benchmarks.cluster.small_runs import KEYS, create_bucket
from cluster.errors import ClusterError, StorageError
from cluster.lease import Lease
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store

PARTS = 4
"""A request that fails costs a wait of up to a second before it is tried again."""
SEED = 12
"""With it some writing and some reading fails, whatever the kind."""


@pytest.fixture(scope="module")
def _server() -> Iterator[FaultyStorage]:
    with pytest.MonkeyPatch.context() as patch, faulty_storage() as storage:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        create_bucket(storage.endpoint)
        yield storage


@pytest.fixture
def storage(_server: FaultyStorage, monkeypatch: pytest.MonkeyPatch) -> FaultyStorage:
    """Storage that does not fail until a test says so; then the same requests fail whatever tests came before."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "STALL_S", 0.1)
    _server.share, _server.away, _server.denied, _server.failed = 0.0, False, False, []
    _server._rng = random.Random(SEED)
    return _server


def store(storage: FaultyStorage, folder: str, attempts: int = 5) -> Store:
    return Store(f"s3://chaos/{folder}", StorageSettings(endpoint=storage.endpoint, attempts=attempts))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_though_requests_fail(
    kind: str, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KINDS", (kind,))
    objects, storage.share = store(storage, kind), 0.25
    parts = {f"part-{number}": bytes([number]) * 5000 for number in range(PARTS)}
    for name, data in parts.items():
        objects.write_bytes(name, data)
    assert {name: objects.read_bytes(name) for name in parts} == parts
    assert {"PUT", "GET"} <= set(storage.failed)
    storage.share = 0.0
    assert set(objects.list().values()) == {5000}


def test_a_lease_survives_answers_that_are_lost(storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", ("lost",))
    storage.share = 0.3
    with Lease(store(storage, "lease")) as lease:
        for beat in range(1, 9):
            lease._beat(beat)
        lease.check()
    assert "PUT" in storage.failed


@pytest.mark.parametrize("call", ["read_bytes", "exists", "size", "list", "delete"])
def test_keys_that_have_expired_are_no_storage_that_may_come_back(call: str, storage: FaultyStorage) -> None:
    objects = store(storage, f"denied-{call}")
    objects.write_bytes("part", b"a")
    storage.denied = True
    with pytest.raises(ClusterError, match=r"access denied .*keys have expired .*AWS_ACCESS_KEY_ID.* it resumes") as error:
        getattr(objects, call)("part")
    assert not isinstance(error.value, StorageError), "nobody waits for it"
    storage.denied = False
    getattr(objects, call)("part")


def test_storage_that_is_away_is_named(storage: FaultyStorage) -> None:
    storage.away = True
    with pytest.raises(StorageError, match=rf"cannot read s3://chaos/away/part at {storage.endpoint} after 2 attempts"):
        store(storage, "away", attempts=2).read_bytes("part")
