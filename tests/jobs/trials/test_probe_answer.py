"""What a probe's figures say: yes, no, or cannot tell with what would be enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eval.significance import Interval
from jobs.config.config import parse_config
from jobs.trials.probe import measure_lead
from jobs.trials.probe_answer import Lead

INGESTED = {"splits": {"train": 500, "dev": 400}, "train_queries_left_out": 4500, "dev_queries_cut_from_train": 400}


def lead(mean: float, low: float, high: float, queries: int = 400, *, steps: int = 100, primary: str = "recall@3") -> Lead:
    """A lead in points; at least 0.5 is asked for."""
    values: Any = {
        "name": "shop",
        "output": "/runs",
        "data": {"folder": "/beir"},
        "encoder": {"kind": "static"},
        "evaluation": {"primary": primary},
    }
    share = Interval(mean / 100, low / 100, high / 100, queries)
    return measure_lead(parse_config(values, source="test"), share, INGESTED, steps=steps)


@pytest.mark.parametrize(
    ("points", "want"),
    [
        ((2.0, 0.5, 3.5), "yes"),
        ((0.5, 0.1, 0.9), "yes"),
        ((2.0, -0.5, 4.5), "cannot tell"),  # it may be chance
        ((0.4, 0.1, 0.7), "cannot tell"),  # a gain, which may be as large as asked for
        ((0.0, -2.0, 2.0), "cannot tell"),
        ((0.3, 0.2, 0.4), "no"),  # a gain, certainly smaller than asked for
        ((0.0, -0.2, 0.2), "no"),
        ((-3.0, -5.0, -1.0), "no"),
    ],
)
def test_the_answer_follows_from_the_interval(points: Any, want: str) -> None:
    found = lead(*points)
    assert found.answer == want
    assert found.reason.startswith(f"{want}: ")
    assert found.passed is {"yes": True, "no": False, "cannot tell": None}[want]


@pytest.mark.parametrize("points", [(9.0, 8.0, 10.0), (-9.0, -10.0, -8.0), (0.0, 0.0, 0.0)])
def test_few_steps_or_few_queries_give_no_answer_however_large_the_difference(points: Any) -> None:
    for few in ({"steps": 39}, {"queries": 49}, {"steps": 1, "queries": 3}):
        assert lead(*points, **few).answer == "cannot tell", few
    assert lead(*points, queries=100_000).answer in ("yes", "no")


def test_what_would_give_enough_steps_is_named() -> None:
    # a tenth of the queries: 8 steps need five times as many, or a fifth of the batch
    assert "8 steps in each arm are too few, at least 40 are needed: probe.fraction = 0.5, or training.batch_size = 6" in (
        lead(1.0, 0.5, 1.5, steps=8).reason
    )
    one = lead(1.0, 0.5, 1.5, steps=1)
    assert "1 step in each arm is too few" in one.reason
    assert "probe.fraction = 1 with training.batch_size = 8." in one.reason, "all queries give ten steps"
    whole = replace(one, trial=replace(one.trial, fraction=1.0, steps=12))
    assert "needed: training.batch_size = 9." in whole.reason
    few = replace(one, trial=replace(one.trial, fraction=1.0, steps=2))
    assert "needed: this takes more training queries." in few.reason, "a batch of one query has no negatives of others"
    capped = replace(one, trial=replace(one.trial, max_steps=20, steps=20))
    assert "needed: raise training.max_steps = 20" in capped.reason


def test_what_would_give_enough_dev_queries_fits_the_data() -> None:
    few = lead(1.0, 0.5, 1.5, queries=20)
    assert "20 dev queries are too few, at least 50 are needed: raise data.dev_fraction, or label more" in few.reason
    own = replace(few, trial=replace(few.trial, dev_cut=False))
    assert "needed: label more for dev" in own.reason
    assert "dev_fraction" not in own.reason, "the data has a dev split of its own"


def test_a_wide_interval_tells_how_many_queries_would_do() -> None:
    # ±2.5 points with 400 queries: 25 times as many for ±0.5
    assert "±2.50 points with 400 dev queries; about 10,000 would make it ±0.50" in lead(2.0, -0.5, 4.5).reason


def test_queries_that_all_agree_prove_little_when_they_are_few() -> None:
    assert lead(0.0, 0.0, 0.0, queries=60).answer == "cannot tell"
    assert lead(0.0, 0.0, 0.0, queries=100_000).answer == "no"


def test_the_primary_figure_decides_and_the_share_that_was_used_is_told() -> None:
    found = lead(2.0, 0.5, 3.5, primary="mrr@10")
    assert (found.metric, found.trial.train_queries, found.trial.all_queries) == ("mrr@10", 500, 5000)
    assert "points of MRR@10 [+0.50, +3.50] (at least +0.50)" in found.reason
    assert found.as_json() == {
        "name": "mrr@10",
        "value": 2.0,
        "threshold": 0.5,
        "passed": True,
        "interval": {"mean": 2.0, "low": 0.5, "high": 3.5, "queries": 400, "excludes_zero": True},
    }
