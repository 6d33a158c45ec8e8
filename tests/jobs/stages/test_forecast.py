"""What a run can learn and show is told before it runs, and what is proposed would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.config.config import Config, parse_config
from jobs.config.derived import with_settings
from jobs.record.record import RunRecord
from jobs.stages.ingest.counts.counts import Counts
from jobs.stages.ingest.counts.forecast import UNRELATED, Spread, enough_dev, enough_steps, forecast, known_spread
from tests.support.synthetic_run import Size, write_run

CUT = {"dev_queries_cut_from_train": 8}


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    return parse_config(values, source="test")


def counts(train: int = 80, dev: int = 8, *, left_out: Mapping[str, int] | None = None, ranks: int = 1) -> Counts:
    splits = {"train": train, "dev": dev, "test": 0}
    return Counts(500, splits, splits, {"": train}, None, ranks=ranks, left_out=CUT if left_out is None else left_out)


def test_steps_and_pairs_are_those_that_training_takes() -> None:
    told = forecast(config(training__epochs=3, rounds__warmup_epochs=2), counts())
    warmup, mined = told.rounds
    assert (warmup.steps, warmup.pairs) == (4, 128), "80 queries are 2 whole batches of 32"
    assert (mined.steps, mined.pairs) == (6, 192)
    two_ranks = forecast(config(), counts(ranks=2)).rounds[1]
    assert (two_ranks.steps, two_ranks.pairs) == (1, 64)
    joined = forecast(config(training__accumulation=2), counts()).rounds[1]
    assert (joined.steps, joined.pairs) == (1, 64)
    assert forecast(config(training__max_steps=1), counts()).rounds[1].steps == 1


def test_a_run_that_mines_nothing_forecasts_no_mined_round() -> None:
    assert [r.name for r in forecast(config(rounds__mined=0), counts()).rounds] == ["round 0 (warm-up)"]
    assert [r.name for r in forecast(config(rounds__warmup_epochs=0), counts()).rounds] == ["each mined round"]


def test_the_smallest_gain_falls_with_the_root_of_the_queries() -> None:
    few, many = (forecast(config(), counts(dev=dev)).gain_points for dev in (100, 400))
    assert few == pytest.approx(100 * 1.959964 * np.sqrt(0.5 / 100), rel=1e-4)
    assert few == pytest.approx(2 * many)
    known = forecast(config(), counts(dev=100), Spread(0.3, "as round 1 measured"))
    assert known.gain_points == pytest.approx(100 * 1.959964 * 0.3 / 10, rel=1e-4)
    assert "5.9 points of Recall@3 cannot be told from chance at 95%" in known.lines()[1]
    assert "as round 1 measured" in known.lines()[1]
    assert UNRELATED.basis in forecast(config(), counts()).lines()[1], "an assumption is named as one"


def test_what_is_enough_is_no_warning() -> None:
    assert forecast(config(), counts(train=40 * 32, dev=50)).warnings == ()
    assert len(forecast(config(), counts(train=40 * 32 - 1, dev=50)).warnings) == 1
    assert len(forecast(config(), counts(train=40 * 32, dev=49)).warnings) == 1


SHORT: list[dict[str, Any]] = [
    {},
    {"training__epochs": 3, "rounds__warmup_epochs": 0},
    {"training__batch_size": 64, "training__epochs": 2},
    {"training__accumulation": 2},
    {"training__max_steps": 5},
    {"training__batch_size": 8},
    {"rounds__mined": 0},
    {"training__batch_size": 16, "training__epochs": 39, "rounds__warmup_epochs": 39},
]


@pytest.mark.parametrize("changes", SHORT)
@pytest.mark.parametrize(("train", "ranks"), [(80, 1), (600, 1), (130, 2)])
def test_every_proposal_makes_enough_steps_and_is_not_what_is_set(changes: dict[str, Any], train: int, ranks: int) -> None:
    before, of_data = config(**changes), counts(train=train, ranks=ranks)
    told = forecast(before, of_data)
    proposals = enough_steps(before, of_data)
    short = any(r.steps < 40 for r in told.rounds)
    assert bool(proposals) or not short
    for proposal in proposals if short else ():
        after = with_settings(before, proposal, source="test")
        assert all(r.steps >= 40 for r in forecast(after, of_data).rounds), proposal
        for key, value in proposal.items():
            section, name = key.split(".")
            assert getattr(getattr(before, section), name) != value
            assert f"{key}={value}" in " ".join(told.warnings)


def test_a_dev_split_is_proposed_larger_where_it_is_cut_and_is_large_enough_on_average() -> None:
    of_data = counts(train=720, dev=20)
    share = enough_dev(config(data__dev_fraction=0.03), of_data)["data.dev_fraction"]
    assert share * 740 >= 50
    assert enough_dev(config(data__dev_fraction=0.2), of_data) == {}, "never less than is set"
    assert enough_dev(config(), counts(train=60, dev=8)) == {}, "half of all is not enough"
    given = counts(train=720, dev=20, left_out={})
    assert enough_dev(config(), given) == {}
    (warning,) = [text for text in forecast(config(training__epochs=9, rounds__warmup_epochs=9), given).warnings if "dev" in text]
    assert "dev_fraction" not in warning
    assert "label more dev queries, or give some of the 720 training queries the split dev" in warning


def test_settings_that_nobody_set_are_not_proposed() -> None:
    trial = with_settings(config(), {"name": "shop-probe", "data.train_fraction": 0.1}, source="a probe")
    told = forecast(trial, counts())
    assert told.warnings
    assert not [text for text in told.warnings if "training.epochs=" in text or "dev_fraction=" in text]


def test_the_spread_is_that_of_the_last_round_against_off_the_shelf(tmp_path: Path) -> None:
    store = write_run(tmp_path / "shop", Size(queries=400))
    record = RunRecord.read(store)
    spread = known_spread(store, record, "recall@3")
    assert spread is not None
    assert spread.basis == "as round 2 measured against off the shelf"
    told = forecast(config(), counts(dev=400), spread)
    change = record.rounds[-1].change("baseline")["recall@3"]
    assert told.gain_points == pytest.approx(100 * (change["high"] - change["low"]) / 2, rel=1e-3), "the interval's half width"
    assert known_spread(store, record, "hit@7") is None, "a figure that was not measured"


def test_of_the_off_the_shelf_model_alone_the_spread_is_a_bound(tmp_path: Path) -> None:
    store = write_run(tmp_path / "shop", Size(queries=400))
    alone = RunRecord.read(store)
    alone = replace(alone, commits={stage: commit for stage, commit in alone.commits.items() if "round" not in stage.name})
    spread = known_spread(store, alone, "recall@3")
    measured = known_spread(store, RunRecord.read(store), "recall@3")
    assert spread is not None
    assert measured is not None
    assert measured.value < spread.value <= UNRELATED.value
    assert spread.basis.startswith("at most")
    assert known_spread(store, RunRecord({}), "recall@3") is None
