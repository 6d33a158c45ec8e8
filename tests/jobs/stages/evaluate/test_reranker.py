"""A run with a re-ranker: what is read, that the table equals scoring and sorting by hand, and that nothing is read twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit, Ledger
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from mining.teacher.cut import Pairs
from tests.support.reranking import HITS, ITEMS, with_reranker
from training.encoders.prepare.late import prepare_late
from training.encoders.rerankers.late_encoder import is_late

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_local")]


def commits_of(case: Any) -> tuple[Store, dict[str, Commit]]:
    store = Store(str(case.folder / "out/run"))
    return store, {commit.name: commit for commit in Ledger(store).all()}


def scorer(folder: Path) -> Callable[[str, list[str]], Any]:
    """What sentence-transformers says of a query and some items with the re-ranker in `folder`."""
    from sentence_transformers import CrossEncoder, MultiVectorEncoder

    if not is_late(folder):
        model = CrossEncoder(str(folder), device="cpu", max_length=64, local_files_only=True)
        return lambda query, items: model.predict([(query, item) for item in items], show_progress_bar=False)
    late = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    return lambda query, items: late.similarity(late.encode_query([query]), late.encode_document(items))[0].numpy()


def by_hand(case: Any, store: Store, hits: Commit, folder: Path) -> dict[str, list[float]]:
    """Recall@3 and MRR@10 of each dev query, its hits sorted by what sentence-transformers says of the pairs."""
    score = scorer(folder)
    values: dict[str, list[float]] = {"recall@3": [], "mrr@10": []}
    for hit in read_parts(store, hits.parts("hits"), ["query_row", "item_rows"]).to_pylist():
        query, rows = hit["query_row"], hit["item_rows"][:HITS]
        scores = score(case.queries[query]["text"], [case.items[row]["text"] for row in rows])
        ranked = [rows[place] for place in np.argsort(-np.asarray(scores), kind="stable")]
        wanted = {query, (query + 1) % ITEMS}
        values["recall@3"].append(len(wanted & set(ranked[:3])) / 2)
        values["mrr@10"].append(next((1 / (place + 1) for place, row in enumerate(ranked[:10]) if row in wanted), 0.0))
    return values


def test_the_table_equals_scoring_and_sorting_by_hand_and_nothing_is_read_twice(ray_case: Any, cross_encoder: Path) -> None:
    with_reranker(ray_case, cross_encoder)
    answer = ray_case.run("--json")
    assert answer.code == 0, answer.err
    summary, (store, commits) = json.loads(answer.out), commits_of(ray_case)
    table, kept = summary["reranker"], summary["best_round"]
    kept_name = "baseline" if kept < 0 else f"round-{kept:02d}"
    hits = {"off-the-shelf": commits["baseline-hits"], "fine-tuned": commits[f"{kept_name}-hits"]}
    assert kept >= 0, "or the table has one row of retrievers only"

    # the hits of both retrievers are one set of pairs, each read once by each re-ranker
    wanted = {
        (row["query_row"], item)
        for commit in hits.values()
        for row in read_parts(store, commit.parts("hits"), ["query_row", "item_rows"]).to_pylist()
        for item in row["item_rows"][:HITS]
    }
    for reranker in ("off-the-shelf", "fine-tuned"):
        scored = Pairs.from_table(read_parts(store, commits[f"{reranker}-rerank"].parts("scores")))
        assert set(zip(scored.query_rows.tolist(), scored.item_rows.tolist(), strict=True)) == wanted
        assert commits[f"{reranker}-rerank"].figures == {"pairs": len(wanted), "read": len(wanted)}

    folders = {"off-the-shelf": cross_encoder, "fine-tuned": Path(summary["model"]) / "reranker"}
    assert len(table["cells"]) == 6
    for cell in table["cells"]:
        if cell["reranker"] == "none":
            name = "baseline" if cell["retriever"] == "off-the-shelf" else kept_name
            measured = commits[f"{name}-evaluate"].figures["metrics"]
            assert cell["metrics"] == {metric: measured[metric] for metric in cell["metrics"]}
            continue
        want = by_hand(ray_case, store, hits[cell["retriever"]], folders[cell["reranker"]])
        for metric, values in want.items():
            assert cell["metrics"][metric] == pytest.approx(np.mean(values)), cell
    pair = commits["reranked"]
    assert read_parts(store, pair.parts("per_query"))["recall@3"].to_numpy().mean() == pytest.approx(
        next(cell["metrics"]["recall@3"] for cell in table["cells"] if table["pair"].items() <= cell.items())
    )
    assert list(table["speed"]["p50_ms"]) == list(table["depths"]) == ["10", "12"]
    assert "fewer than 50" in table["sentence"]
    assert [row["value"] for row in table["slices"]["kind"]["slices"]]

    ray_case.set("evaluation.confidence", 0.9)
    again = ray_case.run("--json")
    assert again.code == 0, again.err
    now = commits_of(ray_case)[1]
    assert now["reranked"].key != pair.key
    assert {now[name].key for name in ("reranker-train", "off-the-shelf-rerank", "fine-tuned-rerank")} == {
        commits[name].key for name in ("reranker-train", "off-the-shelf-rerank", "fine-tuned-rerank")
    }

    # another kind of re-ranker on the same run: only its own stages are made
    prepare_late(cross_encoder, ray_case.folder / "late", max_length=64)
    ray_case.set("reranker", {"model": "./late", "kind": "late_interaction", "batch_size": 4})
    answer = ray_case.run("--json")
    assert answer.code == 0, answer.err
    summary, (_, late) = json.loads(answer.out), commits_of(ray_case)
    assert {name for name, commit in now.items() if late[name].key != commit.key} == {
        *("reranker", "reranker-train", "off-the-shelf-rerank", "fine-tuned-rerank", "reranked", "finish")
    }
    folders = {"off-the-shelf": ray_case.folder / "late", "fine-tuned": Path(summary["model"]) / "reranker"}
    for reranker, folder in folders.items():
        scored, score = Pairs.from_table(read_parts(store, late[f"{reranker}-rerank"].parts("scores"))), scorer(folder)
        want = [
            score(ray_case.queries[query]["text"], [ray_case.items[item]["text"]])[0]
            for query, item in zip(scored.query_rows, scored.item_rows, strict=True)
        ]
        np.testing.assert_allclose(scored.scores, want, atol=1e-5)
    for cell in summary["reranker"]["cells"]:
        if cell["reranker"] != "none":
            want = by_hand(ray_case, store, hits[cell["retriever"]], folders[cell["reranker"]])
            assert cell["metrics"]["recall@3"] == pytest.approx(np.mean(want["recall@3"])), cell
    assert "MultiVectorEncoder" in (Path(summary["model"]) / "README.md").read_text()
