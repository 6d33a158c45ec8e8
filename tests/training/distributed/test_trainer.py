"""Ray Train workers that train one round after another: each as a new worker would, and another try after a death."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import TrainingDiverged, WorkersLost
from cluster.session.resources import PoolSize
from cluster.session.warm import end_warm
from training.distributed.trainer import train
from training.task import TrainTask

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_local")]
ONE = PoolSize(1, 1, 0)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainTask]:
    """A task of each kind of encoder."""
    from tests.training.loop_worker import prepare

    return prepare(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def _end() -> Iterator[None]:
    yield
    end_warm("ranks")


def workers() -> set[int]:
    """Process ids of the training workers below this process, whose Ray is its own."""

    def parents(process: int) -> Iterator[int]:
        while process > 1:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
            yield process

    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayTrainWorker" in (path / "cmdline").read_bytes() and os.getpid() in parents(int(path.name)):
                found.add(int(path.name))
        except OSError:  # it has ended
            continue
    return found


def weights(task: TrainTask, result: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of every file of the model that a training kept, by its name in the model's folder."""
    prefix = result["best"]["prefix"]
    return {path.removeprefix(prefix): info["sha256"] for path, info in result["best"]["model"].items()}


def test_a_round_on_ranks_that_trained_before_is_the_round_that_new_ranks_train(tasks: dict[str, TrainTask]) -> None:
    def trained(name: str, kind: str) -> tuple[list[float], dict[str, str]]:
        task = replace(tasks[kind], folder=f"runs/{name}")
        result = train(task, ONE)
        return result["validation"], weights(task, result)

    first = {kind: trained(f"first-{kind}", kind) for kind in ("dropout", "static", "adapter")}
    before = workers()
    assert len(before) == 1, "one rank trained all of them"
    again = {kind: trained(f"again-{kind}", kind) for kind in ("adapter", "dropout", "static")}
    assert workers() == before
    end_warm("ranks")
    new = {kind: trained(f"new-{kind}", kind) for kind in ("static", "dropout")}
    assert not workers() & before
    assert again == first
    assert new == {kind: first[kind] for kind in new}


def test_a_re_ranker_trains_on_the_ranks_that_trained_a_retriever(
    tasks: dict[str, TrainTask], cross_encoder: Path, tmp_path: Path
) -> None:
    from tests.training.reranker.rerank_worker import prepare

    train(replace(tasks["static"], folder="runs/before"), ONE)
    before = workers()
    result = train(replace(prepare(tmp_path, cross_encoder), folder="runs/reranker"), ONE)
    assert workers() == before
    assert result["best"]["ndcg"] == max(result["validation"]) > 0
    assert any(path.endswith("/model.safetensors") for path in result["best"]["model"])


def test_a_round_that_diverges_is_told_and_the_next_one_trains(tasks: dict[str, TrainTask]) -> None:
    good = replace(tasks["static"], folder="runs/good")
    wild = good.settings.model_copy(update={"learning_rate": 1e30, "warmup_fraction": 0.0, "precision": "float32"})
    with pytest.raises(TrainingDiverged, match="no longer finite at step"):
        train(replace(good, folder="runs/wild", settings=wild), ONE)
    assert train(good, ONE)["steps"] > 0


def test_a_killed_rank_is_replaced_and_the_result_is_the_same(tasks: dict[str, TrainTask]) -> None:
    task = replace(tasks["dropout"], folder="runs/whole")
    whole = train(task, ONE)
    (victim,) = workers()
    saved = Path(task.store.root) / "runs/killed/engine"

    def kill() -> None:
        while not list(saved.glob("*/state.json")):
            time.sleep(0.005)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    longer = replace(task, folder="runs/killed")
    with pytest.raises(WorkersLost, match=r"training on 1 rank\(s\) stopped \(\w+: [^\n\x1b]+\)$"):
        train(longer, ONE)
    result = train(longer, ONE)
    killer.join(60)
    assert victim not in workers()
    assert json.dumps(result["validation"]) == json.dumps(whole["validation"])
    assert weights(longer, result) == weights(task, whole)
