"""Storage that fails as networks do: what is written is read back, and one that stays away is told as such."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.cluster import faulty_storage as module
from benchmarks.cluster.small_runs import KEYS, create_bucket
from benchmarks.cluster.faulty_storage import KINDS, FaultyStorage, faulty_storage
from cluster.errors import StorageError
from cluster.lease import Lease
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStorage]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "STALL_S", 0.1)
    with faulty_storage(seed=3) as storage:
        create_bucket(storage.endpoint)
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


def test_storage_that_is_away_is_named(storage: FaultyStorage) -> None:
    storage.away = True
    with pytest.raises(StorageError, match=rf"cannot read s3://chaos/run/part at {storage.endpoint} after 2 attempts"):
        store(storage, attempts=2).read_bytes("part")
