"""A training and the mining beside it: one of them fails, or mining no longer helps. The stages of these tests do no work."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.commits import Commit, Ledger, Outcome
from cluster.errors import DataError, TrainingDiverged
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize, PoolSize
from cluster.session.warm import reserved
from cluster.storage.store import Store
from jobs.config.config import parse_config
from jobs.record.plan import plan_beside
from jobs.record.stages import Kind, ModelName, Stage
from jobs.run import rounds
from jobs.run.beside import need_beside
from jobs.stages.context import Context

pytestmark = pytest.mark.cluster
Work = Callable[[Context], dict[str, Any]]
SECOND = Stage(Kind.TRAIN, ModelName(1))
PATIENCE_S = 60.0


def a_run(folder: Path, size: ClusterSize, works: dict[str, Work], *, mined: int = 2) -> tuple[Context, io.StringIO]:
    """(a run whose stages do what `works` says by name, else nothing; what it says)."""
    config = parse_config(
        {
            "name": "run",
            "output": str(folder),
            "data": {"folder": "/beir"},
            "encoder": {"kind": "static"},
            "rounds": {"mined": mined, "background": True},
        },
        source="test",
    )
    said = io.StringIO()
    store, progress = Store(config.root, config.storage), Progress(stream=said)
    progress.open_mailbox()

    def make(context: Context, stage: Stage) -> Commit:
        def work(_: str) -> Outcome:
            own = works.get(stage.name, lambda context: {})
            if stage.kind is not Kind.TRAIN:
                return Outcome(figures=own(context))
            with reserved(PoolSize(1, context.size.cpus, 0)):
                return Outcome(figures=own(context))

        return context.commit(stage, inputs={}, work=work)

    functions = dict.fromkeys(Kind, make)
    return Context(config, store, Ledger(store), progress, size, {}, functions), said


def names(context: Context) -> set[str]:
    return set(context.ledger.names())


def test_where_mining_fails_the_training_is_finished_and_nothing_else_begins(tmp_path: Path, ray_local: ClusterSize) -> None:
    failed, seen = threading.Event(), list[dict[str, Any]]()

    def train(context: Context) -> dict[str, Any]:
        assert context.size.cpus == 1
        assert failed.wait(PATIENCE_S)
        return {}

    def search(context: Context) -> dict[str, Any]:
        assert context.size.cpus == 1
        seen.append(run.progress.now())
        failed.set()
        raise DataError("no query belongs to the train split")

    run, said = a_run(tmp_path, ray_local, {"round-01-train": train, "round-02-search": search})
    with pytest.raises(DataError, match="no query belongs"):
        need_beside(run, SECOND, plan_beside(run.config)[SECOND])
    assert names(run) == {"round-01-train", "round-00-embed", "round-00-hits", "round-00-evaluate"}
    assert (seen[0]["stage"], seen[0]["beside"]["stage"]) == ("round-01-train", "round-02-search")
    assert "! no query belongs to the train split; the run ends when round-01-train does" in said.getvalue()


def test_where_training_fails_the_stage_beside_it_is_finished_and_no_other_begins(tmp_path: Path, ray_local: ClusterSize) -> None:
    begun, failed = threading.Event(), threading.Event()

    def train(_: Context) -> dict[str, Any]:
        assert begun.wait(PATIENCE_S)
        failed.set()
        raise TrainingDiverged("the loss is not a number")

    def hits(_: Context) -> dict[str, Any]:
        begun.set()
        assert failed.wait(PATIENCE_S)
        threading.Event().wait(1)  # the driver hears of it
        return {}

    run, _ = a_run(tmp_path, ray_local, {"round-01-train": train, "round-00-hits": hits})
    with pytest.raises(TrainingDiverged, match="not a number"):
        need_beside(run, SECOND, plan_beside(run.config)[SECOND])
    assert names(run) == {"round-00-embed", "round-00-hits"}


def test_a_run_whose_round_is_worse_ends_after_the_round_that_trained_meanwhile(
    tmp_path: Path, ray_local: ClusterSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "summary_of", lambda *_: {})
    works: dict[str, Work] = {
        f"round-0{number}-evaluate": lambda _: {"against_best": {"verdict": "worse"}} for number in range(1, 5)
    }
    run, said = a_run(tmp_path, ray_local, works, mined=4)
    rounds.run_rounds(run)
    assert {name for name in names(run) if name.endswith(("train", "evaluate", "mine", "finish"))} == {
        *("baseline-evaluate", "round-00-train", "round-00-evaluate", "round-01-mine", "round-01-train", "round-01-evaluate"),
        *("round-02-mine", "round-02-train", "round-02-evaluate", "finish"),
    }
    assert said.getvalue().count("! ") == 1
