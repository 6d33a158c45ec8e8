"""The record of a run: which models count, which of them leads, and what an earlier configuration left."""

from __future__ import annotations

import pytest

from cluster.commits import Commit
from cluster.errors import ArtifactError
from jobs.record.record import RunRecord
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Stage
from jobs.record.summary import rounds_json, why_ended

SECONDS = {"wall": 2.0, "work": 1.5, "overhead": 0.5}


def model(name: ModelName | Chosen, recall: float, verdict: str = "improved", created: float = 0.0) -> list[Commit]:
    """Vectors, hits and evaluation of a model."""
    hits, evaluation = (Stage(kind, name).name for kind in (Kind.HITS, Kind.EVALUATE))
    change = {"recall@3": {"mean": 0.1, "low": 0.0, "high": 0.2}, "verdict": verdict}
    figures = {"metrics": {"recall@3": recall}, "round": getattr(name, "round", 1)}
    baseline = None
    if name not in (BASELINE, Chosen.BASELINE):
        figures |= {f"against_{other}": change for other in ("baseline", "best", "previous")}
        baseline = f"key of {Stage(Kind.EVALUATE, Chosen.BASELINE if isinstance(name, Chosen) else BASELINE).name}"
    return [
        Commit(f"embed-{name}", f"vectors of {name}", {"model": str(name)}, seconds=SECONDS, created=created),
        Commit(hits, f"key of {hits}", {"vectors": f"vectors of {name}"}, seconds=SECONDS, created=created),
        Commit(
            evaluation,
            f"key of {evaluation}",
            {"hits": f"key of {hits}", "baseline": baseline},
            figures=figures,
            seconds=SECONDS,
            created=created,
        ),
    ]


def record_of(*models: list[Commit]) -> RunRecord:
    return RunRecord.of_commits([commit for commits in models for commit in commits])


def test_models_come_in_the_order_of_their_training_and_the_random_arm_last() -> None:
    record = record_of(
        *(model(ModelName(150), 0.6), model(ModelName(1, random=True), 0.9), model(ModelName(125), 0.6)),
        *(model(ModelName(1), 0.6), model(BASELINE, 0.1), model(ModelName(0), 0.5)),
    )
    assert [(str(found.name), found.arm) for found in record.models] == [
        ("baseline", "baseline"),
        ("round-00", "warm-up"),
        ("round-01", "mined"),
        ("merged-25", "merged"),
        ("merged-50", "merged"),
        ("round-01-random", "random"),
    ]
    assert [found.label for found in record.merged] == ["merged 25 %", "merged 50 %"]
    assert [row["round"] for row in rounds_json(record)["rounds"]] == [0, 1, 125, 150]


def test_the_earlier_one_of_equals_leads_and_the_random_arm_does_not_count() -> None:
    record = record_of(
        model(BASELINE, 0.1), model(ModelName(0), 0.6), model(ModelName(1), 0.6), model(ModelName(1, random=True), 0.9)
    )
    best = record.best("recall@3")
    assert best is not None
    assert best.name == ModelName(0)
    merged = [model(ModelName(1), 0.6), model(ModelName(150), 0.7), model(ModelName(125), 0.7), model(BASELINE, 0.1)]
    best = record_of(*merged).best("recall@3")
    assert best is not None
    assert best.name == ModelName(125), "of equal ones the one that is nearer to the start, which forgets less"


def test_what_an_earlier_configuration_left_does_not_count() -> None:
    commits = [*model(BASELINE, 0.1), *model(ModelName(1), 0.6)]
    replaced = [Commit(c.name, "another", c.inputs, seconds=SECONDS) if c.name == "round-01-hits" else c for c in commits]
    assert [model.name for model in record_of(replaced).models] == [BASELINE]
    measured_again = [
        Commit(c.name, "another", c.inputs, seconds=SECONDS) if c.name == "baseline-evaluate" else c for c in commits
    ]
    assert record_of(measured_again).measured(ModelName(1)) is None
    merged = model(ModelName(150), 0.7)
    merged[-1].inputs["previous"] = "key of round-01-evaluate"
    assert record_of(commits, merged).measured(ModelName(150)) is not None
    without = [commit for commit in commits if commit.name != "round-01-evaluate"]
    assert record_of(without, merged).measured(ModelName(150)) is None, "it is an average of another round 1"
    with pytest.raises(ArtifactError, match="another configuration"):
        record_of(replaced).expect(ModelName(1))


def test_a_run_has_an_end_only_while_nothing_newer_of_it_is_committed() -> None:
    end = Commit("finish", "k", {}, created=5.0)
    alone = Commit("mine-report", "m", {}, created=6.0)
    newer = Commit("round-01-mine", "n", {}, created=7.0)
    assert RunRecord.of_commits([end]).finish == end
    assert RunRecord.of_commits([end, alone]).finish == end, "mining alone is no part of a run"
    assert RunRecord.of_commits([end, alone, newer]).finish is None


def test_seconds_are_those_of_the_model_s_own_stages() -> None:
    others = [Commit(f"round-01-{name}", name, {}, seconds=SECONDS) for name in ("search", "mine", "report", "train")]
    record = record_of(model(BASELINE, 0.1), model(ModelName(1), 0.6), others)
    found = record.measured(ModelName(1))
    assert found is not None
    assert found.seconds == {"embed": 1.5, "search": 3.0, "mine": 4.0, "train": 1.5, "evaluate": 2.0, "overhead": 2.0}


def test_rows_say_what_each_round_was_trained_on_and_why_mining_ended() -> None:
    trained = Commit("round-01-train", "t", {}, figures={"negatives": "mined", "train_loss": 0.3, "steps": 7}, seconds=SECONDS)
    mined = Commit("round-01-mine", "m", {}, figures={"hit_rate": 0.8, "judged": 5, "judged_left_out": 2}, seconds=SECONDS)
    record = record_of(model(BASELINE, 0.1), model(ModelName(1), 0.6, verdict="flat"), [trained, mined])
    [row] = rounds_json(record)["rounds"]
    assert (row["round"], row["negatives"], row["train_loss"], row["steps"], row["hit_rate"]) == (1, "mined", 0.3, 7, 0.8)
    assert (row["judged"], row["judged_left_out"]) == (5, 2)
    assert row["verdict"] == "flat"
    assert "patience 1" in why_ended(record, 1)
    assert why_ended(record, 2) == "The mined round is done.", "it was not patience that ended the run"
