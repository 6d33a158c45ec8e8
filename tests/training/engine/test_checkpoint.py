"""Checkpoints with DeepSpeed on two gloo ranks and S3: saved while training goes on, and careful when that fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import ArtifactError
from cluster.storage.records import write_record
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from training.engine.checkpoint import Checkpointer, TrainingState
from training.engine.engine import Place

ROOT = Path(__file__).parents[3]
KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key-for-tests",
    "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
    "AWS_CONFIG_FILE": "/nowhere/config",
}
Report = dict[str, dict[str, Any]]

# ---- without processes


@pytest.fixture
def alone(tmp_path: Path) -> Checkpointer:
    return Checkpointer(Store(str(tmp_path)), "round", Place(0, 1, torch.device("cpu"), False))


def write_state(points: Checkpointer, epoch: int, step: int, **more: Any) -> None:
    path = f"round/engine/step-{step:06d}-e{epoch:02d}/state.json"
    write_record(points.store, path, {"epoch": epoch, "step": step, "world": 1, "joined": 8} | more)


def test_before_the_first_save_there_is_no_newest(alone: Checkpointer) -> None:
    assert alone.newest() is None
    alone.wait()


def test_the_newest_is_the_last_complete_one(alone: Checkpointer) -> None:
    write_state(alone, 1, 20, index=4, subject={"log": -3.0}, budget_tokens=512)
    write_state(alone, 0, 10)
    alone.store.write_json("round/engine/step-000030-e01/a/rank-0.json", {})
    assert alone.newest() == TrainingState(1, 20, 1, 8, index=4, subject={"log": -3.0}, budget_tokens=512)


def test_a_state_of_another_version_is_an_artifact_error(alone: Checkpointer) -> None:
    write_state(alone, 1, 20, colour="red")
    with pytest.raises(ArtifactError, match=r"as this version writes it .*colour.*; delete the folder"):
        alone.newest()


def test_forgetting_leaves_the_models_alone(alone: Checkpointer) -> None:
    write_state(alone, 1, 20)
    alone.store.write_bytes("round/model-001/weights", b"1")
    alone.forget()
    assert list(alone.store.list()) == ["round/model-001/weights"]


# ---- two ranks; the first launch ends killed, the second goes on


def start(part: str, folder: Path, root: str, endpoint: str, away: str) -> list[subprocess.Popen[str]]:
    processes = []
    for rank in range(2):
        temporary = folder / f"tmp-{rank}"
        temporary.mkdir(exist_ok=True)
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            | KEYS
            | {
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "TMPDIR": str(temporary),
                "AWS_ENDPOINT_URL": endpoint,
            }
        )
        processes.append(
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("checkpoint_worker.py")), part, str(rank), str(folder), root, away],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    return processes


def run_and_kill(processes: list[subprocess.Popen[str]], store: Store) -> None:
    """Wait until rank 1 is killed and rank 0 has stored its part, then kill rank 0."""
    try:
        said = processes[1].communicate(timeout=240)[0]
        assert processes[1].returncode == -signal.SIGKILL, said
        deadline = time.monotonic() + 60
        while not [path for path in store.list("killed/engine/step-000003-e00") if path.endswith("rank-0.json")]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def report(_s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What both launches noted, and how long the second took to end beside a storage that does not answer."""
    import botocore.session

    folder, bucket = tmp_path_factory.mktemp("checkpoint"), f"bucket-{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        botocore.session.get_session().create_client("s3", endpoint_url=_s3_server, region_name="us-east-1").create_bucket(
            Bucket=bucket
        )
        root, away = f"s3://{bucket}/run", f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = Store(root, StorageSettings(endpoint=_s3_server))
        run_and_kill(start("first", folder, root, _s3_server, away), store)
        processes = start("second", folder, root, _s3_server, away)
        try:
            said = [process.communicate(timeout=240)[0] for process in processes]
            ended = time.time()
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    parts = [json.loads((folder / f"report-{part}.json").read_text()) for part in ("first", "second")]
    left = {
        "seconds": ended - min(float((folder / f"left-{rank}").read_text()) for rank in range(2)),
        "said": "".join(said),
        "local": sorted(path.name for rank in range(2) for path in (folder / f"tmp-{rank}").glob("hardmine-engine-*")),
    }
    return parts[0] | parts[1] | {"left": left}


@pytest.mark.cluster
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_save_returns_before_the_upload_and_keeps_the_weights_of_its_moment(report: Report, stage: int) -> None:
    noted = report[f"zero-{stage}"]
    assert noted["before"]
    assert noted["stored_meanwhile"] == [], "something was stored before training went on"
    assert [len(names) for names in noted["local_meanwhile"]] == [1, 1]
    assert np.abs(np.subtract(noted["continued"], noted["saved"])).max() > 1e-3, "training did not go on"
    assert noted["restored"] == noted["saved"]


