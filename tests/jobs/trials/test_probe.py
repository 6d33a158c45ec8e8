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
from eval.significance import Interval
from jobs.config.config import Config, parse_config
from jobs.config.probe import ProbeSettings
from jobs.demo.catalogue import generate_catalogue
from jobs.stages.ingest.splits import leave_out_queries
from jobs.trials.probe import Lead, advice, measure_leads, probe_config


def config(**sections: Any) -> Config:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


def leads(hit5: tuple[float, float, float], hit10: tuple[float, float, float], queries: int = 400) -> list[Lead]:
    """Both leads from (mean, low, high) in points."""
    return measure_leads(
        ProbeSettings(),
        {
            metric: Interval(*(value / 100 for value in points), queries)
            for metric, points in (("hit@5", hit5), ("hit@10", hit10))
        },
    )


def test_a_probe_is_a_run_of_its_own_with_one_mined_round_and_a_random_arm() -> None:
    given = config(
        data={"folder": "/beir", "train_fraction": 0.5},
        rounds={"mined": 3, "warmup_epochs": 2, "seed": 5},
        training={"epochs": 4, "patience": 1, "learning_rate": 0.003},
        evaluation={"split": "test"},
        mining={"relative_margin": "off"},
        probe={"fraction": 0.2, "epochs": 3},
        sweep={"epochs": 7},
    )
    trial = probe_config(given)
    assert trial.root == "/runs/shop-probe"
    assert trial.data.train_fraction == pytest.approx(0.1)
    assert (trial.rounds.mined, trial.rounds.compare_random, trial.rounds.warmup_epochs) == (1, True, 2)
    assert (trial.training.epochs, trial.training.patience) == (3, 3), "neither arm may end before the other"
    assert trial.evaluation.split == "dev"
    same = (given.rounds.seed, given.training.learning_rate, given.mining, given.encoder)
    assert (trial.rounds.seed, trial.training.learning_rate, trial.mining, trial.encoder) == same


def test_other_thresholds_are_the_same_run() -> None:
    assert probe_config(config(probe={"hit5_points": 9.0})) == probe_config(config(probe={"hit10_points": 3.0}))


def test_a_name_without_room_for_the_ending_is_refused() -> None:
    with pytest.raises(ConfigError, match="name"):
        probe_config(config(name="n" * 98))


def test_a_config_that_mines_nothing_can_be_probed() -> None:
    assert probe_config(config(rounds={"mined": 0})).rounds.mined == 1


@pytest.mark.parametrize(
    ("hit5", "hit10", "passed"),
    [
        ((0.5, 0.1, 0.9), (1.5, 0.2, 2.8), True),
        ((0.49, 0.1, 0.9), (1.5, 0.2, 2.8), False),
        ((0.5, 0.1, 0.9), (1.49, 0.2, 2.8), False),
        ((-2.0, -3.0, -1.0), (4.0, 3.0, 5.0), False),
    ],
)
def test_yes_needs_both_differences(hit5: Any, hit10: Any, passed: bool) -> None:
    both = leads(hit5, hit10)
    assert all(lead.passed for lead in both) is passed
    assert advice(both).startswith("yes" if passed else "no")


def test_a_yes_that_may_be_chance_says_so() -> None:
    assert "chance" not in advice(leads((2.0, 0.5, 3.5), (3.0, 1.0, 5.0)))
    text = advice(leads((2.0, -0.5, 4.5), (3.0, 1.0, 5.0)))
    assert text.startswith("yes")
    # ±2.5 points with 400 queries: 25 times as many for ±0.5
    assert "Hit@5 includes 0, so that may be chance: about 10,000 dev queries" in text


def test_a_no_for_want_of_queries_tells_how_many_would_do() -> None:
    text = advice(leads((0.0, -2.0, 2.0), (1.0, -3.0, 5.0)))
    assert text.startswith("no: too few queries to tell (the interval of Hit@5 is ±2.00 points with 400 dev queries")
    assert "about 6,400 queries" in text, "16 times as many for ±0.5"


