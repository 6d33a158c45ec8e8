"""Which failures a stage outlasts: lost workers and storage that comes back, never a mistake, and never for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ray import exceptions as of_ray

from cluster.errors import ClusterError, DataError, StorageError, WorkersLost
from cluster.session import recovery
from cluster.session.recovery import Failure, failure_of, outlasting
from cluster.storage.store import Store

BUG = of_ray.RayTaskError("f", "Traceback (most recent call last):\n  a bug", TypeError("a bug"))
NESTED = of_ray.RayTaskError("f", "Traceback (most recent call last):\n  lost", of_ray.WorkerCrashedError())


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of asking Ray's nodes: how often they were asked."""
    asked: list[str] = []
    monkeypatch.setattr(recovery, "settle", lambda: asked.append("settled"))
    return asked


@pytest.fixture
def said() -> list[str]:
    return []


def failing(*errors: BaseException) -> Callable[[], str]:
    """Work that raises these in turn, and then is done."""
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


def tried(work: Callable[[], str], said: list[str], folder: Path, **options: float) -> str:
    return outlasting(work, store=Store(str(folder)), say=said.append, **({"retries": 2, "wait_s": 5} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_ray.ActorDiedError(), Failure.WORKER),
        (of_ray.WorkerCrashedError(), Failure.WORKER),
        (of_ray.NodeDiedError("gone"), Failure.WORKER),
        (of_ray.ActorUnschedulableError("the node has left"), Failure.WORKER),
        (NESTED, Failure.WORKER),
        (WorkersLost("a rank died"), Failure.WORKER),
        (of_ray.OutOfMemoryError("the node was running low on memory"), Failure.MEMORY),
        (of_ray.ObjectStoreFullError("full"), Failure.FULL),
        (of_ray.RayTaskError("f", "", of_ray.OutOfDiskError("full")), Failure.FULL),
        (StorageError("s3 is away"), Failure.STORAGE),
        (of_ray.RayTaskError("f", "", StorageError("s3 is away")), Failure.STORAGE),
        (BUG, None),
        (DataError("no queries"), None),
        (ClusterError("gave up"), None),
        (KeyError("x"), None),
    ],
)
def test_a_lost_worker_is_told_from_a_mistake(error: BaseException, kind: Failure | None) -> None:
    assert failure_of(error) is kind


def test_a_stage_is_tried_again_when_it_is_known_what_is_left(said: list[str], settled: list[str], tmp_path: Path) -> None:
    assert tried(failing(of_ray.ActorDiedError(), NESTED), said, tmp_path) == "done"
    assert settled == ["settled"] * 2
    assert len(said) == 2
    assert all(line.startswith("! a worker died") and line.endswith("trying again on what is left") for line in said)
    assert not any("\n" in line or "Traceback" in line for line in said)


def test_too_many_failures_in_a_row_end_the_run_with_a_cure(said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"failure 3 in a row. A worker that dies .* lower .*part_rows.*same command"):
        tried(failing(*[of_ray.WorkerCrashedError()] * 3), said, tmp_path)
    with pytest.raises(ClusterError, match=r"ran out of memory .*To need less memory, lower"):
        tried(failing(*[of_ray.OutOfMemoryError("low on memory")] * 3), said, tmp_path)
    with pytest.raises(ClusterError, match=r"object store .* is full.*failure 3 in a row. Free room in /dev/shm .*same command"):
        tried(failing(*[of_ray.OutOfDiskError("a page of advice")] * 3), said, tmp_path)


def test_failures_far_apart_do_not_add_up(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "CALM_S", 0.0)
    assert tried(failing(*[of_ray.WorkerCrashedError()] * 9), said, tmp_path, retries=1) == "done"


def test_a_mistake_is_raised_as_it_is(said: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no queries"):
        tried(failing(DataError("no queries")), said, tmp_path)
    assert said == []


def test_storage_that_comes_back_is_waited_for(
    said: list[str], settled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "STORAGE_AGAIN_S", 0.01)
    away = [StorageError("away")] * 3

    def look(_store: Store, _path: str) -> bool:
        if away:
            raise away.pop()
        return True

    monkeypatch.setattr(Store, "exists", look)
    assert tried(failing(StorageError("cannot write s3://bucket/part")), said, tmp_path) == "done"
    assert away == []
    assert settled == []
    assert said == ["! cannot write s3://bucket/part; trying again once the storage answers"]


def test_storage_that_stays_away_is_named_at_the_end(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "STORAGE_AGAIN_S", 0.01)

    def look(_store: Store, _path: str) -> bool:
        raise StorageError("away")

    monkeypatch.setattr(Store, "exists", look)
    with pytest.raises(ClusterError, match=r"cannot write s3://bucket/part; it still does not after 0 s. Check the storage"):
        tried(failing(StorageError("cannot write s3://bucket/part")), said, tmp_path, wait_s=0.05)


def test_the_readers_that_are_ended_are_those_of_the_part_pool() -> None:
    from mining.embed import EncodeParts
    from mining.teacher.reading import PairActor

    assert tuple(f"MapWorker(MapBatches({reader.__name__}))" for reader in (EncodeParts, PairActor)) == recovery.READERS
