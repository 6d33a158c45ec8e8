"""Storage that fails as networks do: what is written is read back, and one that stays away is told as such."""

from __future__ import annotations

from collections.abc import Iterator

import botocore.session
import pytest

from benchmarks.cluster import faulty_storage as module
from benchmarks.cluster.faulty_storage import KINDS, FaultyStorage, faulty_storage
from benchmarks.cluster.small_runs import BUCKET, KEYS
from cluster.errors import ClusterError, StorageError
from cluster.lease import Lease
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStorage]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "STALL_S", 0.1)
    with faulty_storage(seed=3) as storage:
        session = botocore.session.get_session()
        session.create_client("s3", endpoint_url=storage.endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield storage


def store(storage: FaultyStorage, attempts: int = 5) -> Store:
    return Store("s3://chaos/run", StorageSettings(endpoint=storage.endpoint, attempts=attempts))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_though_requests_fail(
    kind: str, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KINDS", (kind,))
    objects, storage.share = store(storage), 0.25
    for number in range(8):
        objects.write_bytes(f"part-{number}", bytes([number]) * 5000)
    assert [objects.read_bytes(f"part-{number}") for number in range(8)] == [bytes([number]) * 5000 for number in range(8)]
    assert storage.failed > 0
    storage.share = 0.0
    assert set(objects.list().values()) == {5000}


def test_a_lease_survives_answers_that_are_lost(storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", ("lost",))
    storage.share = 0.3
    with Lease(store(storage)) as lease:
        for beat in range(1, 9):
            lease._beat(beat)
        lease.check()
    assert storage.failed > 0


@pytest.mark.parametrize("call", ["read_bytes", "exists", "size", "list", "delete"])
def test_keys_that_have_expired_are_no_storage_that_may_come_back(call: str, storage: FaultyStorage) -> None:
    objects = store(storage)
    objects.write_bytes("part", b"a")
    storage.denied = True
    with pytest.raises(ClusterError, match=r"access denied .*keys have expired .*AWS_ACCESS_KEY_ID.* it resumes") as error:
        getattr(objects, call)("part")
    assert not isinstance(error.value, StorageError), "nobody waits for it"
    storage.denied = False
    getattr(objects, call)("part")


def test_storage_that_is_away_is_named(storage: FaultyStorage) -> None:
    storage.away = True
    with pytest.raises(StorageError, match=rf"cannot read s3://chaos/run/part at {storage.endpoint} after 2 attempts"):
        store(storage, attempts=2).read_bytes("part")
