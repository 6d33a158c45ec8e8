"""The order of a run's stages: what each reads comes before it, and what rounds share comes once."""

from __future__ import annotations

from jobs.config.config import Config, parse_config
from jobs.record.plan import plan_beside, plan_run
from jobs.record.stages import BASELINE, Kind, ModelName, Scope, Stage
from jobs.stages.chosen import mining_model


def config(**sections: object) -> Config:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


def test_a_small_run_in_words() -> None:
    assert [stage.name for stage in plan_run(config(rounds={"mined": 1}))] == [
        *("ingest", "base", "tokens", "baseline-embed", "baseline-hits", "baseline-evaluate"),
        *("round-00-train", "round-00-embed", "round-00-hits", "round-00-evaluate"),
        *("round-01-search", "round-01-mine", "round-01-report"),
        *("round-01-train", "round-01-embed", "round-01-hits", "round-01-evaluate", "finish"),
    ]


def test_no_stage_comes_twice() -> None:
    stages = plan_run(
        config(
            rounds={"mined": 4, "compare_random": True},
            mining={"sources": [{"kind": kind} for kind in ("model", "bm25", "baseline", "earlier")], "near_duplicate": 0.9},
        )
    )
    assert len(set(stages)) == len(stages)


def test_a_run_that_ended_early_has_a_shorter_plan_and_its_arm_is_named_after_its_last_round() -> None:
    long = config(rounds={"mined": 5, "compare_random": True})
    short = config(rounds={"mined": 2, "compare_random": True})
    assert plan_run(long, mined=2) == plan_run(short)
    assert Stage(Kind.TRAIN, ModelName(2, random=True)) in plan_run(short)


def test_merged_models_follow_the_last_round_and_are_measured_as_every_model_is() -> None:
    merged = config(
        encoder={"kind": "adapter"},
        rounds={"mined": 5, "merge": [75, 25, 25], "compare_random": True},
        evaluation={"general": {"folder": "/general"}},
    )
    names = [stage.name for stage in plan_run(merged, mined=1)]
    start = names.index("merged-25-merge")
    assert names[start - 1] == "general-round-01-evaluate"
    own, general = ("embed", "hits", "evaluate"), ("general-merged-25-embed", "general-merged-25-hits")
    assert names[start + 1 : start + 6] == [*(f"merged-25-{each}" for each in own), *general]
    assert names[start + 7] == "merged-75-merge", "in the order of their shares, none twice"
    assert names[start + 14] == "round-01-random-train"


def test_vectors_that_came_with_the_data_are_not_tokenised() -> None:
    stages = plan_run(config(encoder={"kind": "adapter"}))
    assert Stage(Kind.TOKENS) not in stages
    assert Stage(Kind.TOKENS) in plan_run(config(encoder={"kind": "adapter", "model": "organisation/model"}))


def test_the_off_the_shelf_model_adds_candidates_once_the_model_is_another_one() -> None:
    sources = {"sources": [{"kind": "model"}, {"kind": "baseline"}]}
    warm = plan_run(config(mining=sources))
    cold = plan_run(config(mining=sources, rounds={"warmup_epochs": 0}))
    search = Stage(Kind.SEARCH, BASELINE)
    assert warm.index(search) < warm.index(Stage(Kind.MINE, ModelName(1)))
    assert cold.index(Stage(Kind.MINE, ModelName(1))) < cold.index(search) < cold.index(Stage(Kind.MINE, ModelName(2)))


