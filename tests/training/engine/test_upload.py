"""Uploads of checkpoints: complete only when every rank's part is there; what is kept and what is deleted after one."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.storage.records import read_record
from cluster.storage.store import Store
from training.engine.engine import Place
from training.engine.upload import Upload, complete, leftovers, name_of

ROOT = "round/engine"


def upload(store: Store, rank: int = 0, world: int = 1, **changes: Any) -> Upload:
    """An upload of one small file per rank, not started."""
    local = tempfile.TemporaryDirectory()
    (Path(local.name) / "engine").mkdir()
    (Path(local.name) / "engine" / f"part-{rank}.pt").write_bytes(f"weights of rank {rank}".encode())
    mark = changes.pop("mark", (2, 120))
    options: dict[str, Any] = {
        "superseded": [],
        "deadline_s": 30.0,
        "record": {"epoch": mark[0], "step": mark[1], "best": {}},
    } | changes
    attempt = options.pop("attempt", f"attempt-{mark[1]}")
    return Upload(store, ROOT, attempt, local, Place(rank, world, torch.device("cpu"), False), **options)


def finished(*uploads: Upload) -> list[str | None]:
    """Run them all at once; their failures."""
    for one in uploads:
        one.start()
    for one in uploads:
        one.join(timeout=30)
        assert not one.is_alive()
        assert not Path(one._local.name).exists()
    return [one.failure for one in uploads]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_the_name_of_a_checkpoint_is_read_back_as_its_place() -> None:
    marks = [(0, 0), (2, 120), (130, 12_345_678)]
    assert name_of((2, 120)) == "step-000120-e02"
    assert complete([f"{ROOT}/{name_of(mark)}/state.json" for mark in reversed(marks)], ROOT) == marks


def test_only_a_folder_with_a_state_file_is_a_checkpoint() -> None:
    paths = [
        f"{ROOT}/state.json",
        f"{ROOT}/step-000005-e01/a/rank-0.json",
        f"{ROOT}/step-000006-e01/a/state.json",
        f"{ROOT}/step-7-e01/state.json",
        f"{ROOT}/other/state.json",
        f"{ROOT}/step-000004-e00/state.json",
    ]
    assert complete(paths, ROOT) == [(0, 4)]


def test_an_epoch_counts_more_than_a_step() -> None:
    paths = [f"{ROOT}/{name_of(mark)}/state.json" for mark in [(2, 10), (1, 11), (1, 9)]]
    assert complete(paths, ROOT) == [(1, 9), (1, 11), (2, 10)]


def test_leftovers_are_other_checkpoints_other_attempts_and_strange_files() -> None:
    paths = [
        f"{ROOT}/{rest}"
        for rest in (
            "state.json",
            "step-000010-e00/a/rank-0.json",
            "step-000020-e01/state.json",
            "step-000020-e01/b/rank-0/x.pt",
            "step-000030-e01/state.json",
            "step-000030-e01/c/rank-0/x.pt",
            "step-000030-e01/dead/rank-1.json",
        )
    ]
    assert leftovers(paths, ROOT, (1, 30), "c") == [
        f"{ROOT}/state.json",
        f"{ROOT}/step-000010-e00",
        f"{ROOT}/step-000020-e01",
        f"{ROOT}/step-000030-e01/dead",
    ]


def test_two_ranks_complete_a_checkpoint_that_lists_the_files_of_both(store: Store) -> None:
    assert finished(upload(store, 1, 2), upload(store, 0, 2)) == [None, None]
    state = read_record(store, f"{ROOT}/step-000120-e02/state.json")
    prefix = f"{ROOT}/step-000120-e02/attempt-120"
    assert {path: info["bytes"] for path, info in state["files"].items()} == {
        f"{prefix}/rank-0/engine/part-0.pt": 17,
        f"{prefix}/rank-1/engine/part-1.pt": 17,
    }
    assert (state["epoch"], state["step"]) == (2, 120)


def test_without_the_other_ranks_part_nothing_is_complete(store: Store) -> None:
    assert finished(upload(store, 1, 4)) == [None]
    assert "rank(s) [2, 3] did not store their part" in str(finished(upload(store, 0, 4, deadline_s=0.2))[0])
    assert complete(store.list(ROOT), ROOT) == []


def test_a_part_of_a_killed_attempt_is_not_taken_for_one_of_this_one(store: Store) -> None:
    finished(upload(store, 1, 2, attempt="killed"))
    assert "rank(s) [1]" in str(finished(upload(store, 0, 2, deadline_s=0.2))[0])
    assert finished(upload(store, 1, 2), upload(store, 0, 2)) == [None, None]
    assert not [path for path in store.list(ROOT) if "/killed/" in path]


def test_a_cancelled_upload_completes_nothing_and_is_no_failure(store: Store) -> None:
    waiting = upload(store, 0, 2)
    waiting.start()
    assert waiting.stored.wait(30)
    waiting.cancelled.set()
    waiting.join(timeout=30)
    assert not waiting.is_alive()
    assert waiting.failure is None
    assert complete(store.list(ROOT), ROOT) == []


def test_a_disk_that_cannot_be_written_is_a_failure_in_one_paragraph(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    failure = finished(upload(Store(str(tmp_path / "store"))))[0]
    assert failure is not None
    assert "cannot write" in failure
    assert "\n" not in failure


def test_older_checkpoints_go_once_a_newer_one_is_complete(store: Store) -> None:
    for mark in [(0, 10), (0, 20), (1, 30)]:
        assert finished(upload(store, mark=mark)) == [None]
    assert complete(store.list(ROOT), ROOT) == [(1, 30)]
    assert {path.split("/")[2] for path in store.list(ROOT)} == {name_of((1, 30))}


def test_a_checkpoint_from_before_training_went_back_does_not_hide_the_new_one(store: Store) -> None:
    finished(upload(store, mark=(3, 90)))
    finished(upload(store, mark=(1, 30)))
    assert complete(store.list(ROOT), ROOT) == [(1, 30)]


def test_models_that_only_replaced_checkpoints_name_go_with_them(store: Store) -> None:
    store.write_bytes("round/model-001/weights", b"1")
    store.write_bytes("round/model-002/weights", b"2")

    def save(mark: tuple[int, int], model: str, superseded: list[str]) -> list[str]:
        record = {"epoch": mark[0], "step": mark[1], "best": {"prefix": model}}
        assert finished(upload(store, mark=mark, record=record, superseded=superseded)) == [None]
        return [path.split("/")[1] for path in store.list("round") if "/model-" in path]

    assert save((1, 10), "round/model-001", []) == ["model-001", "model-002"]
    assert save((2, 20), "round/model-001", ["round/model-001"]) == ["model-001", "model-002"], "its own state names it"
    assert save((3, 30), "round/model-002", []) == ["model-002"], "the state that it replaced named the other"


def test_a_superseded_model_that_no_checkpoint_names_goes_at_once(store: Store) -> None:
    store.write_bytes("round/model-001/weights", b"1")
    assert finished(upload(store, superseded=["round/model-001"])) == [None]
    assert store.list("round/model-001") == {}


def test_a_damaged_older_state_does_not_keep_a_new_one_from_being_stored(store: Store) -> None:
    store.write_bytes(f"{ROOT}/step-000010-e00/state.json", b"{")
    assert finished(upload(store)) == [None]
    assert complete(store.list(ROOT), ROOT) == [(2, 120)]