@pytest.mark.cluster
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_restored_engine_trains_on_as_the_saved_one_did(report: Report, stage: int) -> None:
    noted = report[f"zero-{stage}"]
    np.testing.assert_allclose(noted["restored_continued"], noted["continued"], atol=1e-7)
    assert noted["state"] == [[[0.25], {"prefix": "m", "recall": 0.25}, 3, 1.5, 7, {"value": 0.04}, 48, [1, 3]]] * 2


@pytest.mark.cluster
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_local_files_are_removed_and_both_times_are_told(report: Report, stage: int) -> None:
    noted = report[f"zero-{stage}"]
    assert noted["local"] == [[], []]
    assert all(seconds["upload"] > seconds["save"] > 0 for seconds in noted["seconds"]), "the gate held the upload"


@pytest.mark.cluster
def test_the_newest_checkpoint_is_kept(report: Report) -> None:
    assert report["kept"]["kept"] == ["step-000003-e00"]


@pytest.mark.cluster
@pytest.mark.parametrize(("name", "what"), [("tampered", "does not have the SHA-256"), ("missing", "is missing")])
def test_a_damaged_file_of_one_rank_stops_all_and_names_the_way_back(report: Report, name: str, what: str) -> None:
    errors = report["kept"][name]
    assert errors[0] == errors[1]
    assert errors[0].startswith("DamagedObject")
    assert what in errors[0]
    assert "kept/engine/step-000003-e00/" in errors[0]
    assert "/rank-1/" in errors[0]
    assert "leaves this checkpoint out: training goes on from the checkpoint before it" in errors[0]
    assert errors[0].endswith("that of step 2 (epoch 0)")


@pytest.mark.cluster
def test_with_the_damaged_one_deleted_training_goes_back_to_the_one_before(report: Report) -> None:
    assert report["kept"]["older"] == 2
    assert report["kept"]["restored"] == report["kept"]["second"]


@pytest.mark.cluster
def test_ranks_that_found_different_checkpoints_load_none(report: Report) -> None:
    errors = report["kept"]["different"]
    assert errors[0] == errors[1]
    assert errors[0].startswith("ClusterError: the ranks found different newest checkpoints")


@pytest.mark.cluster
def test_forgetting_ends_an_upload_and_leaves_nothing(report: Report) -> None:
    assert report["kept"]["forgotten"] == [[], []]
    assert report["kept"]["local"] == [[], []]


@pytest.mark.cluster
def test_one_ranks_failed_upload_stops_all_ranks_at_the_next_save(report: Report) -> None:
    noted = report["failing"]
    assert noted["errors"][0] == noted["errors"][1]
    assert noted["errors"][0].startswith("StorageError: the checkpoint of step 2 (epoch 0) could not be stored")
    assert "rank 1: cannot write s3://" in noted["errors"][0]
    assert "rank 0" not in noted["errors"][0]
    assert "\n" not in noted["errors"][0]
    assert noted["after"] == ["nothing", "nothing"], "it was told already"


@pytest.mark.cluster
def test_a_failed_upload_leaves_the_checkpoint_before_and_no_local_files(report: Report) -> None:
    states = [path for path in report["failing"]["files"] if path.endswith("state.json")]
    assert states == ["failing/engine/step-000001-e00/state.json"]
    assert report["failing"]["local"] == [[], []]


@pytest.mark.cluster
def test_killed_in_the_middle_of_an_upload_training_goes_on_from_the_checkpoint_before(report: Report) -> None:
    killed, after = report["killed"], report["after"]
    assert [path for path in after["left"] if "step-000003" in path and path.endswith("/rank-0.json")]
    assert not [path for path in after["left"] if "step-000003" in path and path.endswith("/rank-1.json")]
    assert after["step"] == [2, 2]
    assert after["restored"] == killed["saved"]


@pytest.mark.cluster
def test_what_a_killed_upload_left_is_deleted_with_the_next_one(report: Report) -> None:
    after = report["after"]
    assert after["newest"] == 3
    attempt = {path.rsplit("/rank-", 1)[0] for path in after["listed"]}
    assert len(attempt) == 1
    assert set(after["listed"]) < set(after["files"])
    assert [path for path in after["files"] if not path.startswith(attempt.copy().pop())] == [
        "killed/engine/step-000003-e00/state.json"
    ]


@pytest.mark.cluster
def test_a_process_ends_although_the_storage_does_not_answer(report: Report) -> None:
    assert [len(names) for names in report["after"]["local"]] == [1, 1], "nothing was being uploaded"
    assert report["left"]["seconds"] < 45, "one request alone waits for 60 s"
    assert "Traceback" not in report["left"]["said"]


@pytest.mark.cluster
def test_at_its_end_a_process_removes_what_it_was_uploading(report: Report) -> None:
    assert report["left"]["local"] == []
