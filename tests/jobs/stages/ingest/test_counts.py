"""Settings that the data cannot serve are refused before the first expensive stage; what makes figures idle is warned about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import ConfigError, DataError, HardmineError
from jobs.config.config import Config
from jobs.stages.ingest.counts.counts import Counts, doubts, refuse_unfit
from tests.support.configs import config_with

COUNTS = Counts(
    items=1000,
    splits={"train": 400, "dev": 50, "test": 0},
    with_positive={"train": 400, "dev": 50, "test": 0},
    examples={"": 400},
    dimension=None,
)


def config(**changes: Any) -> Config:
    """A configuration; `section__key` is a setting."""
    return config_with({key.replace("__", "."): value for key, value in changes.items()})


def few(dev: int) -> dict[str, Any]:
    return {"with_positive": {"train": 400, "dev": dev, "test": 0}}


def train(count: int) -> dict[str, Any]:
    return {"splits": {"train": count, "dev": 50, "test": 0}, "examples": {"": count}}


SYNTHETIC = {"examples": {"click": 10, "synthetic": 390}}
OWN = {"encoder": {"kind": "adapter"}}


@pytest.mark.parametrize(
    ("changes", "counts", "kind", "words"),
    [
        ({}, {"items": 1}, DataError, ["at least 2 items", "found 1"]),
        ({"cluster__shards": 2000}, {}, ConfigError, ["cluster.shards = 2000", "1000 items"]),
        ({"mining__max_uses": 1}, {"items": 300}, ConfigError, ["max_uses = 1", "300 items", "400 training", "raise it to 43"]),
        ({"training__batch_size": 512}, {}, ConfigError, ["batch_size = 512", "400 training queries", "to 400 or less"]),
        ({"training__batch_size": 256}, {"ranks": 2}, ConfigError, ["256 on each of 2 rank(s)", "to 200 or less"]),
        (
            {"reranker": {"model": "/m", "batch_size": 256}, "training__accumulation": 2},
            {},
            ConfigError,
            ["reranker.batch_size = 256", "training.accumulation = 2", "400 training examples", "to 200 or less"],
        ),
        ({}, train(3) | {"ranks": 2}, DataError, ["at least 4 training queries for 2 rank(s), found 3"]),
        ({}, train(3) | {"ranks": 2}, DataError, ["label more queries, or lower cluster.train_workers"]),
        ({}, train(1), DataError, ["at least 2 training queries for 1 rank(s), found 1; label more queries"]),
        (
            {"data__train_fraction": 0.01},
            train(1) | {"left_out": {"train_queries_left_out": 39}},
            DataError,
            ["found 1, data.train_fraction", "leaves out 39; raise data.train_fraction, or label more queries"],
        ),
        (
            {"data__skip_queries_without_positive": True},
            train(1) | {"left_out": {"train_queries_skipped": 4, "dev_queries_cut_from_train": 1}},
            DataError,
            ["data.skip_queries_without_positive leaves out 4", "takes for dev 1; label those without a relevant item, or give"],
        ),
        ({}, SYNTHETIC, ConfigError, ["synthetic 390 with a cap of 20 %", "to 12 or less", "raise a cap"]),
        ({"training__one_source_per_batch": True}, {"examples": {"a": 20, "b": 20}}, ConfigError, ["all of one source", "to 20"]),
        ({"training__accumulation": 13}, {}, ConfigError, ["accumulation = 13", "12 micro-step(s)", "400 examples"]),
        (
            {"training__matryoshka": [64, 300]} | OWN,
            {"dimension": 128},
            ConfigError,
            ["[64, 300]", "vectors have 128", "above 128"],
        ),
        ({}, few(0), DataError, ['"dev"', "50 queries"]),
        ({"evaluation__split": "test"}, {}, DataError, ['"test"', "0 queries"]),
    ],
)
def test_what_the_data_cannot_serve_is_refused_with_the_numbers(
    changes: dict[str, Any], counts: dict[str, Any], kind: type[HardmineError], words: list[str]
) -> None:
    with pytest.raises(kind) as refused:
        refuse_unfit(config(**changes), replace(COUNTS, **counts), trains=True)
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, {}),
        ({"mining__max_uses": 1}, {"items": 400}),
        ({"mining__max_uses": 1, "rounds__mined": 0}, {"items": 300}),
        ({"training__batch_size": 200}, {"ranks": 2}),
        ({"training__batch_size": 12}, SYNTHETIC),
        ({"training__accumulation": 12}, {}),
        ({"training__matryoshka": [128]} | OWN, {"dimension": 128}),
    ],
)
def test_what_just_fits_is_accepted(changes: dict[str, Any], counts: dict[str, Any]) -> None:
    refuse_unfit(config(**changes), replace(COUNTS, **counts), trains=True)


def test_mining_alone_asks_for_nothing_of_training() -> None:
    counts = replace(COUNTS, **train(3), **few(0))
    refuse_unfit(config(training__batch_size=512), counts, trains=False)
    assert doubts(config(training__max_steps=1), counts, trains=False) == []


@pytest.mark.parametrize(
    ("changes", "counts", "words"),
    [
        ({}, {"items": 20}, ["num_negatives = 32", "20 items", "at most 19"]),
        ({"mining__num_negatives": 8}, {"items": 50}, ["num_hits = 100", "50 items", "every item"]),
        ({"training__label_sources": {"clik": {}}}, {"examples": {"click": 400}}, ['names "clik"', 'labels are: "click"']),
        ({"training__one_source_per_batch": True}, {}, ["one_source_per_batch = true has no effect", "one source, unnamed"]),
        ({"mining__max_uses": 12}, {}, ["max_uses = 12", "12,000 negatives", "400 training queries"]),
        (
            {"training__max_steps": 12, "training__epochs": 3},
            {},
            ["max_steps = 12", "epoch 1 of training.epochs = 3", "12 step(s)"],
        ),
        (
            {"training__max_steps": 24, "rounds__warmup_epochs": 4, "training__epochs": 2},
            {},
            ["epoch 2 of rounds.warmup_epochs = 4"],
        ),
        (
            {"training__max_steps": 30, "training__epochs": 2, "rounds__warmup_epochs": 0},
            {},
            ["max_steps = 30", "makes 24 steps"],
        ),
        ({"training__warmup_fraction": 0.05, "training__epochs": 2}, {}, ["0.05 of 12 step(s)", "rounds.warmup_epochs = 1"]),
        ({"evaluation__primary": "hit@5"}, {"items": 5}, ['"hit@5"', "5 items", "always 1"]),
        ({}, {"items": 9}, ["recall@10 among 9 items", "always 1"]),
        ({"evaluation__gate__min_slice": 0.5}, few(30), ["takes 50 queries", "30 dev queries", "min_slice = 0.5"]),
    ],
)
def test_what_makes_a_figure_or_a_setting_idle_is_a_warning(
    changes: dict[str, Any], counts: dict[str, Any], words: list[str]
) -> None:
    found = doubts(config(**changes), replace(COUNTS, **counts), trains=True)
    assert [text for text in found if all(word in text for word in words)], found


def test_ordinary_data_has_no_warnings() -> None:
    assert doubts(config(), COUNTS, trains=True) == []
    assert doubts(config(training__max_steps=12), COUNTS, trains=True) == [], "exactly one epoch"
