"""The run's own re-ranker as the teacher: what it learns from, what it teaches, that a stopped run goes on, and another run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit, Ledger, Outcome
from cluster.errors import ClusterError, ConfigError
from cluster.storage.digests import described
from cluster.storage.model_folders import upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import load_config
from jobs.record.plan import plan_run
from jobs.record.stages import Kind, ModelName, Stage
from jobs.run.rounds import FUNCTIONS
from jobs.stages.ingest.models.second_model import make_teacher, reranker_of_run
from mining.teacher.cut import Pairs
from tests.support.reranking import with_reranker

TEACHER = {"kind": "reranker", "depth": 6, "relative_margin": 0.02}


def commits_of(root: Path) -> tuple[Store, dict[str, Commit]]:
    store = Store(str(root))
    return store, {commit.name: commit for commit in Ledger(store).all()}


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_the_run_s_re_ranker_learns_from_round_1_and_teaches_round_2_and_a_stopped_run_goes_on(
    ray_case: Any, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import CrossEncoder

    case = ray_case
    with_reranker(case, cross_encoder)
    case.set("rounds", {"mined": 2})
    case.set("mining.teacher", TEACHER)
    case.set("mining.choose", "stratified")
    case.set("training.distil", {})
    case.set("cluster.micro_batch_tokens", 512)  # else a trial finds it, and each time another

    def stops(*_: object) -> Commit:
        raise ClusterError("the cluster is gone")

    monkeypatch.setitem(FUNCTIONS, Kind.TEACHER_SCORES, stops)
    assert case.run().code == 3
    _, before = commits_of(case.folder / "out/run")
    assert {"reranker-train", "round-02-teacher-pairs"} <= before.keys()
    assert not before.keys() & {"round-02-mine", "reranker-pairs"}
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    answer = case.run("--json")
    assert answer.code == 0, answer.err
    summary, (store, commits) = json.loads(answer.out), commits_of(case.folder / "out/run")
    assert {name: commits[name].created for name in before} == {name: commit.created for name, commit in before.items()}
    order = ["round-01-mine", "round-01-evaluate", "reranker-train", "round-02-teacher", "round-02-mine", "reranked"]
    assert sorted(order, key=lambda name: commits[name].created) == order
    assert not [name for name in commits if name.startswith("round-01-teacher") or name == "teacher"]
    assert commits["reranker-train"].inputs["negatives"] == commits["round-01-mine"].key

    untaught, taught = (read_parts(store, commits[f"round-0{number}-mine"].parts("negatives")).to_pylist() for number in (1, 2))
    assert "negative_teacher_scores" not in untaught[0]
    scored = Pairs.from_table(read_parts(store, commits["round-02-teacher"].parts("scores")))
    model = CrossEncoder(str(Path(summary["model"]) / "reranker"), device="cpu", local_files_only=True)
    texts = [
        (case.queries[query]["text"], case.items[item]["text"])
        for query, item in zip(scored.query_rows, scored.item_rows, strict=True)
    ]
    np.testing.assert_allclose(scored.scores, model.predict(texts, show_progress_bar=False), atol=1e-5)
    for row in taught:
        mean = np.mean(row["positive_teacher_scores"])
        assert all(score <= mean - abs(mean) * 0.02 + 1e-6 for score in row["negative_teacher_scores"])
    assert commits["round-02-mine"].figures["dropped"]["teacher"] > 0

    # killed inside the re-ranker's training: it is made again as it was, so that all it taught is kept
    for name in ("reranker-train", "finish"):
        store.delete(Ledger(store).path(name))
    assert case.run().code == 0
    _, again = commits_of(case.folder / "out/run")
    assert again["reranker-train"].created > commits["reranker-train"].created
    assert again["reranker-train"].figures["digest"] == commits["reranker-train"].figures["digest"]
    assert again["round-02-teacher"].created == commits["round-02-teacher"].created

    # another run is taught by it from its first round on, and a run without one is refused
    case.set("name", "second")
    case.set("rounds.mined", 1)
    case.set("reranker", None)
    case.set("mining.teacher", TEACHER | {"model": "out/nothing"})
    refused = case.run()
    assert refused.code == 2, refused.err
    assert "finished run with a re-ranker, found no finished run in" in refused.message
    case.set("mining.teacher.model", "out/run")
    answer = case.run(command="mine")
    assert answer.code == 0, answer.err
    _, second = commits_of(case.folder / "out/second")
    assert second["teacher"].figures["digest"] == commits["reranker-train"].figures["digest"]
    assert second["mine"].figures["teacher_read"] > 0


def test_a_run_that_stops_after_round_1_trains_its_re_ranker_at_the_end(case: Any, cross_encoder: Path) -> None:
    with_reranker(case, cross_encoder)
    case.set("rounds", {"mined": 3})
    case.set("mining.teacher", TEACHER)
    config = load_config(case.write())
    stages = plan_run(config)
    trains = Stage(Kind.TRAIN_RERANKER)
    assert stages.count(trains) == 1
    assert stages.index(Stage(Kind.EVALUATE, ModelName(1))) + 1 == stages.index(trains)
    short = plan_run(config, mined=1)
    assert short.index(trains) == short.index(Stage(Kind.RERANKER_PAIRS)) - 1
    assert not [stage for stage in short if stage.kind in (Kind.TEACHER_PAIRS, Kind.TEACHER_SCORES)]


def finished(store: Store, reranker: Path | None) -> None:
    """A run that has ended, with a re-ranker in its model or without one."""

    def work(folder: str) -> Outcome:
        store.write_bytes(f"{folder}/config.json", b"{}")
        files = {f"{folder}/config.json": described(b"{}")}
        return Outcome(
            files=files | (upload_folder(reranker, store, f"{folder}/reranker") if reranker else {}), figures={"prefix": folder}
        )

    Ledger(store).stage("finish", inputs={}, folder="model", work=work)


def test_a_run_without_a_re_ranker_cannot_teach(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    finished(store, None)
    with pytest.raises(ConfigError, match=r"^mining\.teacher\.model: .* found a run without a re-ranker in .*/run;"):
        reranker_of_run(store.root, StorageSettings())


@pytest.mark.parametrize("kind", ["cross_encoder", "late_interaction"])
def test_another_run_s_re_ranker_of_either_kind_reads_pairs_as_it_did_there(
    case: Any, cross_encoder: Path, tmp_path: Path, kind: str
) -> None:
    from sentence_transformers import CrossEncoder, MultiVectorEncoder

    from training.encoders.cross_encoder import MakeCrossEncoder
    from training.encoders.prepare.late import prepare_late

    run, own, folder = Store(str(tmp_path / "other")), Store(str(tmp_path / "own")), cross_encoder
    if kind == "late_interaction":
        prepare_late(cross_encoder, folder := tmp_path / "late")
    finished(run, folder)
    with_reranker(case, cross_encoder)
    case.set("mining.teacher", TEACHER | {"model": run.root})
    config = load_config(case.write())
    assert config.mining.teacher is not None
    settings = config.mining.teacher.model_copy(update={"model": reranker_of_run(run.root, StorageSettings())})
    made = make_teacher(config, own, "teacher", settings, "mining.teacher")
    read = MakeCrossEncoder(own, made.files, made.figures["prefix"], 1, False, False, None)()
    queries, items = ["red cat", "sea", "red cat"], ["blue cat 1", "old", "a new dog by the sea"]
    got = read(queries, items, lambda _: None)
    if kind == "late_interaction":
        late = MultiVectorEncoder(str(folder), device="cpu")
        want = late.similarity_pairwise(late.encode_query(queries), late.encode_document(items)).numpy()
    else:
        want = CrossEncoder(str(folder), device="cpu").predict(list(zip(queries, items, strict=True)))
    np.testing.assert_allclose(got, want, atol=1e-5)
