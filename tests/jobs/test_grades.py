"""Graded labels through a whole run: what lies below `relevant_from` is judged irrelevant everywhere, and keeps its gain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.commits import Commit, Ledger
from cluster.storage.store import Store
from cluster.tables.tables import read_parts

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_local")]


def finished(case: Any, name: str) -> tuple[dict[str, Any], dict[str, Commit], Store]:
    case.set("name", name)
    answer = case.run("--json")
    assert answer.code == 0, answer.err
    store = Store(str(case.folder / "out" / name))
    return json.loads(answer.out), {commit.name: commit for commit in Ledger(store).all()}, store


def test_a_run_with_relevant_from_equals_one_whose_lower_grades_are_0_but_for_ndcg(ray_case: Any) -> None:
    for number, label in enumerate(list(ray_case.labels)):
        label["score"] = 2
        ray_case.labels.append({"query_id": f"q{number}", "item_id": f"i{(number + 1) % 12}", "score": 1})
        ray_case.labels.append({"query_id": f"q{number}", "item_id": f"i{(number + 2) % 12}", "score": -1})
    ray_case.set("mining", {"num_hits": 8, "num_negatives": 4, "relative_margin": "off"})
    ray_case.set("training.hard_negatives", 2)
    ray_case.set("evaluation", {"num_hits": 10, "general": dict(ray_case.settings["data"]) | {"relevant_from": 2}})
    ray_case.set("data.relevant_from", 2)
    graded, commits, store = finished(ray_case, "graded")
    for label in ray_case.labels:
        label["score"] = 0 if label["score"] < 2 else 2
    ray_case.set("data.relevant_from", None)
    ray_case.set("evaluation.general.relevant_from", None)
    flat, others, other_store = finished(ray_case, "flat")

    assert commits["ingest"].figures["judged_irrelevant"] == others["ingest"].figures["judged_irrelevant"] == 20
    for mine, theirs in zip((graded, *graded["rounds"]), (flat, *flat["rounds"]), strict=True):
        ours, want = (row.get("metrics") or row["baseline"] for row in (mine, theirs))
        assert {name: value for name, value in ours.items() if name not in ("ndcg@10", "general")} == {
            name: value for name, value in want.items() if name not in ("ndcg@10", "general")
        }
        assert ours["ndcg@10"] != want["ndcg@10"], "the gain of grade 1 counts"
        assert mine.get("train_loss") == theirs.get("train_loss")
    for name in ("round-01-mine", "general-round-01-evaluate", "round-01-evaluate"):
        assert name in commits
    negatives, want = (
        read_parts(at, made["round-01-mine"].parts("negatives")).to_pylist()
        for at, made in ((store, commits), (other_store, others))
    )
    assert negatives == want, "and what was judged irrelevant is a negative in both"
    assert any(one["source"] == "judged" for row in negatives for one in row["negatives"])
    rows, want = (
        read_parts(at, made["general-round-01-evaluate"].parts("per_query"))
        for at, made in ((store, commits), (other_store, others))
    )
    assert rows["recall@3"].to_pylist() == want["recall@3"].to_pylist()
    assert rows["ndcg@10"].to_pylist() != want["ndcg@10"].to_pylist()
    assert graded["best_round"] == flat["best_round"]
