"""A run whose queries are histories of items: what it learns, what it leaves, and what data it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.commits import Ledger
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from training.encoders.load import load_encoder
from training.encoders.sequence import SequenceEncoder, item_tokens

ITEMS, STEP = 60, 7


def write_walks(folder: Path) -> list[list[str]]:
    """Items on a circle, histories in any order, and the next item always lies STEP beyond the last one; the histories."""
    rng = np.random.default_rng(3)
    angle = 2 * np.pi * np.arange(ITEMS)[:, None] / ITEMS * np.arange(1, 5)[None, :]
    vectors = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    histories = [
        history
        for history in (rng.choice(ITEMS, rng.integers(3, 10), replace=False) for _ in range(1000))
        if (history[-1] + STEP) % ITEMS not in history
    ][:480]
    names = [[f"i{item}" for item in history] for history in histories]
    pq.write_table(
        pa.table(
            {"id": [f"i{n}" for n in range(ITEMS)], "text": [f"place {n}" for n in range(ITEMS)], "vector": vectors.tolist()}
        ),
        folder / "corpus.parquet",
    )
    pq.write_table(
        pa.table(
            {"id": [f"q{n}" for n in range(480)], "met": names, "split": ["dev" if n < 80 else "train" for n in range(480)]}
        ),
        folder / "queries.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "query_id": [f"q{n}" for n in range(480)],
                "score": [1] * 480,
                "item_id": [f"i{(int(history[-1]) + STEP) % ITEMS}" for history in histories],
            }
        ),
        folder / "qrels.parquet",
    )
    return names


CONFIG = """
name = "walks"
output = "runs"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
columns = { history = "met" }
[encoder]
kind = "sequence"
hidden = 64
max_length = 6
[rounds]
warmup_epochs = 0
mined = 1
[mining]
num_hits = 40
num_negatives = 8
relative_margin = "off"
[training]
epochs = 8
batch_size = 20
hard_negatives = 4
learning_rate = 5e-3
[evaluation]
primary = "hit@5"
[cluster]
cpus = 2
part_rows = 100
"""


@pytest.mark.cluster
def test_a_run_on_histories_learns_what_comes_next_and_leaves_an_encoder_that_reads_histories(
    tmp_path: Path, ray_case: Any, ray_local: Any
) -> None:
    names = write_walks(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG)
    answer = ray_case.hardmine("run", str(tmp_path / "run.toml"), "--json")
    assert answer.code == 0, answer.err
    summary: dict[str, Any] = json.loads(answer.out)

    assert {"hit@1", "hit@5", "hit@10"} <= summary["baseline"].keys()
    assert [row["negatives"] for row in summary["rounds"]] == ["mined"]
    best = summary["rounds"][0]["metrics"]["hit@5"]
    assert best > summary["baseline"]["hit@5"] + 0.3, "the mean of a history does not know what comes next; a GRU can learn it"

    code: dict[str, Any] = {}
    exec(summary["usage"], code)
    assert code["queries"].shape == (1, 8)
    encoder = load_encoder(Path(summary["model"]))
    assert isinstance(encoder, SequenceEncoder)
    store = Store(summary["output"])
    commits = {commit.name: commit for commit in Ledger(store).all()}
    assert commits["sequence"].figures["histories_cut"] == sum(len(history) > 6 for history in names)
    trained = commits["round-01-hits"].inputs["vectors"]
    vectors = next(commit for commit in commits.values() if commit.key == trained)
    queries, items = load_vectors(store, vectors.parts("queries")), load_vectors(store, vectors.parts("corpus"))
    assert np.abs(encoder.encode(encoder.read(names[:50])) - queries[:50]).max() < 1e-5, "the run's vectors, by ids"
    assert np.abs(encoder.encode(item_tokens(0, ITEMS)) - items).max() < 1e-5
    scores = queries[:80] @ items.T
    for row, history in enumerate(names[:80]):
        scores[row, [int(name[1:]) for name in history]] = -np.inf
    places = np.argsort(-scores, axis=1)[:, :5]
    wanted = [(int(names[n][-1][1:]) + STEP) % ITEMS for n in range(80)]
    assert np.mean([want in top for want, top in zip(wanted, places, strict=True)]) == pytest.approx(best)


def no_column(case: Any) -> None:
    for row in case.queries:
        row["met"] = row.pop("history")


def spoil(row: int, history: Any) -> Callable[[Any], None]:
    return lambda case: case.queries[row].update(history=history)


def all_texts(case: Any) -> None:
    for row in case.queries:
        row["history"] = "i1, i2"


def met_again(case: Any) -> None:
    case.labels[2]["item_id"] = "i10"


def no_vectors(case: Any) -> None:
    for row in case.items:
        del row["vector"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_column, ("queries.jsonl", "'history'", "found id, split, met", "data.columns = { history =")),
        (spoil(3, []), ("queries.jsonl, row 4 (id 'q3')", "the history is empty", "1 of 10 queries", "leave these queries out")),
        (spoil(5, None), ("queries.jsonl, row 6 (id 'q5')", "the history is empty")),
        (spoil(4, ["i1", "i99", "i98"]), ("queries.jsonl, row 5 (id 'q4')", "'i99'", "not in the corpus", "2 of 30 entries")),
        (spoil(4, ["i1", None]), ("queries.jsonl, row 5 (id 'q4')", "names item None", "1 of 29 entries")),
        (all_texts, ("'history' should hold lists of item ids", "found string")),
        (met_again, ("not in the query's own history", "found 1 that are", "'i10' of query 'q2'", "encoder.repeats = true")),
        (no_vectors, ('encoder.kind = "sequence"', "`vector` column in the corpus", "encoder.model")),
    ],
    ids=["no column", "empty", "null", "unknown items", "a hole", "no lists", "met again", "no vectors"],
)
def test_histories_that_cannot_be_learned_from_are_refused_by_file_and_row(
    case: Any, refused: Callable[[Any, int, Any], None], change: Callable[[Any], None], words: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(0)
    for row in case.items:
        row["vector"] = rng.standard_normal(4).tolist()
    case.queries = [
        {"id": row["id"], "history": ["i10", "i11", f"i{(n + 5) % 10}"], "split": row["split"]}
        for n, row in enumerate(case.queries)
    ]
    case.set("encoder", {"kind": "sequence"})
    change(case)
    refused(case.run(), 2, words)
