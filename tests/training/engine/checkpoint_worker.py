"""One of two gloo ranks that saves and restores DeepSpeed engines on S3; `test_checkpoint.py` judges what it wrote.

Run as `python checkpoint_worker.py PART RANK FOLDER ROOT AWAY`: PART "first" ends with rank 1 killed in the middle of an
upload, "second" goes on from there; ROOT is an s3:// address, AWAY an endpoint that takes requests and never answers.
TMPDIR is a folder of the rank's own. Rank 0 writes FOLDER/report-PART.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cluster.errors import HardmineError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from training.encoders.adapter import AdapterEncoder
from training.engine.checkpoint import Checkpointer, TrainingState
from training.engine.engine import Place, full_state, set_learning_rate, start_engine
from training.settings import TrainingSettings

WORLD, PATIENCE_S = 2, 60.0
STAGES = (0, 2, 3)
Figures = dict[str, Any]


class GatedStore(Store):
    """Nothing is written before the gate opens."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.gate = threading.Event()

    def write_bytes(self, path: str, data: bytes) -> None:
        if not self.gate.wait(PATIENCE_S):
            raise OSError("the gate did not open: training waited for its upload")
        super().write_bytes(path, data)


class KillingStore(Store):
    """The process is killed when it has stored all of its part but the manifest."""

    def write_bytes(self, path: str, data: bytes) -> None:
        if path.endswith("rank-1.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().write_bytes(path, data)


class Ranks:
    """What all scenarios share on this rank."""

    def __init__(self, rank: int, folder: Path, root: str, away: str) -> None:
        self.place = Place(rank, WORLD, torch.device("cpu"), False)
        self.folder, self.root, self.away = folder, root, away
        self.store = Store(root)
        self.report: dict[str, Figures] = {}

    def engine(self, stage: int) -> Any:
        """A new engine around a new adapter; the same on both ranks."""
        torch.manual_seed(0)
        return start_engine(AdapterEncoder(16, 32), TrainingSettings(zero_stage=stage, batch_size=4), self.place)

    def train(self, engine: Any, steps: range) -> None:
        """Optimizer steps on data that depends on step and rank only."""
        for step in steps:
            vectors = torch.from_numpy(np.random.default_rng(100 * step + self.place.rank).normal(size=(8, 16))).float()
            encoded = engine({"vectors": vectors})
            set_learning_rate(engine, 0.01)
            engine.backward((encoded[:4] * encoded[4:]).sum(-1).mean())
            engine.step()

    def weights(self, engine: Any) -> list[float]:
        """All weights in one row; on rank 0."""
        state = full_state(engine, self.place)
        return [value for name in sorted(state) for value in state[name].double().flatten().tolist()]

    def everywhere(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * WORLD
        dist.all_gather_object(values, value)
        return values

    def errors(self, action: Callable[[], None]) -> list[str]:
        """What each rank raised."""
        found = "nothing"
        try:
            action()
        except HardmineError as error:
            found = f"{type(error).__name__}: {error}"
        return self.everywhere(found)

    def temporary(self) -> list[list[str]]:
        """What each rank has on local disk."""
        return self.everywhere(sorted(path.name for path in Path(tempfile.gettempdir()).glob("hardmine-engine-*")))


def state_at(epoch: int, step: int) -> TrainingState:
    return TrainingState(
        epoch=epoch,
        step=step,
        world=WORLD,
        joined=8,
        validation=[0.25],
        best={"prefix": "m", "recall": 0.25},
        telemetry=3,
        seconds=1.5,
        index=7,
        subject={"value": 0.04},
        budget_tokens=48,
    )


def save_and_restore(ranks: Ranks, stage: int) -> None:
    """Save, train on before anything is uploaded, and compare with an engine that loads what was saved."""
    store, folder, noted = GatedStore(ranks.root), f"zero-{stage}", Figures()
    points = Checkpointer(store, folder, ranks.place)
    noted["before"] = points.newest() is None
    engine = ranks.engine(stage)
    ranks.train(engine, range(3))
    noted["saved"] = ranks.weights(engine)
    state = state_at(1, 3)
    points.save(engine, state)
    state.validation.append(0.5)  # as a loop does that goes on with its list
    ranks.train(engine, range(3, 5))
    noted["continued"] = ranks.weights(engine)
    noted["stored_meanwhile"], noted["local_meanwhile"] = sorted(ranks.store.list(folder)), ranks.temporary()
    dist.barrier()
    store.gate.set()
    points.wait()
    noted["local"], noted["seconds"] = ranks.temporary(), ranks.everywhere(points.seconds)
    engine.destroy()
    again = ranks.engine(stage)
    points = Checkpointer(ranks.store, folder, ranks.place)
    found = points.newest()
    assert found is not None
    noted["state"] = ranks.everywhere(
        [
            found.validation,
            found.best,
            found.telemetry,
            found.seconds,
            found.index,
            found.subject,
            found.budget_tokens,
            found.mark,
        ]
    )
    points.restore(again, found)
    noted["restored"] = ranks.weights(again)
    ranks.train(again, range(3, 5))
    noted["restored_continued"] = ranks.weights(again)
    again.destroy()
    ranks.report[folder] = noted


def keep_and_tamper(ranks: Ranks) -> None:
    """Three checkpoints of which the newest is kept; it is changed in storage, then deleted, then all are."""
    folder, noted = "kept", Figures()
    points = Checkpointer(ranks.store, folder, ranks.place)
    engine = ranks.engine(2)
    second: dict[str, bytes] = {}
    for step in (1, 2, 3):
        ranks.train(engine, range(step, step + 1))
        points.save(engine, state_at(0, step))
        if step == 2:
            points.wait()
            noted["second"] = ranks.weights(engine)
            second = {path: ranks.store.read_bytes(path) for path in ranks.store.list(folder)}
            dist.barrier()
    points.wait()
    noted["kept"] = sorted({path.split("/")[2] for path in ranks.store.list(folder)})
    newest = points.newest()
    assert newest is not None
    if ranks.place.rank == 0:
        for path, data in second.items():  # as where rank 0 was killed before it deleted the checkpoint before
            ranks.store.write_bytes(path, data)
        path = next(path for path in newest.files if "/rank-1/" in path)
        data = ranks.store.read_bytes(path)
        ranks.store.write_bytes(path, data[:-1] + bytes([data[-1] ^ 1]))
    dist.barrier()
    noted["tampered"] = ranks.errors(lambda: points.restore(engine, newest))
    if ranks.place.rank == 0:
        ranks.store.delete(path)
    dist.barrier()
    noted["missing"] = ranks.errors(lambda: points.restore(engine, newest))
    if ranks.place.rank == 0:
        ranks.store.delete(f"{folder}/engine/step-000003-e00")
    dist.barrier()
    older = points.newest()
    assert older is not None
    noted["older"] = older.step
    points.restore(engine, older)
    noted["restored"] = ranks.weights(engine)
    noted["different"] = ranks.errors(lambda: points.restore(engine, newest if ranks.place.rank else older))
    points.save(engine, state_at(0, 3))
    points.forget()
    noted["forgotten"], noted["local"] = ranks.everywhere(sorted(ranks.store.list(folder))), ranks.temporary()
    engine.destroy()
    ranks.report[folder] = noted


def fail(ranks: Ranks) -> None:
    """Rank 1's storage is away: the next save says so on both ranks, and nothing incomplete is there."""
    folder, noted = "failing", Figures()
    engine = ranks.engine(2)
    good = Checkpointer(ranks.store, folder, ranks.place)
    good.save(engine, state_at(0, 1))
    good.wait()
    nowhere = StorageSettings(endpoint="http://127.0.0.1:1", attempts=1)
    points = Checkpointer(Store(ranks.root, nowhere) if ranks.place.rank else ranks.store, folder, ranks.place)
    points.save(engine, state_at(0, 2))
    noted["errors"] = ranks.errors(lambda: points.save(engine, state_at(0, 3)))
    noted["after"] = ranks.errors(points.wait)
    noted["files"], noted["local"] = sorted(ranks.store.list(folder)), ranks.temporary()
    engine.destroy()
    ranks.report[folder] = noted


def killed(ranks: Ranks) -> None:
    """A complete checkpoint, then one whose upload ends with rank 1."""
    engine = ranks.engine(3)
    points = Checkpointer(KillingStore(ranks.root) if ranks.place.rank else ranks.store, "killed", ranks.place)
    ranks.train(engine, range(2))
    whole = Checkpointer(ranks.store, "killed", ranks.place)
    whole.save(engine, state_at(0, 2))
    whole.wait()
    ranks.report["killed"] = {"saved": ranks.weights(engine)}
    ranks.train(engine, range(2, 3))
    if ranks.place.rank == 0:
        (ranks.folder / "report-first.json").write_text(json.dumps(ranks.report))
    dist.barrier()
    points.save(engine, state_at(0, 3))
    time.sleep(10 * PATIENCE_S)  # killed meanwhile


def after_the_kill(ranks: Ranks) -> None:
    """New processes go on from the checkpoint before, and save where the killed ones left something."""
    points = Checkpointer(ranks.store, "killed", ranks.place)
    found = points.newest()
    assert found is not None
    noted: Figures = {"step": ranks.everywhere(found.step), "left": sorted(ranks.store.list("killed"))}
    engine = ranks.engine(3)
    points.restore(engine, found)
    noted["restored"] = ranks.weights(engine)
    ranks.train(engine, range(2, 3))
    points.save(engine, state_at(0, 3))
    points.wait()
    newest = points.newest()
    assert newest is not None
    noted["newest"], noted["listed"] = newest.step, sorted(newest.files)
    noted["files"] = sorted(ranks.store.list("killed"))
    away = StorageSettings(endpoint=ranks.away)
    Checkpointer(Store(ranks.root, away), "away", ranks.place).save(engine, state_at(0, 4))
    ranks.report["after"] = noted | {"local": ranks.temporary()}


def main(part: str, rank: int, folder: Path, root: str, away: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init-{part}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=120)
    )
    os.environ["LOCAL_RANK"] = str(rank)  # as Ray Train sets it; DeepSpeed reads it
    torch.set_num_threads(1)
    ranks = Ranks(rank, folder, root, away)
    if part == "first":
        for stage in STAGES:
            save_and_restore(ranks, stage)
        keep_and_tamper(ranks)
        fail(ranks)
        killed(ranks)  # does not return
    after_the_kill(ranks)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        (folder / "report-second.json").write_text(json.dumps(ranks.report))
    (folder / f"left-{rank}").write_text(str(time.time()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
