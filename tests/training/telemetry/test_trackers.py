"""Trackers get what they should, and can neither stop nor slow a round."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from training.telemetry.tracker_writers import Record
from training.telemetry.trackers import Line, Trackers, grouped, make_trackers, without_secrets

FOLDER = "rounds/01/train"


class Recorder:
    """A writer that keeps what it gets; `during` runs inside each write."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.during = during
        self.records: list[Record] = []
        self.flushes: list[int] = []
        self.closed: bool | None = None

    def write(self, records: Sequence[Record]) -> None:
        self.during()
        self.records.extend(records)

    def flush(self) -> None:
        self.flushes.append(len(self.records))

    def close(self, *, failed: bool) -> None:
        self.closed = failed


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


def calls_ms(trackers: Trackers, steps: int) -> list[float]:
    taken = []
    for step in range(1, steps + 1):
        started = time.perf_counter()
        trackers.log(step_figures(step))
        if step % 50 == 0:
            trackers.event({"event": "validation", "step": step, "recall": 0.5})
            trackers.flush()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def test_figures_are_grouped_by_what_they_are_about() -> None:
    assert grouped(
        {
            "round": 1,
            "epoch": 2,
            "step": 7,
            "loss": 0.5,
            "loss_symmetric": 0.25,
            "learning_rate": 1e-5,
            "gradient_norm": None,
            "effective_negatives": 12.5,
            "gradient_share_hard": 0.4,
            "items": 64,
            "queries_per_second": 80.0,
            "seconds_data": 0.01,
            "source": "click",
        }
    ) == {
        "train/epoch": 2.0,
        "train/loss": 0.5,
        "train/loss_symmetric": 0.25,
        "train/learning_rate": 1e-5,
        "geometry/effective_negatives": 12.5,
        "geometry/gradient_share_hard": 0.4,
        "speed/items": 64.0,
        "speed/queries_per_second": 80.0,
        "speed/seconds_data": 0.01,
    }
    assert grouped({"event": "validation", "step": 7, "epoch": 1, "recall": 0.5}) == {"validation/recall": 0.5}


def test_micro_steps_of_one_step_are_sent_as_their_mean_before_what_follows() -> None:
    writer = Recorder()
    trackers = Trackers([Line("one", lambda: writer, print)])
    for step, loss, norm in [(1, 1.0, None), (1, 2.0, 0.5), (2, 5.0, None), (2, 7.0, 1.5)]:
        trackers.log({"step": step, "loss": loss, "gradient_norm": norm})
    trackers.event({"event": "validation", "step": 2, "recall": 0.25})
    trackers.log({"step": 3, "loss": 9.0, "gradient_norm": 2.0})
    trackers.close(failed=True)
    assert [(record.step, dict(record.values)) for record in writer.records] == [
        (1, {"train/loss": 1.5, "train/gradient_norm": 0.5}),
        (2, {"train/loss": 6.0, "train/gradient_norm": 1.5}),
        (2, {"validation/recall": 0.25}),
        (3, {"train/loss": 9.0, "train/gradient_norm": 2.0}),
    ]
    assert writer.closed is True


def test_a_flush_comes_after_all_records_before_it() -> None:
    writer = Recorder(during=lambda: time.sleep(0.01))
    trackers = Trackers([Line("one", lambda: writer, print)])
    for step in range(1, 1_201):  # more than a writer gets at once
        trackers.log(step_figures(step))
    trackers.flush()
    trackers.close()
    assert [record.step for record in writer.records] == list(range(1, 1_201))
    assert writer.flushes[-1] == 1_200


def test_a_tracker_that_raises_is_off_with_one_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TRACKER_PASSWORD", "hunter2hunter2")

    def explode() -> None:
        raise SystemExit("cannot reach http://ann:pw@server/x\nwith hunter2hunter2")

    def refuse() -> Recorder:
        raise ValueError("no such project")

    said: list[str] = []
    good = Recorder()
    trackers = Trackers(
        [
            Line("bad", lambda: Recorder(explode), said.append),
            Line("worse", refuse, said.append),
            Line("good", lambda: good, said.append),
        ]
    )
    assert statistics.median(calls_ms(trackers, 500)) < 1.0
    trackers.close()
    assert sorted(said) == [
        "tracker bad is off from here on (SystemExit: cannot reach http://***@server/x with ***); training goes on, and "
        "telemetry.jsonl has every figure",
        "tracker worse is off from here on (ValueError: no such project); training goes on, and telemetry.jsonl has every figure",
    ]
    assert len(good.records) == 510
    assert good.closed is False


def test_a_tracker_that_blocks_for_ever_costs_no_step_anything_and_is_left_behind() -> None:
    released = threading.Event()
    said: list[str] = []

    def wait() -> None:
        released.wait()

    def start_late() -> Recorder:
        released.wait()
        return Recorder()

    stuck = Line("stuck", lambda: Recorder(wait), said.append, capacity=100)
    stuck_at_start = Line("start", start_late, said.append, capacity=100)
    good = Recorder()
    trackers = Trackers([stuck, stuck_at_start, Line("good", lambda: good, said.append)])
    taken = calls_ms(trackers, 2_000)
    assert statistics.median(taken) < 1.0
    started = time.monotonic()
    trackers.close(timeout_s=0.5)
    assert time.monotonic() - started < 2.0
    assert len(good.records) == 2_040
    assert said == [
        "tracker stuck did not finish in time, 100 records were not taken; they are in telemetry.jsonl",
        "tracker start did not finish in time, 100 records were not taken; they are in telemetry.jsonl",
    ]
    # what was left behind ends in silence when it comes to life
    released.set()
    trackers.log(step_figures(1))
    assert len(said) == 2


def test_of_too_many_records_the_oldest_are_dropped_and_counted() -> None:
    begun, released = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        released.wait()

    said: list[str] = []
    writer = Recorder(wait)
    trackers = Trackers([Line("slow", lambda: writer, said.append, capacity=10)])
    trackers.log(step_figures(1))
    trackers.flush()
    assert begun.wait(10)
    for step in range(2, 52):
        trackers.log(step_figures(step))
    trackers.flush()
    released.set()
    trackers.close()
    assert [record.step for record in writer.records] == [1, *range(42, 52)]
    assert said == ["tracker slow was too slow for 40 records; they are in telemetry.jsonl"]


def test_a_callback_that_fails_does_not_stop_anything() -> None:
    def fail(text: str) -> None:
        raise RuntimeError("the mailbox is gone")

    def explode() -> None:
        raise ValueError

    trackers = Trackers([Line("bad", lambda: Recorder(explode), fail)])
    trackers.log(step_figures(1))
    trackers.close()


def test_a_package_that_is_missing_is_said_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what `import wandb` finds where it is not installed
    said: list[str] = []
    trackers = make_trackers(
        ["wandb", "wandb"],
        run="r",
        number=1,
        label="round-01",
        store=Store(str(tmp_path)),
        folder=FOLDER,
        config={},
        say=said.append,
    )
    assert said == ['tracker wandb is off: its package is not installed; pip install "hardmine[wandb]" where training runs']
    assert trackers.warnings == said, "kept, to be repeated when training is over"
    trackers.log(step_figures(1))
    trackers.close()
    assert not list(tmp_path.iterdir())


def test_secrets_of_the_environment_and_of_addresses_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-ann")
    assert without_secrets("401 at https://ann:pw@host:1/p?q=token-of-ann\n key 0123456789abcdef") == (
        "401 at https://***@host:1/p?q=*** key ***"
    )
