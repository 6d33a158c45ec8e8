"""`hardmine probe`: the run that it is, the rule that says yes or no, and the command on the real engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import Config, parse_config
from jobs.demo.catalogue import generate_catalogue
from jobs.stages.ingest.splits import leave_out_queries
from jobs.trials.probe import probe_config


def config(**sections: Any) -> Config:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


def test_a_probe_is_a_run_of_its_own_with_one_mined_round_and_a_random_arm() -> None:
    given = config(
        data={"folder": "/beir", "train_fraction": 0.5},
        rounds={"mined": 3, "warmup_epochs": 2, "seed": 5},
        training={"epochs": 4, "patience": 1, "learning_rate": 0.003},
        evaluation={"split": "test"},
        mining={"relative_margin": "off"},
        probe={"fraction": 0.2},
        sweep={"epochs": 7},
        reranker={"model": "/a-re-ranker"},
    )
    trial = probe_config(given)
    assert trial.reranker is None, "it is no part of the question"
    assert trial.root == "/runs/shop-probe"
    assert trial.data.train_fraction == pytest.approx(0.1)
    assert (trial.rounds.mined, trial.rounds.compare_random, trial.rounds.warmup_epochs) == (1, True, 2)
    assert (trial.training.epochs, trial.training.patience) == (1, 2), "neither arm may end before the other"
    assert trial.evaluation.split == "dev"
    same = (given.rounds.seed, given.training.learning_rate, given.mining, given.encoder)
    assert (trial.rounds.seed, trial.training.learning_rate, trial.mining, trial.encoder) == same


def test_other_thresholds_are_the_same_run() -> None:
    assert probe_config(config(probe={"min_lead": 9.0})) == probe_config(config(probe={"min_lead": 3.0}))


def test_a_name_without_room_for_the_ending_is_refused() -> None:
    with pytest.raises(ConfigError, match="name"):
        probe_config(config(name="n" * 98))


def test_a_config_that_mines_nothing_can_be_probed() -> None:
    assert probe_config(config(rounds={"mined": 0})).rounds.mined == 1


def test_a_share_of_the_training_queries_is_drawn_by_id_and_smaller_shares_are_parts_of_larger_ones() -> None:
    ids = pa.array([f"q{n}" for n in range(2000)])
    splits = ["dev" if n % 10 == 0 else "test" if n % 10 == 1 else "train" for n in range(2000)]

    def kept(fraction: float, order: Any = slice(None)) -> set[str]:
        own = list(np.array(splits)[order])
        names = ids.take(pa.array(np.arange(2000)[order]))
        notes = leave_out_queries(own, names, fraction)
        assert (own.count("dev"), own.count("test")) == (200, 200), "what is measured stays whole"
        assert notes == ({"train_queries_left_out": 1600 - own.count("train")} if fraction < 1 else {})
        assert own.count("none") == 1600 - own.count("train")
        return {name for name, split in zip(names.to_pylist(), own, strict=True) if split == "train"}

    tenth, half = kept(0.1), kept(0.5)
    assert tenth < half < kept(1.0)
    assert len(tenth) == pytest.approx(160, abs=50)
    assert kept(0.1, np.random.default_rng(1).permutation(2000)) == tenth
    assert len(kept(1e-9)) == 1


def fill(case: Any, queries: int = 200, titles: int = 120) -> None:
    """A small catalogue instead of the case's rows; a tenth of its queries is for dev, a tenth for test."""
    made = generate_catalogue(num_titles=titles, num_queries=queries)
    case.items, case.queries, case.labels = (table.to_pylist() for table in (made.corpus, made.queries, made.qrels))
    case.settings |= {
        "encoder": {"kind": "static", "dimension": 16, "vocabulary": 512},
        "rounds": {"mined": 2, "warmup_epochs": 0},
        "mining": {"num_hits": 20, "num_negatives": 4},
        "training": {"batch_size": 8, "hard_negatives": 2, "random_fraction": 0.5, "epochs": 4},
        "probe": {"fraction": 0.5},
        "evaluation": {"num_hits": 10},
    }
    case.set("data.item_text", "{title} {text}")


