"""The three trackers for real, where they are installed: what they hold after a run and after a resume."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from training.telemetry.telemetry import Telemetry
from training.telemetry.tracker_writers import About, Record, TensorBoardWriter
from training.telemetry.trackers import make_trackers

FOLDER = "rounds/01/train/0123456789abcdef"
TENSORBOARD = "tensorboard/round-01/01234567"
CONFIG = {"batch_size": 32, "lora": {"rank": 16, "targets": ["query", "value"]}, "deepspeed": None}
PATIENT_S = 120.0
"""A busy machine is no failure."""


def step_figures(step: int) -> dict[str, Any]:
    return {
        "round": 1,
        "epoch": step // 10,
        "step": step,
        "loss": 1.0 / step,
        "effective_negatives": 30.0 - step,
        "queries_per_second": 100.0 + step,
        "gradient_norm": None if step == 2 else 0.5,
        "source": "click",
    }


def test_tensorboard_has_every_step_once_also_after_a_resume(s3_endpoint: str, s3_bucket: str, tmp_path: Path) -> None:
    store = Store(s3_bucket, StorageSettings(endpoint=s3_endpoint))
    lines = 0
    # the first attempt gets to step 30, but its last state was saved at 20; the second reads its telemetry
    for start, end, save_at in [(0, 30, 20), (20, 40, 40)]:
        said: list[str] = []
        trackers = make_trackers(
            ["tensorboard"],
            run="catalogue",
            number=1,
            label="round-01",
            store=store,
            folder=FOLDER,
            config=CONFIG,
            say=said.append,
        )
        telemetry = Telemetry(store, FOLDER, active=True, trackers=trackers)
        telemetry.resume(lines)
        for step in range(start + 1, end + 1):
            telemetry.add(step_figures(step))
            if step % 10 == 0:
                telemetry.event({"recall": step / 100})
                telemetry.flush()
            if step == save_at:
                lines = telemetry.lines
        trackers.close(timeout_s=PATIENT_S)
        assert said == []

    events = read_event_files(store, tmp_path)
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert sorted(scalars) == [
        "geometry/effective_negatives",
        "speed/queries_per_second",
        "train/epoch",
        "train/gradient_norm",
        "train/loss",
        "validation/recall",
    ]
    assert scalars["train/loss"] == [(step, pytest.approx(1 / step, rel=1e-5)) for step in range(1, 41)]
    assert scalars["geometry/effective_negatives"] == [(step, 30.0 - step) for step in range(1, 41)]
    assert [step for step, _ in scalars["train/gradient_norm"]] == [1, *range(3, 41)]
    assert scalars["validation/recall"] == [(step, pytest.approx(step / 100)) for step in (10, 20, 30, 40)]
    assert b"batch_size" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_a_long_tensorboard_log_is_cut_into_files_that_are_uploaded_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    writer = TensorBoardWriter(About("catalogue", 1, "round-01", "id", store, FOLDER, CONFIG), file_bytes=2_000)
    for start in range(1, 301, 30):
        writer.write(
            [
                Record(step, time.time(), {"train/loss": 1.0 / step, "geometry/alignment": 0.5})
                for step in range(start, start + 30)
            ]
        )
        writer.flush()
    writer.close(failed=False)
    assert len(store.list(TENSORBOARD)) >= 8
    events = read_event_files(store, tmp_path / "read")
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 301))


def read_event_files(store: Store, local: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = local / "events"
    folder.mkdir(parents=True)
    for path in store.list(TENSORBOARD):
        (folder / Path(path).name).write_bytes(store.read_bytes(path))
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """Address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def track_twice(name: str, store: Store, said: list[str]) -> None:
    """Steps 1 to 30, then, as after a resume, 21 to 40, with a validation every 10."""
    for start, end in [(0, 30), (20, 40)]:
        trackers = make_trackers(
            [name], run="catalogue", number=1, label="round-01", store=store, folder=FOLDER, config=CONFIG, say=said.append
        )
        for step in range(start + 1, end + 1):
            trackers.log(step_figures(step))
            if step % 10 == 0:
                trackers.event({"event": "validation", "step": step, "recall": step / 100})
        trackers.close(timeout_s=PATIENT_S)


def test_mlflow_has_every_step_once_also_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason='the extra "mlflow" is not installed')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3.17 asks for this before it writes to a folder
    said: list[str] = []
    track_twice("mlflow", Store(str(tmp_path / "store")), said)
    assert said == []

    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("hardmine").experiment_id])
    assert (run.info.run_name, run.info.status) == ("catalogue round-01", "FINISHED")
    assert run.data.params == {"batch_size": "32", "lora.rank": "16", "lora.targets": "['query', 'value']", "deepspeed": "None"}
    history = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert history["train/loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 41)]
    assert history["validation/recall"] == [(step, pytest.approx(step / 100)) for step in (10, 20, 30, 40)]
    assert len(history["geometry/effective_negatives"]) == 40


def test_mlflow_without_a_server_is_said_and_a_hanging_one_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging_server: str
) -> None:
    pytest.importorskip("mlflow", reason='the extra "mlflow" is not installed')
    store, said = Store(str(tmp_path)), list[str]()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_trackers(["mlflow"], run="r", number=1, label="round-01", store=store, folder=FOLDER, config={}, say=said.append).close()
    assert said == [
        "tracker mlflow is off: MLFLOW_TRACKING_URI is not set where training runs; set it to the address of the tracking server"
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging_server)
    trackers = make_trackers(
        ["mlflow"], run="r", number=1, label="round-01", store=store, folder=FOLDER, config={}, say=said.append
    )
    taken_ms = []
    for step in range(1, 501):
        started = time.perf_counter()
        trackers.log(step_figures(step))
        taken_ms.append((time.perf_counter() - started) * 1000)
    assert statistics.median(taken_ms) < 1.0
    started = time.monotonic()
    trackers.close(timeout_s=1.0)
    assert time.monotonic() - started < 3.0
    assert "tracker mlflow did not finish in time, 500 records were not taken" in said[1]


def test_an_offline_run_of_wandb_is_kept_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='the extra "wandb" is not installed')
    from wandb.proto.wandb_internal_pb2 import Record as Logged

    monkeypatch.setenv("WANDB_MODE", "offline")
    store, said = Store(str(tmp_path / "store")), list[str]()
    track_twice("wandb", store, said)
    assert said == []
    logs = [path for path in store.list(f"{FOLDER}/wandb") if path.endswith(".wandb")]
    steps: dict[int, float] = {}
    for path in logs:
        for data in wandb_records(store.read_bytes(path)):
            logged = Logged.FromString(data)
            if logged.HasField("history"):
                values = {"/".join(item.nested_key) or item.key: item.value_json for item in logged.history.item}
                steps.setdefault(logged.history.step.num, float(values["train/loss"]))
    assert steps == {step: pytest.approx(1 / step) for step in range(1, 41)}


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of an offline run's file: a LevelDB log (blocks of 32 KiB, chunks with a CRC, length and type)."""
    place, whole = 7, b""  # after the file's own header
    while place + 7 <= len(data):
        if 32_768 - place % 32_768 < 7:  # no chunk begins in the last bytes of a block
            place += 32_768 - place % 32_768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or the last chunk of one
            yield whole
            whole = b""
