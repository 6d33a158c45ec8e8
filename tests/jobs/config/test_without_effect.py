"""Every row of the table: a setting that needs another one is named where that is missing, and only there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jobs.config.reference import all_settings
from jobs.config.without_effect import TABLE, without_effect
from tests.support.configs import config_with

VECTORS: Mapping[str, Any] = {"kind": "adapter"}
TEACHER = {"model": "organisation/teacher"}
OWN = {"mining.teacher.kind": "reranker", "reranker.model": "organisation/reranker"}
FOLDER = {"mining.teacher.model": "organisation/teacher"}
HTTP = {"mining.teacher.model": "m", "mining.teacher.kind": "http", "mining.teacher.url": "http://host:8080/rerank"}
CASES: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("encoder.dimension", 64, {"encoder.kind": "adapter"}, {"encoder.kind": "static"}),
    ("encoder.dimension", 64, {"encoder.model": "organisation/static"}, {}),
    ("encoder.vocabulary", 512, {"encoder.kind": "adapter"}, {}),
    ("encoder.hidden", 64, {}, {"encoder.kind": "adapter"}),
    ("encoder.hidden", 64, {}, {"encoder.kind": "sequence"}),
    ("encoder.repeats", True, {}, {"encoder.kind": "sequence"}),
    ("encoder.pooling", "cls", {}, {"encoder.kind": "transformer", "encoder.model": "organisation/model"}),
    ("encoder.pooling", "cls", {"encoder.kind": "adapter"}, {"encoder.kind": "adapter", "encoder.model": "organisation/model"}),
    ("encoder.item_prompt", "a: ", {"encoder.kind": "adapter"}, {"encoder.kind": "sequence", "encoder.model": "o/model"}),
    ("encoder.query_prompt", "a: ", {"encoder.kind": "sequence", "encoder.model": "o/model"}, {}),
    ("encoder.max_length", 64, {"encoder.kind": "adapter"}, {"encoder.kind": "sequence"}),
    ("training.margin", 0.3, {}, {"training.loss": "triplet"}),
    ("training.temperature", 0.1, {"training.loss": "triplet"}, {}),
    ("training.gather", False, {"training.in_batch": False}, {}),
    ("training.random_fraction", 1.0, {"training.hard_negatives": 0, "rounds.mined": 0}, {}),
    ("training.random_popularity", 0.5, {"training.hard_negatives": 0, "rounds.mined": 0}, {}),
    (
        "training.random_popularity",
        0.5,
        {"training.random_fraction": 0.0, "rounds.warmup_epochs": 0},
        {"training.random_fraction": 0.0},
    ),
    ("training.epochs", 3, {"rounds.mined": 0}, {}),
    ("rounds.background", True, {"rounds.mined": 1, "rounds.warmup_epochs": 0}, {"rounds.mined": 1}),
    ("rounds.patience", 3, {"rounds.mined": 3}, {"rounds.mined": 4}),
    ("mining.num_negatives", 16, {"rounds.mined": 0}, {}),
    ("mining.teacher", TEACHER, {"rounds.mined": 0}, {}),
    ("mining.choice_temperature", 0.1, {}, {"mining.choose": "softmax"}),
    ("mining.popularity_power", 1.0, {}, {"mining.popularity": "sales", "mining.choose": "uniform"}),
    ("mining.relative_margin", 0.2, {"mining.target_discard_rate": 0.1}, {}),
    ("mining.margin_reference", "lowest", {"mining.relative_margin": "off"}, {}),
    ("mining.teacher.max_length", 64, HTTP, FOLDER),
    ("mining.teacher.max_length", 64, OWN, FOLDER),
    ("mining.teacher.requests", 4, FOLDER, HTTP),
    ("mining.teacher.rubric", "rubric.txt", HTTP, HTTP | {"mining.teacher.kind": "llm"}),
    ("mining.search.min_recall", 0.9, {"mining.search.mode": "exact"}, {"mining.search.mode": "ivf"}),
    ("mining.search.lists", 64, {"mining.search.mode": "two_stage"}, {}),
    ("evaluation.min_slice_queries", 20, {"evaluation.slices": []}, {}),
    ("evaluation.gate.max_forgetting", 1.0, {}, {"evaluation.general": {"folder": "/general"}}),
    ("cluster.cpus", 4, {"cluster.address": "auto"}, {}),
    ("storage.endpoint", "http://minio:9000", {}, {"output": "s3://bucket/runs"}),
    ("storage.region", "eu-central-1", {}, {"data.folder": "s3://bucket/beir"}),
    ("storage.profile", "team", {}, {"encoder.model": "s3://bucket/model"}),
    ("storage.attempts", 9, {}, {"mining.teacher": {"model": "s3://bucket/teacher"}}),
]
"""(setting, its value, other settings that leave it without effect, other settings with which it has one)."""


@pytest.mark.parametrize(("key", "value", "idle", "working"), CASES)
def test_a_setting_is_named_where_it_has_no_effect_and_nowhere_else(
    key: str, value: Any, idle: dict[str, Any], working: dict[str, Any]
) -> None:
    def told(changes: dict[str, Any]) -> list[str]:
        return [text for text in without_effect(config_with(changes | {key: value})) if text.startswith(f"{key} = ")]

    (warning,) = told(idle)
    assert " has no effect: " in warning
    assert told(working) == []
    left_alone = without_effect(config_with(idle))
    assert not [text for text in left_alone if text.startswith(f"{key} = ")], "one that keeps its default is never named"


def test_every_row_of_the_table_has_a_case_and_names_settings_that_exist() -> None:
    tested = {key for key, *_ in CASES}
    known = {setting.key for setting in all_settings()} | {"mining.teacher", "mining.sources", "mining.rules"}
    for needs in TABLE:
        assert tested & set(needs.settings), needs.settings
        assert set(needs.settings) <= known


def test_mining_alone_reads_its_settings_whatever_the_rounds_are() -> None:
    assert without_effect(config_with({"rounds.mined": 0, "mining.num_negatives": 16}), trains=False) == []
