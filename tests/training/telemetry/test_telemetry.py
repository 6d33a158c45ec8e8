"""Telemetry: lines that survive any interruption exactly, cheap flushes, and the table at the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ArtifactError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from training.telemetry.telemetry import Telemetry, read_lines, steps_table, telemetry_files

FOLDER = "rounds/01/train"
STEPS = 40
SEGMENT = 500
"""Bytes: about six lines, so that a run of 40 steps is set aside several times."""


class KilledError(Exception):
    """Stands for a process that ends between two writes."""


class Mortal(Store):
    """A store that notes the size of every write, and dies instead of one of its changes."""

    def __init__(self, root: str, dies_at: int | None = None) -> None:
        super().__init__(root)
        self.written: list[int] = []
        self.changes, self.dies_at = 0, dies_at

    def _change(self) -> None:
        self.changes += 1
        if self.changes == self.dies_at:
            raise KilledError

    def write_bytes(self, path: str, data: bytes) -> None:
        self._change()
        self.written.append(len(data))
        super().write_bytes(path, data)

    def delete(self, path: str) -> None:
        self._change()
        super().delete(path)


def figures(step: int) -> dict[str, Any]:
    loss = float(np.random.default_rng(step).random()) / 7
    return {
        "round": 1,
        "epoch": step // 10,
        "step": step,
        "loss": loss,
        "items": 3 * step,
        "source": "click" if step % 2 else None,
    }


def train(
    store: Store,
    *,
    start: tuple[int, int] = (0, 0),
    active: bool = True,
    segment: int = SEGMENT,
    states: list[tuple[int, int]] | None = None,
) -> Telemetry:
    """Steps, a validation and a flush every 10 of them, a state (step, lines) to go on from every 5."""
    telemetry = Telemetry(store, FOLDER, active=active, segment_bytes=segment)
    telemetry.resume(start[1])
    for step in range(start[0] + 1, STEPS + 1):
        telemetry.add(figures(step))
        if step % 10 == 0:
            telemetry.event({"recall": step / 997, "epoch": step // 10})
        if step % 5 == 0:
            telemetry.flush()
            if states is not None:
                states.append((step, telemetry.lines))
    telemetry.write_parquet()
    return telemetry


def table_of(store: Store) -> pa.Table:
    return pq.read_table(f"{store.root}/{FOLDER}/telemetry.parquet")


def test_lines_have_six_digits_and_are_json_whatever_a_figure_is(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    telemetry = Telemetry(store, FOLDER, active=True)
    telemetry.add(
        {
            "step": 1,
            "loss": 1 / 3,
            "learning_rate": 1.3339612e-6,
            "gradient_norm": math.inf,
            "alignment": math.nan,
            "items": 1_234_567_890,
            "source": "click",
            "temperature": None,
        }
    )
    telemetry.flush()

    (line,) = store.read_bytes(f"{FOLDER}/telemetry.jsonl").decode().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(line, parse_constant=refuse) == {
        "step": 1,
        "loss": 0.333333,
        "learning_rate": 1.33396e-06,
        "gradient_norm": None,
        "alignment": None,
        "items": 1_234_567_890,
        "source": "click",
        "temperature": None,
    }


def test_a_run_killed_at_any_write_goes_on_to_the_same_lines_table_and_mean(tmp_path: Path) -> None:
    whole = Mortal(str(tmp_path / "whole"))
    want = train(whole)
    assert len([path for path in telemetry_files(whole, FOLDER) if "telemetry-" in path]) >= 3
    assert [line["step"] for line in read_lines(whole, FOLDER) if "event" not in line] == list(range(1, STEPS + 1))

    for write in range(1, whole.changes):
        root = str(tmp_path / str(write))
        states = [(0, 0)]
        for another in (write, 2, 3, None):  # killed there, soon after its resume twice, and at last not at all
            try:
                got = train(Mortal(root, another), start=states[-1], states=states)
            except KilledError:
                continue
        assert read_lines(Store(root), FOLDER) == read_lines(whole, FOLDER)
        assert table_of(Store(root)).equals(table_of(whole))
        assert (got.mean_loss(), got.lines) == (want.mean_loss(), want.lines)


def test_every_rank_comes_to_the_same_mean_and_only_the_active_one_writes(tmp_path: Path) -> None:
    states: list[tuple[int, int]] = []
    active = train(Store(str(tmp_path / "active")), states=states)
    assert train(Store(str(tmp_path / "other")), active=False).mean_loss() == active.mean_loss()
    assert not (tmp_path / "other").exists()

    # a rank that does not write reads what the active one left
    resumed = train(Store(str(tmp_path / "active")), start=states[6], active=False)
    assert (resumed.mean_loss(), resumed.lines) == (active.mean_loss(), active.lines)


def test_mean_loss_is_over_the_last_quarter_of_the_steps_and_no_event_counts(tmp_path: Path) -> None:
    telemetry = Telemetry(Store(str(tmp_path)), FOLDER, active=True)
    assert math.isnan(telemetry.mean_loss())
    for step, loss in enumerate([9.0] * 6 + [1.0, 2.0], start=1):
        telemetry.add({"step": step, "loss": loss})
        telemetry.event({"loss": 1000.0})
    assert telemetry.mean_loss() == 1.5
    assert telemetry.lines == 16


def test_a_flush_of_a_long_run_writes_no_more_than_a_segment_and_what_is_new(tmp_path: Path) -> None:
    store = Mortal(str(tmp_path))
    telemetry = Telemetry(store, FOLDER, active=True, segment_bytes=10_000)
    for step in range(1, 2_501):
        telemetry.add(figures(step))
        if step % 10 == 0:
            telemetry.flush()
    total = sum(len(json.dumps(line)) + 1 for line in read_lines(store, FOLDER))
    assert total > 20 * 10_000
    assert max(store.written) < 12_000
    # each line is written again while its segment grows: the whole costs the length of a run, not its square
    assert sum(store.written) < 8 * total


def test_a_round_that_starts_anew_leaves_nothing_of_a_longer_attempt(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    train(store)
    telemetry = Telemetry(store, FOLDER, active=True)
    telemetry.resume(0)
    telemetry.add(figures(1))
    telemetry.flush()
    assert [line["step"] for line in read_lines(store, FOLDER)] == [1]
    assert not [path for path in telemetry_files(store, FOLDER) if "telemetry-" in path]


def test_fewer_lines_than_the_training_state_counts_are_an_error(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    train(store)
    lines = len(read_lines(store, FOLDER))
    with pytest.raises(ArtifactError, match=f"expected {lines + 1} lines .* found {lines}; delete the folder `engine`"):
        Telemetry(store, FOLDER, active=True).resume(lines + 1)


def test_the_files_are_listed_for_a_commit_with_their_sizes(s3_endpoint: str, s3_bucket: str) -> None:
    store = Store(s3_bucket, StorageSettings(endpoint=s3_endpoint))
    train(store, segment=2_000)
    store.write_bytes(f"{FOLDER}/tensorboard/telemetry.jsonl", b"not ours")
    store.write_bytes(f"{FOLDER}/engine/state.json", b"{}")
    files = telemetry_files(store, FOLDER)
    assert sorted(files) == [f"{FOLDER}/telemetry-0001.jsonl", f"{FOLDER}/telemetry.jsonl", f"{FOLDER}/telemetry.parquet"]
    assert all(info["bytes"] == len(store.read_bytes(path)) > 0 for path, info in files.items())
    assert len(read_lines(store, FOLDER)) == STEPS + STEPS // 10


def test_the_table_has_a_row_per_step_with_events_beside_the_step_before_them() -> None:
    lines = [
        {"event": "validation", "step": 0, "recall": 0.25},
        {"step": 1, "loss": 1.0, "items": 7, "source": "click"},
        {"step": 1, "loss": 0.5, "items": 8, "source": None, "gradient_norm": 2},
        {"event": "validation", "step": 1, "epoch": 1, "recall": 0.5, "new": 3},
        {"step": 2, "loss": None, "items": 9, "gradient_norm": 0.5},
    ]
    table = steps_table(json.dumps(line) for line in lines)
    assert table.to_pydict() == {
        "validation_recall": [0.25, None, 0.5, None],
        "step": [0, 1, 1, 2],
        "loss": [None, 1.0, 0.5, None],
        "items": [None, 7, 8, 9],
        "source": [None, "click", None, None],
        "gradient_norm": [None, None, 2.0, 0.5],
        "validation_new": [None, None, 3, None],
    }
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "validation_recall": "float",
        "step": "int64",
        "loss": "float",
        "items": "int64",
        "source": "string",
        "gradient_norm": "float",
        "validation_new": "int64",
    }
    assert steps_table([]).num_rows == 0