@pytest.mark.cluster
def test_a_probe_runs_both_arms_alike_says_what_they_differ_by_and_is_kept(ray_case: Any, ray_local: Any) -> None:
    fill(ray_case)
    answer = ray_case.run("--json", command="probe")
    result = json.loads(answer.out)
    # 20 queries are for dev, and half of the others makes about ten steps of eight: neither is enough
    assert (answer.code, result["passed"], result["verdict"]) == (0, None, "cannot tell"), answer.err
    assert "at least 40 are needed: " in result["reason"]
    assert "20 dev queries are too few, at least 50 are needed: label more for dev" in result["reason"]
    assert result.keys() >= {"passed", "verdict", "reason", "checks", "mined", "random", "baseline", "fraction", "seconds"}
    root = ray_case.folder / "out/run-probe"
    assert result["output"] == str(root)
    assert [path.name for path in (ray_case.folder / "out").iterdir()] == ["run-probe"], "the real run is not touched"

    _check_arms(Ledger(Store(str(root))), result)
    assert json.loads((root / "probe.json").read_text()) == result

    shown = ray_case.run("probe.min_lead=100", command="probe")
    assert not [line for line in shown.err.splitlines() if line.startswith("· ")], "no stage ran"
    assert shown.code == 0
    assert f"of 160 training queries ({result['fraction']:.1%})" in shown.out.replace("\n", " ")
    assert "cannot tell: " in shown.out
    assert "over 20 dev queries" in shown.out


@pytest.mark.cluster
def test_a_probe_with_enough_queries_and_steps_says_no_with_exit_code_1(ray_case: Any, ray_local: Any) -> None:
    fill(ray_case, queries=600, titles=400)
    ray_case.settings["probe"] = {"fraction": 1.0, "min_lead": 90}
    answer = ray_case.run("--json", command="probe")
    result = json.loads(answer.out)
    assert (answer.code, result["passed"], result["verdict"], result["fraction"]) == (1, False, "no", 1.0), answer.err
    assert result["steps"] >= 40
    assert result["checks"][0]["name"] == "recall@3"
    assert result["reason"].startswith("no: mined minus random negatives is ")


def _check_arms(ledger: Ledger, result: dict[str, Any]) -> None:
    mined, random, tables = (ledger.find(name) for name in ("round-01-train", "round-01-random-train", "ingest"))
    assert mined is not None
    assert random is not None
    assert tables is not None
    assert mined.figures["steps"] == random.figures["steps"] == result["steps"] > 0
    assert mined.figures["epochs"] == random.figures["epochs"] == 1, "a probe passes once over its queries"
    assert mined.inputs["model"] == random.inputs["model"], "both start from the same model"
    assert (mined.figures["negatives"], random.figures["negatives"]) == ("mined", "random")
    splits = tables.figures["splits"]
    assert (splits["dev"], splits["train"] + tables.figures["train_queries_left_out"]) == (20, 160)
    assert mined.figures["examples"] == splits["train"] == result["train_queries"] == pytest.approx(80, abs=30)
    assert result["fraction"] == splits["train"] / 160, "the share that was used, not the one that was asked for"
    for check in result["checks"]:
        assert check["value"] == pytest.approx(100 * (result["mined"][check["name"]] - result["random"][check["name"]]), abs=1e-3)
        assert check["interval"]["low"] <= check["value"] <= check["interval"]["high"]
        assert check["interval"]["queries"] == 20
    assert Path(ledger.store.root).name == "run-probe"
    found = ledger.find("round-01-evaluate")
    assert found is not None
    assert read_parts(ledger.store, found.parts("per_query")).num_rows == 20