@pytest.mark.parametrize(
    ("hit5", "hit10"),
    [
        ((-1.0, -1.5, -0.6), (1.0, -3.0, 5.0)),  # certainly worse in one of them
        ((0.0, -0.2, 0.2), (0.0, -0.4, 0.4)),  # certainly below both thresholds
        ((0.4, 0.1, 0.7), (2.0, 1.0, 3.0)),  # a gain, but less than asked for
    ],
)
def test_a_no_that_is_sure_does_not_blame_the_queries(hit5: Any, hit10: Any) -> None:
    text = advice(leads(hit5, hit10))
    assert text.startswith("no: mined")
    assert "too few" not in text


def test_queries_that_all_agree_prove_little_when_they_are_few() -> None:
    assert "too few queries" in advice(leads((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), queries=20))
    assert advice(leads((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), queries=100_000)).startswith("no: mined")


def test_an_interval_is_told_in_points_with_whether_it_excludes_zero() -> None:
    first, second = (lead.as_json() for lead in leads((2.0, 0.5, 3.5), (3.0, -1.0, 7.0)))
    assert first == {
        "name": "hit@5",
        "value": 2.0,
        "threshold": 0.5,
        "passed": True,
        "interval": {"mean": 2.0, "low": 0.5, "high": 3.5, "queries": 400, "excludes_zero": True},
    }
    assert second["interval"]["excludes_zero"] is False


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


def fill(case: Any) -> None:
    """A small catalogue instead of the case's rows."""
    made = generate_catalogue(num_titles=120, num_queries=200)
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
    assert answer.code == (0 if result["passed"] else 1), answer.err
    assert result.keys() >= {"passed", "verdict", "checks", "mined", "random", "baseline", "fraction", "seconds"}
    assert (result["fraction"], result["passed"]) == (0.5, all(check["passed"] for check in result["checks"]))
    root = ray_case.folder / "out/run-probe"
    assert result["output"] == str(root)
    assert [path.name for path in (ray_case.folder / "out").iterdir()] == ["run-probe"], "the real run is not touched"

    _check_arms(Ledger(Store(str(root))), result)
    assert json.loads((root / "probe.json").read_text()) == result

    again = ray_case.run("--json", "probe.hit5_points=100", command="probe")
    assert again.code == 1
    assert not [line for line in again.err.splitlines() if line.startswith("· ")], "no stage ran"
    other = json.loads(again.out)
    assert [check["value"] for check in other["checks"]] == [check["value"] for check in result["checks"]]
    assert other["seconds"] == result["seconds"]
    shown = ray_case.run("probe.hit5_points=100", command="probe")
    assert shown.code == 1
    assert "asked for at least +100.00: not passed" in shown.out
    assert "over 20 dev queries" in shown.out


def _check_arms(ledger: Ledger, result: dict[str, Any]) -> None:
    mined, random, tables = (ledger.find(name) for name in ("round-01-train", "round-01-random-train", "ingest"))
    assert mined is not None
    assert random is not None
    assert tables is not None
    assert mined.figures["steps"] == random.figures["steps"] == result["steps"] > 0
    assert mined.figures["epochs"] == random.figures["epochs"] == 1, "[probe] says how many"
    assert mined.inputs["model"] == random.inputs["model"], "both start from the same model"
    assert (mined.figures["negatives"], random.figures["negatives"]) == ("mined", "random")
    splits = tables.figures["splits"]
    assert (splits["dev"], splits["train"] + tables.figures["train_queries_left_out"]) == (20, 160)
    assert mined.figures["examples"] == splits["train"] == pytest.approx(80, abs=30)
    for check in result["checks"]:
        assert check["value"] == pytest.approx(100 * (result["mined"][check["name"]] - result["random"][check["name"]]), abs=1e-3)
        assert check["interval"]["low"] <= check["value"] <= check["interval"]["high"]
        assert check["interval"]["queries"] == 20
    assert Path(ledger.store.root).name == "run-probe"
    found = ledger.find("round-01-evaluate")
    assert found is not None
    assert read_parts(ledger.store, found.parts("per_query")).num_rows == 20
