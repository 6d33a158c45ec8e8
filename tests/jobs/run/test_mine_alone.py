"""`hardmine mine` without a round: any data, given vectors or a model, no training, no dev split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Ledger, Outcome
from cluster.storage.records import write_record
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.finished.status import read_status


def give_vectors(case: Any, *, dimension: int = 6) -> dict[str, Any]:
    """Vectors in corpus and queries, and no dev split; {"items", "queries"} as unit matrices."""
    generator, units = np.random.default_rng(1), {}
    for name, rows in (("items", case.items), ("queries", case.queries)):
        vectors = generator.normal(size=(len(rows), dimension)).astype(np.float32)
        for row, vector in zip(rows, vectors, strict=True):
            row["vector"] = vector.tolist()
            row.pop("split", None)
        units[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    case.settings["encoder"] = {"kind": "vectors"}
    case.settings["mining"] = {"num_hits": 8, "num_negatives": 3, "relative_margin": "off", "samples": 4, "confusion": "year"}
    case.set("cluster.query_block", 4)
    return units


def commits(root: Path) -> set[str]:
    return {path.stem.split("-")[0] if path.stem.startswith("embed-") else path.stem for path in (root / "commits").glob("*")}


@pytest.mark.cluster
def test_given_vectors_are_mined_without_any_training_once_for_all_reports(ray_case: Any, ray_local: Any) -> None:
    units = give_vectors(ray_case)
    # what a training run would be refused for
    ray_case.settings["training"] = {"hard_negatives": 7, "batch_size": 4096}
    ray_case.settings["rounds"] = {"mined": 0, "warmup_epochs": 0}
    ray_case.settings["evaluation"] = {"bad_top1_column": "no such column"}
    ray_case.set("cluster.train_workers", 64)
    answer = ray_case.run("--json", command="mine")
    assert answer.code == 0, answer.err
    figures = json.loads(answer.out)
    assert figures.keys() >= {
        "queries",
        "candidates",
        "survivors",
        "hit_rate",
        "dropped",
        "queries_short",
        "suspected_false_negatives",
        "negatives",
    }
    assert "all training queries are mined" in answer.err
    told = [line.split()[1] for line in answer.err.splitlines() if line.startswith(("✓ ", "· not"))]
    assert "ingest" in told
    assert len(told) == len(set(told)), "each stage is told once"
    root = ray_case.folder / "out/run"
    assert commits(root) == {"ingest", "base", "embed", "mine-search", "mine", "mine-report"}, "nothing else is done"

    store = Store(str(root))
    mined = Ledger(store).find("mine")
    assert mined is not None
    rows = read_parts(store, mined.parts("negatives")).to_pylist()
    assert [row["query_id"] for row in rows] == [f"q{n}" for n in range(10)]
    scores = units["queries"].astype(np.float64) @ units["items"].T.astype(np.float64)
    for number, row in enumerate(rows):
        nearest = [f"i{item}" for item in np.argsort(-scores[number]) if item != number][:3]
        assert [negative["item_id"] for negative in row["negatives"]] == nearest
        assert row["positive_scores"] == [pytest.approx(scores[number, number], abs=1e-6)]
    assert (figures["queries"], figures["rows"], figures["chosen"]) == (10, {"negatives": 10}, 30)
    assert figures["negatives"] == store.url(mined.tables["negatives"][0]["path"].rsplit("/", 1)[0])
    assert figures["above_positive"] == sum(
        negative["score"] > row["positive_scores"][0] for row in rows for negative in row["negatives"]
    )

    report = json.loads((root / "mine/mining.json").read_text())
    assert len(report["samples"]) == 4
    assert report["confusion"]["column"] == "year"
    assert (root / "mine/mining.md").read_text().count("- [ ]") == 12
    assert figures["report"] == str(root / "mine/mining.md")
    check_that_a_changed_report_mines_nothing_anew(ray_case, figures)


def stages_begun(err: str) -> list[str]:
    """The lines of stages that were begun; what the cluster is stands in a line of the same form."""
    return [line for line in err.splitlines() if line.startswith("· ") and "node(s)" not in line]


def check_that_a_changed_report_mines_nothing_anew(ray_case: Any, first: dict[str, Any]) -> None:
    again = ray_case.run("--json", command="mine")
    assert json.loads(again.out) == first
    assert stages_begun(again.err) == [], "no stage ran"
    other = ray_case.run("--json", "mining.samples=2", "mining.confusion=genres", command="mine")
    assert "✓ mine-report" in other.err
    assert stages_begun(other.err) == ["· mine-report"]
    figures = json.loads(other.out)
    assert figures["key"] == first["key"]
    assert figures["confusion"]["column"] == "genres"
    assert len(json.loads((ray_case.folder / "out/run/mine/mining.json").read_text())["samples"]) == 2


@pytest.mark.cluster
def test_a_model_off_the_shelf_is_mined_and_a_person_is_told(ray_case: Any, ray_local: Any) -> None:
    ray_case.settings["mining"] = {"num_hits": 8, "num_negatives": 3, "min_score": 0.999}
    answer = ray_case.run(command="mine")
    assert answer.code == 0, answer.err
    assert "Hit rate" in answer.out.splitlines()[0]
    assert "− positive" in answer.out
    assert "! hit rate" in answer.out
    assert f"report:     {ray_case.folder}/out/run/mine/mining.md" in answer.out
    # the data has a dev split of its own: those queries are none of mining's
    assert "8 of 8 queries" in answer.out or "for 8 of" in answer.out
    assert commits(ray_case.folder / "out/run") == {"ingest", "base", "tokens", "embed", "mine-search", "mine", "mine-report"}


@pytest.mark.parametrize("command", ["run", "train", "evaluate", "hits", "embed"])
def test_vectors_cannot_be_trained(case: Any, refused: Any, command: str) -> None:
    give_vectors(case)
    refused(case.run(command=command), 2, ['encoder.kind = "vectors"', "`hardmine mine`", 'encoder.kind = "adapter"'])


def test_vectors_that_the_data_has_not(case: Any, refused: Any) -> None:
    case.settings["encoder"] = {"kind": "vectors"}
    refused(case.run(command="mine"), 2, ['encoder.kind = "vectors"', "`vector` column", "which the data does not have"])


def test_vectors_with_a_model_beside_them(case: Any, refused: Any) -> None:
    give_vectors(case)
    case.set("encoder.model", "some/model")
    refused(case.run(command="mine"), 2, ['encoder.kind = "vectors"', "remove encoder.model"])


def test_a_confusion_column_that_the_corpus_has_not(case: Any, refused: Any) -> None:
    give_vectors(case)
    case.set("mining.confusion", "maker")
    refused(case.run(command="mine"), 2, ["mining.confusion", "'maker'", "genres", "year"])


def test_training_that_does_not_fit_is_still_refused_where_there_is_training(case: Any, refused: Any) -> None:
    case.settings["mining"] = {"num_negatives": 3}
    refused(case.run("--round", "1", command="mine"), 2, ["training.hard_negatives = 7", "mining.num_negatives = 3"])


def test_a_mining_after_a_finished_run_leaves_it_finished(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_record(store, "identity.json", {})
    ledger = Ledger(store)
    for name in ("ingest", "finish", "mine-search", "mine", "mine-report"):
        ledger.stage(name, inputs={}, work=lambda _: Outcome(figures={"summary": {"best_round": 1}}), folder="x")
    assert (read_status(store).summary or {})["best_round"] == 1
    ledger.stage("round-01-mine", inputs={}, work=lambda _: Outcome(), folder="x")
    assert read_status(store).summary is None, "the run goes on under other settings"


@pytest.mark.cluster
def test_equal_texts_are_no_negatives_of_each_other(ray_case: Any, ray_local: Any) -> None:
    units = give_vectors(ray_case)
    # q0 and q1 ask the same; q2 is item q2; q3 has the text of item i11, whose id is another
    ray_case.queries[1] |= {"text": "Thing 0!", "vector": ray_case.queries[0]["vector"]}
    ray_case.items[10] = ray_case.items[10] | {
        "id": "q2",
        "title": "",
        "text": "thing 2",
        "vector": ray_case.queries[2]["vector"],
    }
    ray_case.items[11] = ray_case.items[11] | {"title": "", "text": "thing 3", "vector": ray_case.queries[3]["vector"]}
    ray_case.items[1]["vector"] = ray_case.queries[0]["vector"]  # the nearest item of q0 is relevant to q1 alone
    assert units["items"].shape == (12, 6)
    answer = ray_case.run("--json", "mining.num_hits=12", "mining.num_negatives=12", command="mine")
    assert answer.code == 0, answer.err
    assert "queries that share their text with another one: 2;" in answer.err
    assert "queries that are items: 1;" in answer.err
    mined = Ledger(Store(str(ray_case.folder / "out/run"))).find("mine")
    assert mined is not None
    rows = read_parts(Store(str(ray_case.folder / "out/run")), mined.parts("negatives")).to_pylist()
    items = {item["id"] for item in ray_case.items}
    missing = {row["query_id"]: items - {negative["item_id"] for negative in row["negatives"]} for row in rows}
    assert missing == {"q0": {"i0", "i1"}, "q1": {"i0", "i1"}, "q2": {"i2", "q2"}, "q3": {"i3", "i11"}} | {
        f"q{number}": {f"i{number}"} for number in range(4, 10)
    }
