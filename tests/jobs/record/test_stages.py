"""Names of stages: each is read back as the stage that it names, and no two stages share a name or a folder."""

from __future__ import annotations

import pytest

from jobs.config.config import Config, parse_config
from jobs.record.plan import plan_run
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Reranker, Scope, Second, SourceName, Stage, parse_name

ALONE = (Kind.SEARCH, Kind.PAIRS, Kind.SCORE, Kind.NEAR, Kind.TEACHER_PAIRS, Kind.TEACHER_SCORES, Kind.MINE, Kind.REPORT)
EVERYTHING = {
    "rounds": {"mined": 3, "merge": [5, 50], "compare_random": True},
    "data": {"folder": "/beir", "mix": {"folder": "/mix"}},
    "evaluation": {"general": {"folder": "/general"}, "events": True, "split": "test"},
    "mining": {
        "sources": [{"kind": kind} for kind in ("model", "bm25", "baseline", "earlier")],
        "near_duplicate": 0.9,
        "teacher": {"model": "/teacher", "kind": "encoder"},
    },
    "reranker": {"model": "/reranker"},
}


def config(**sections: object) -> Config:
    values = {
        "name": "shop",
        "output": "/runs",
        "data": {"folder": "/beir"},
        "encoder": {"kind": "static", "model": "/static"},
    } | sections
    return parse_config(values, source="test")


def test_every_stage_of_the_largest_plan_is_read_back_from_its_name() -> None:
    stages = [stage for stage in plan_run(config(**EVERYTHING)) if stage.kind is not Kind.EMBED]
    stages += [Stage(kind, scope=Scope.ALONE) for kind in ALONE]
    stages.append(Stage(Kind.SOURCE, SourceName("bm25"), Scope.ALONE))
    assert [parse_name(stage.name) for stage in stages] == stages
    assert len({stage.name for stage in stages}) == len(stages)


def test_no_two_stages_of_one_kind_share_a_folder_but_those_addressed_by_content() -> None:
    by_content = {Kind.INGEST, Kind.TOKENS, Kind.EMBED}
    stages = [stage for stage in plan_run(config(**EVERYTHING)) if stage.kind not in by_content]
    folders = [stage.folder for stage in stages]
    assert len(set(folders)) == len(folders), [folder for folder in folders if folders.count(folder) > 1]


@pytest.mark.parametrize(
    ("stage", "name", "folder"),
    [
        (Stage(Kind.INGEST), "ingest", "tables"),
        (Stage(Kind.INGEST, scope=Scope.GENERAL), "general-ingest", "tables"),
        (Stage(Kind.SEARCH, ModelName(1)), "round-01-search", "rounds/01/hits-train"),
        (Stage(Kind.SEARCH, BASELINE), "baseline-search", "baseline/hits-train"),
        (Stage(Kind.HITS, ModelName(2, random=True)), "round-02-random-hits", "rounds/02-random/hits-dev"),
        (Stage(Kind.HITS, ModelName(1), Scope.GENERAL), "general-round-01-hits", "general/round-01/hits"),
        (Stage(Kind.MERGE, ModelName(105)), "merged-05-merge", "rounds/merged-05/merge"),
        (Stage(Kind.HITS, ModelName(150), Scope.GENERAL), "general-merged-50-hits", "general/merged-50/hits"),
        (Stage(Kind.EVALUATE, Chosen.BEST), "test-best-evaluate", "test/best/evaluate"),
        (Stage(Kind.MINE, scope=Scope.ALONE), "mine", "mine/mine"),
        (Stage(Kind.REPORT, scope=Scope.ALONE), "mine-report", "mine/report"),
        (Stage(Kind.MODEL, Second.TEACHER), "teacher", "teacher"),
        (Stage(Kind.SOURCE, SourceName("bm25")), "bm25", "bm25"),
        (Stage(Kind.SOURCE, SourceName("bm25"), Scope.ALONE), "mine-bm25", "bm25"),
        (Stage(Kind.TEACHER_SCORES, ModelName(3)), "round-03-teacher", "rounds/03/teacher"),
        (Stage(Kind.EVENTS, BASELINE), "baseline-events", "events/baseline"),
        (Stage(Kind.MODEL, Second.RERANKER), "reranker", "reranker"),
        (Stage(Kind.TRAIN_RERANKER), "reranker-train", "reranker/train"),
        (Stage(Kind.RERANK, Reranker.FINE_TUNED), "fine-tuned-rerank", "reranker/fine-tuned/scores"),
        (Stage(Kind.RERANKED), "reranked", "reranker/table"),
        (Stage(Kind.FINISH), "finish", "model"),
    ],
)
def test_a_stage_is_called_and_lies_where_users_of_a_run_look_for_it(stage: Stage, name: str, folder: str) -> None:
    assert (stage.name, stage.folder) == (name, folder)


def test_what_no_stage_is_called_is_no_stage() -> None:
    assert [parse_name(name) for name in ("", "round-01", "finish-2", "rounds-01-mine", "general-")] == [None] * 5


def test_vectors_are_stages_named_after_their_content() -> None:
    assert parse_name("embed-0123456789ab") == Stage(Kind.EMBED)
