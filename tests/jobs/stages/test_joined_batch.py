"""The batch of a run is settled by its first training, and by nothing that the cluster does later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.commits import Ledger, Outcome
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from jobs.config.config import parse_config
from jobs.record.stages import Kind, ModelName, Stage
from jobs.stages.chosen import counted_ranks, joined_batch
from jobs.stages.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    values: dict[str, Any] = {
        "name": "run",
        "output": str(tmp_path),
        "data": {name: f"{name}.parquet" for name in ("corpus", "queries", "qrels")},
        "encoder": {"kind": "static"},
        "rounds": {"mined": 2},
        "training": {"batch_size": 8},
    }
    store = Store(str(tmp_path / "run"))
    config = parse_config(values, source="test")
    return Context(config, store, Ledger(store), Progress(quiet=True), ClusterSize(1, 2, 0), {}, {})


def trained(context: Context, number: int, batch_size: int, joined: int) -> None:
    context.ledger.stage(
        Stage(Kind.TRAIN, ModelName(number)).name,
        inputs={"training": {"batch_size": batch_size}},
        work=lambda _: Outcome(figures={"joined_batch": joined}),
        folder="train",
    )


def test_before_the_first_training_the_ranks_that_are_there_decide(context: Context) -> None:
    assert joined_batch(context, 3) is None
    assert counted_ranks(context, 4) == 4


def test_the_first_training_decides_for_all_later_ones(context: Context) -> None:
    trained(context, 0, 8, 16)
    trained(context, 1, 8, 24)
    assert joined_batch(context, 0) is None
    assert joined_batch(context, 1) == joined_batch(context, 3) == 16
    assert counted_ranks(context, 4) == 2


def test_another_batch_size_begins_anew(context: Context) -> None:
    trained(context, 0, 32, 64)
    assert joined_batch(context, 3) is None
