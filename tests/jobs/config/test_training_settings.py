"""The settings of training, from a config through the command to what a run leaves; and those that contradict each other."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.config.config import parse_config
from jobs.record.plan import plan_run
from training.telemetry.telemetry import read_lines


def config(**sections: Any) -> Any:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"learn_temperature": True, "temperature": 0.5}, ["training.temperature = 0.5", "between 0.01 and 0.2"]),
        ({"learn_temperature": True, "loss": "triplet"}, ["no temperature"]),
        ({"symmetric": True, "in_batch": False}, ["symmetric", "in_batch"]),
        ({"offload_optimizer": True, "zero_stage": 0}, ["zero_stage"]),
        ({"lora": {}}, ["training.lora", "static"]),
        ({"label_sources": {"click": {"cap": 0.0}}}, ["label_sources", "cap"]),
        ({"temperature": 3.0}, ["training.temperature", "3.0"]),
        ({"trackers": ["excel"]}, ["trackers", "excel"]),
    ],
)
def test_a_contradiction_is_one_paragraph_that_names_the_settings(training: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(training=training)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_addresses_of_a_guide_count_from_the_configs_folder(tmp_path: Path) -> None:
    values = {
        "name": "shop",
        "output": "runs",
        "data": {"folder": "beir"},
        "encoder": {"kind": "static"},
        "training": {"guide": {"model": "./guide"}},
    }
    found = parse_config(values, source="test", folder=tmp_path)
    assert found.training.guide is not None
    assert found.training.guide.model == str(tmp_path / "guide")
    with pytest.raises(ConfigError, match="must not hold keys"):
        config(training={"guide": {"model": "s3://KEY:SECRET@bucket/guide"}})


def names_of(config: Any) -> list[str]:
    return [stage.name for stage in plan_run(config)]


def test_a_guide_of_its_own_is_part_of_the_plan() -> None:
    own = {"guide": {"model": "organisation/name"}}
    names = names_of(config(training=own))
    assert [*names[names.index("guide") : names.index("round-00-train")]] == ["guide", "guide-tokens", "guide-embed"]
    assert "guide" not in names_of(config(training={"guide": {}}, encoder={"model": "organisation/other"}))
    assert names_of(config(training=own, rounds={"warmup_epochs": 0})).index("guide") > 0


def labelled(case: Any) -> None:
    """Labels of two sources, one of them synthetic and capped."""
    case.items = [{"id": f"i{n}", "title": f"Title {n}", "text": f"a text about thing {n % 9} and {n}"} for n in range(40)]
    case.queries = [{"id": f"q{n}", "text": f"thing {n}", "split": "dev" if n >= 32 else "train"} for n in range(40)]
    case.labels = [
        {"query_id": f"q{n}", "item_id": f"i{n}", "score": 1, "source": "click" if n % 2 else "synthetic"} for n in range(40)
    ]


@pytest.mark.cluster
def test_a_run_with_a_guide_sources_checkpoints_and_a_tracker(ray_case: Any, ray_local: Any) -> None:
    from training.encoders.prepare.prepare import build_base
    from training.settings import EncoderSettings

    labelled(ray_case)
    guide = build_base(
        EncoderSettings(kind="static", dimension=8, vocabulary=256),
        StorageSettings(),
        [item["text"] for item in ray_case.items],
        3,
        ray_case.folder / "guide",
    )
    ray_case.set("rounds.mined", 0)
    ray_case.set(
        "training",
        {
            "batch_size": 4,
            "epochs": 2,
            "guide": {"model": str(guide), "margin": 0.3},
            "matryoshka": [4],
            "symmetric": True,
            "learn_temperature": True,
            "grad_cache": True,
            "checkpoint_steps": 2,
            "random_popularity": 0.5,
            "trackers": ["tensorboard", "wandb"],
            "label_sources": {"click": {"weight": 2.0}},
        },
    )
    answer = ray_case.run("--json")
    assert answer.code == 0, answer.err
    assert "sources: click 16" in answer.err
    assert "synthetic 4 of 16" in answer.err
    summary = json.loads(answer.out)
    store = Store(str(ray_case.folder / "out/run"))
    trained = Ledger(store).find("round-00-train")
    assert trained is not None
    folder = trained.figures["prefix"].rpartition("/")[0]
    steps = [line for line in read_lines(store, folder) if "event" not in line]
    assert len(steps) == trained.figures["steps"] == 5  # 20 examples of the epoch, 4 a step
    assert len({line["temperature"] for line in steps}) == 5
    assert max(line["left_out_per_query"] for line in steps) > 0
    table = pq.read_table(io.BytesIO(store.read_bytes(f"{folder}/telemetry.parquet")))
    assert table["loss"].to_pylist() == pytest.approx([line["loss"] for line in steps], rel=1e-6)
    (events,) = {path.rpartition("/")[0] for path in store.list("tensorboard")}
    assert events.startswith("tensorboard/round-00/"), "named by round, for a person who looks at them"
    assert summary["tensorboard"] == store.url("tensorboard")
    if importlib.util.find_spec("wandb") is None:
        warning = (
            'round-00: tracker wandb is off: its package is not installed; pip install "hardmine[wandb]" where training runs'
        )
        assert summary["warnings"] == [warning]
        shown = ray_case.run("training.trackers=[]").out
        assert f"! {warning}" in shown, "a warning that scrolled by is repeated at the end"
        assert f"tensorboard --logdir {store.url('tensorboard')}" in shown
    assert not store.list(f"{folder}/engine"), "checkpoints serve resuming only"
    assert summary["rounds"][0]["train_loss"] > 0

    again = ray_case.run("training.checkpoint_steps=1", "training.trackers=[]", "--json")
    assert again.code == 0, again.err
    assert Ledger(store).find("round-00-train") == trained, "what changes no weight trains nothing anew"
