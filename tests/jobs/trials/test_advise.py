"""`hardmine advise` on a small run, without Ray: what it reads before and after the run has its tables."""

from __future__ import annotations

import inspect
import json
from typing import Any

from cluster.commits import Ledger
from cluster.storage.store import Store
from eval.readiness import COLLECT, RERANKER
from jobs.cli.app import advise


def test_it_counts_labels_before_anything_ran_and_the_run_counts_the_same(case: Any) -> None:
    case.labels += [{"query_id": "q0", "item_id": f"i{n}", "score": 0} for n in (5, 6)]
    case.labels += [{"query_id": "q1", "item_id": "i7", "score": 1, "source": "synthetic"}]
    case.labels += [{"query_id": "q1", "item_id": "i1", "score": 1}]  # a repeated pair is one example
    case.labels += [{"query_id": "q9", "item_id": "i2", "score": 0}]  # of a dev query
    answer = case.run("--json", command="advise")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    want = {"examples": 8, "synthetic": 1, "queries": 8, "negatives": 2, "dev": 2, "test": 0, "dev_is_cut": False}
    assert result["counts"] == want
    assert result["answer"] == "collect data"
    assert result["off_the_shelf"] is None
    assert not (case.folder / "out").exists(), "it writes nothing"

    case.run("--json", "encoder.model=./nowhere")  # it ends after ingest
    ledger = Ledger(Store(str(case.folder / "out/run")))
    assert "ingest" in ledger.names()
    again = json.loads(case.run("--json", command="advise").out)
    assert again["counts"] == want


def test_it_tells_a_person_what_decided(case: Any) -> None:
    answer = case.run("--reranker-from", "5", "--embeddings-from", "8", command="advise")
    assert answer.out.splitlines()[0] == "Fine-tune the embeddings."
    assert "8 usable examples, 8 or more" in answer.out
    assert "missing: Dev queries: 2 have a relevant item, fewer than 50" in answer.out


def test_the_command_s_defaults_are_those_of_the_advice() -> None:
    defaults = {name: value.default for name, value in inspect.signature(advise).parameters.items()}
    assert (defaults["reranker_from"], defaults["embeddings_from"]) == (COLLECT, RERANKER)


def test_a_command_without_a_re_ranker_is_refused(case: Any, refused: Any) -> None:
    refused(case.run(command="rerank"), 2, ["add [reranker] with a model", "reranker.model="])