def test_what_is_mixed_in_is_prepared_once_and_embedded_for_an_adapter_on_a_model_only() -> None:
    mix = {"folder": "/beir", "mix": {"folder": "/mix"}}
    of_static = [stage.kind for stage in plan_run(config(data=mix)) if stage.scope is Scope.MIX]
    assert of_static == [Kind.INGEST, Kind.TOKENS]
    on_vectors = [stage.kind for stage in plan_run(config(data=mix, encoder={"kind": "adapter"})) if stage.scope is Scope.MIX]
    assert on_vectors == [Kind.INGEST]
    on_a_model = plan_run(config(data=mix, encoder={"kind": "adapter", "model": "organisation/model"}))
    assert [stage.kind for stage in on_a_model if stage.scope is Scope.MIX] == [Kind.INGEST, Kind.TOKENS, Kind.EMBED]
    assert on_a_model.index(Stage(Kind.EMBED, BASELINE, Scope.MIX)) < on_a_model.index(Stage(Kind.TRAIN, ModelName(0)))


def test_the_random_arm_is_not_watched_on_the_general_set() -> None:
    stages = plan_run(config(rounds={"compare_random": True}, evaluation={"general": {"folder": "/general"}}))
    watched = {stage.of for stage in stages if stage.scope is Scope.GENERAL and stage.kind is Kind.EVALUATE}
    assert watched == {BASELINE, ModelName(0), ModelName(1), ModelName(2)}


def test_a_re_ranker_is_prepared_first_and_measured_last() -> None:
    names = [stage.name for stage in plan_run(config(rounds={"mined": 1}, reranker={"model": "/reranker"}))]
    assert names.index("reranker") < names.index("baseline-embed")
    assert names[-6:] == ["reranker-train", "reranker-pairs", "off-the-shelf-rerank", "fine-tuned-rerank", "reranked", "finish"]


def names_beside(given: Config) -> dict[str, list[str]]:
    return {training.name: [stage.name for stage in stages] for training, stages in plan_beside(given).items()}


def test_in_the_background_a_model_is_measured_and_mined_with_while_the_next_one_trains() -> None:
    pipelined = config(rounds={"mined": 3, "background": True})
    mined = [[f"round-0{number}-{kind}" for kind in ("search", "mine", "report")] for number in range(4)]
    measured = [[f"round-0{number}-{kind}" for kind in ("embed", "hits", "evaluate")] for number in range(4)]
    assert names_beside(pipelined) == {
        "round-00-train": mined[1],
        "round-01-train": [*measured[0], *mined[2]],
        "round-02-train": [*measured[1], *mined[3]],
        "round-03-train": measured[2],
    }
    assert [mining_model(pipelined, ModelName(number)) for number in (1, 2, 3)] == [BASELINE, ModelName(0), ModelName(1)]
    assert names_beside(config(rounds={"mined": 3})) == {}


def test_without_a_warm_up_the_first_round_is_mined_before_anything_trains() -> None:
    cold = config(rounds={"mined": 2, "background": True, "warmup_epochs": 0}, training={"guide": {"model": "/guide"}})
    names = [stage.name for stage in plan_run(cold)]
    assert names.index("round-01-mine") < names.index("guide-embed" if "guide-embed" in names else "guide")
    assert names.index("guide") < names.index("round-01-train") < names.index("round-02-mine")
    assert [mining_model(cold, ModelName(number)) for number in (1, 2)] == [BASELINE, BASELINE]


def test_the_background_changes_the_order_of_the_stages_and_nothing_else() -> None:
    everything = {
        "mining": {"sources": [{"kind": kind} for kind in ("model", "bm25", "earlier")], "near_duplicate": 0.9},
        "evaluation": {"general": {"folder": "/general"}, "split": "test"},
        "training": {"guide": {"model": "/guide"}},
    }
    for warmup in (0, 1):
        rounds = {"mined": 3, "compare_random": True, "warmup_epochs": warmup}
        plain = plan_run(config(**everything, rounds=rounds))
        pipelined = plan_run(config(**everything, rounds=rounds | {"background": True}))
        assert sorted(stage.name for stage in pipelined) == sorted(stage.name for stage in plain)
        for training, stages in plan_beside(config(**everything, rounds=rounds | {"background": True})).items():
            first = pipelined.index(training)
            assert pipelined[first : first + 1 + len(stages)] == [training, *stages]
