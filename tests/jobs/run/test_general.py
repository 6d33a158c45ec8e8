"""The general set: which of its queries count, what is wrong with it, and that nothing else depends on it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.commits import Commit
from cluster.errors import ConfigError, DataError
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import Config, load_config, parse_config
from jobs.config.toml import to_toml
from jobs.finished.show import general_line, show_summary
from jobs.record.plan import plan_run
from jobs.record.record import RunRecord
from jobs.record.summary import rounds_json
from jobs.run.identity import identity_json
from jobs.run.submit import refuse_local_paths
from jobs.stages.ingest.fingerprints import fingerprints
from jobs.stages.stage_0_ingest import _ingest_tables
from jobs.trials.probe import probe_config

TABLES = {"corpus": "/g/corpus.jsonl", "queries": "/g/queries.jsonl", "qrels": "/g/qrels.jsonl"}


def config(**sections: Any) -> Config:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def add_general(case: Any, **more: Any) -> None:
    """Five general items and queries; q0 to q2 are labelled, in three splits."""
    case.set("evaluation.general", {name: f"general/{name}.jsonl" for name in TABLES} | more)
    case.files |= {
        "general/corpus.jsonl": lines([{"id": f"g{n}", "text": f"general text {n}", "vector": [1.0, n]} for n in range(5)]),
        "general/queries.jsonl": lines(
            [
                {"id": f"q{n}", "text": f"question {n}", "vector": [n, 1.0], "split": ("train", "dev", "test", "train", None)[n]}
                for n in range(5)
            ]
        ),
        "general/qrels.jsonl": lines([{"query_id": f"q{n}", "item_id": f"g{n}", "score": 1 - (n == 2)} for n in range(3)]),
    }


def ingest_general(case: Any, folder: Path) -> Any:
    loaded = load_config(case.write())
    return _ingest_tables(loaded, Store(str(folder)), "tables", loaded.evaluation.general)


def test_every_labelled_query_counts_whatever_its_split(case: Any, tmp_path: Path) -> None:
    add_general(case)
    outcome = ingest_general(case, tmp_path / "store")
    assert outcome.figures["splits"] == {"general": 3, "none": 2}
    assert outcome.figures["with_positive"] == {"general": 2}
    assert outcome.figures["dimension"] == 2
    queries = read_parts(Store(str(tmp_path / "store")), outcome.tables["queries"])
    assert queries["split"].to_pylist() == ["general"] * 3 + ["none"] * 2


@pytest.mark.parametrize(
    ("splits", "want"),
    [
        (["train", "dev", None, "train", None], ["train", "none", "train", "none", "none"]),
        ([None] * 5, ["train"] * 3 + ["none"] * 2),
    ],
)
def test_of_a_set_that_is_mixed_in_the_labelled_queries_of_its_train_split_are_trained_on(
    case: Any, tmp_path: Path, splits: list[str | None], want: list[str]
) -> None:
    add_general(case)
    case.set("data.mix", case.settings["evaluation"].pop("general") | {"share": 0.5})
    rows = [{"id": f"q{n}", "text": f"question {n}", "vector": [n, 1.0], "split": s} for n, s in enumerate(splits)]
    case.files["general/queries.jsonl"] = lines([{k: v for k, v in row.items() if v is not None} for row in rows])
    loaded, store = load_config(case.write()), Store(str(tmp_path / "store"))
    assert loaded.data.mix is not None
    assert loaded.data.mix.corpus == str(case.folder / "general/corpus.jsonl")
    outcome = _ingest_tables(loaded, store, "tables", loaded.data.mix)
    assert read_parts(store, outcome.tables["queries"])["split"].to_pylist() == want
    assert fingerprints(loaded)["mix"].keys() == {"corpus:all", "queries:all", "labels:all"}


def test_a_set_that_is_mixed_in_needs_training_queries_and_labels_of_its_own(case: Any, tmp_path: Path) -> None:
    add_general(case)
    case.set("data.mix", case.settings["evaluation"].pop("general"))
    case.files["general/queries.jsonl"] = lines(
        [{"id": f"q{n}", "text": "t", "vector": [n, 1.0], "split": "test"} for n in range(5)]
    )
    loaded = load_config(case.write())
    assert loaded.data.mix is not None
    with pytest.raises(DataError, match="the mixed-in set: expected labelled queries of the split train, found none among 3"):
        _ingest_tables(loaded, Store(str(tmp_path / "store")), "tables", loaded.data.mix)
    with pytest.raises(ConfigError, match=r"\[data\.mix\] trains on /g/qrels\.jsonl, and \[evaluation\.general\] measures"):
        config(data={"folder": "/beir", "mix": TABLES}, evaluation={"general": TABLES})
    with pytest.raises(ConfigError, match=r"\[training\.guide\] knows the run's own items"):
        config(data={"folder": "/beir", "mix": TABLES}, training={"guide": {"model": "/guide"}})


def test_a_beir_folder_needs_a_test_split_only(case: Any, tmp_path: Path) -> None:
    case.set("evaluation.general", {"folder": "beir"})
    case.files |= {
        "beir/corpus.jsonl": lines([{"_id": "g0", "title": "", "text": "one"}, {"_id": "g1", "text": "two"}]),
        "beir/queries.jsonl": lines([{"_id": "q0", "text": "one?"}, {"_id": "q1", "text": "two?"}]),
    }
    with pytest.raises(DataError, match=r"evaluation\.general\.folder: expected train\.tsv, dev\.tsv or test\.tsv"):
        fingerprints(load_config(case.write()))
    case.files |= {"beir/qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq0\tg0\t2\n"}
    assert ingest_general(case, tmp_path / "store").figures["splits"] == {"general": 1, "none": 1}
    prints = fingerprints(load_config(case.write()))
    assert prints["general"].keys() == {"corpus:all", "queries:all", "labels:test"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"item_text": "{nothing}"}, ConfigError, ["general set", "evaluation.general.item_text"]),
        ({"columns": {"id": "asin"}}, ConfigError, ["general set", "evaluation.general.columns"]),
        ({"qrels": "general/none.jsonl"}, DataError, ["general set", "[evaluation.general]", "none.jsonl"]),
    ],
)
def test_mistakes_are_told_of_the_general_set(
    case: Any, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    add_general(case, **changes)
    with pytest.raises(error) as raised:
        ingest_general(case, tmp_path / "store")
    assert all(word in str(raised.value) for word in words), raised.value


def test_labels_that_call_nothing_relevant_are_refused(case: Any, tmp_path: Path) -> None:
    add_general(case)
    case.files["general/qrels.jsonl"] = lines([{"query_id": "q0", "item_id": "g0", "score": 0}])
    with pytest.raises(DataError, match="none of the 1 labels says that an item is relevant"):
        ingest_general(case, tmp_path / "store")


def test_an_adapter_on_given_vectors_needs_vectors_of_that_length(case: Any, refused: Any) -> None:
    for rows in (case.items, case.queries):
        for row in rows:
            row["vector"] = [1.0, 2.0, 3.0]
    case.settings["encoder"] = {"kind": "adapter", "hidden": 8}
    add_general(case)
    refused(case.run(), 2, ["general set", "vectors of 3 numbers", "found vectors of 2", "take [evaluation.general] out"])


def test_paths_are_the_config_s_and_both_kinds_of_address_are_refused(case: Any) -> None:
    add_general(case)
    loaded = load_config(case.write())
    assert loaded.evaluation.general is not None
    assert loaded.evaluation.general.corpus == str(case.folder / "general/corpus.jsonl")
    assert "[evaluation.general]\ncorpus = " in to_toml(loaded), "and it reads back"
    with pytest.raises(ConfigError, match=r"evaluation\.general\.queries, evaluation\.general\.qrels not set"):
        config(evaluation={"general": {"corpus": "/c"}})
    with pytest.raises(ConfigError, match=r"evaluation\.general\.folder and evaluation\.general\.corpus are both set"):
        config(evaluation={"general": {"corpus": "/c", "folder": "/f"}})
    with pytest.raises(ConfigError, match=r"evaluation\.general\.corpus: expected a local path"):
        config(evaluation={"general": TABLES | {"corpus": "http://x/y"}})
    with pytest.raises(ConfigError, match=r"evaluation\.general.*\"sequence\""):
        config(evaluation={"general": TABLES}, encoder={"kind": "sequence"})
    with pytest.raises(ConfigError, match=r"evaluation\.general\.corpus = /g/corpus\.jsonl"):
        refuse_local_paths(config(evaluation={"general": TABLES}), "it is far away")
    with pytest.raises(ConfigError, match=r"data\.mix\.corpus = /g/corpus\.jsonl"):
        refuse_local_paths(config(data={"folder": "/beir", "mix": TABLES}), "it is far away")


def test_a_plan_lists_its_stages_and_no_stage_alone_waits_for_them() -> None:
    plain, watched = config(), config(evaluation={"general": TABLES, "events": True}, rounds={"compare_random": True})
    added = [stage.name for stage in plan_run(watched) if stage.optional]
    assert added == [
        "general-ingest",
        "general-tokens",
        "baseline-events",
        "general-baseline-embed",
        "general-baseline-hits",
        "general-baseline-evaluate",
        *(
            f"{before}round-{number:02d}-{after}"
            for number in range(3)
            for before, after in (("", "events"), ("general-", "embed"), ("general-", "hits"), ("general-", "evaluate"))
        ),
        "round-02-random-events",
    ]
    assert not any(stage.optional for stage in plan_run(plain))


def test_nothing_of_the_run_depends_on_it() -> None:
    prints = {"corpus:all": "a", "general": {"corpus:all": "b"}, "model": None}
    identity = identity_json(config(), prints)
    assert identity["data"] == {"corpus:all": "a"}, "another general set is no other run"
    assert identity["general"] == {"corpus:all": "b"}
    assert identity_json(config(), prints | {"mix": {"corpus:all": "c"}})["data"] == {"corpus:all": "a"}
    watched = config(evaluation={"general": TABLES, "events": True})
    trial = probe_config(watched).evaluation
    assert (trial.general, trial.events) == (None, False), "a probe is measured on the run's own dev queries"


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "queries": 9, "significant": True}


def commits_of(name: str, model: str, general_model: str, number: int) -> list[Commit]:
    """Vectors, hits and evaluation of a model on both sets."""
    found = []
    seconds = {"wall": 1.0, "work": 0.8, "overhead": 0.2}
    for prefix, digest in (("", model), ("general-", general_model)):
        key = f"{prefix}{name}"
        against = {"recall@3": interval(-0.02), "ndcg@10": interval(-0.03), "verdict": "worse"}
        figures = {"round": number, "metrics": {"recall@3": 0.5, "ndcg@10": 0.6}}
        if number >= 0:
            figures |= {"against_baseline": against, "against_best": against, "against_previous": against}
        found += [
            Commit(f"embed-{key}", f"{key}-v", {"model": digest}, seconds=seconds),
            Commit(f"{key}-hits", f"{key}-h", {"vectors": f"{key}-v"}, seconds=seconds),
            Commit(f"{key}-evaluate", f"{key}-e", {"hits": f"{key}-h", "baseline": None}, figures=figures, seconds=seconds),
        ]
    return found


def test_a_round_s_row_has_the_general_figures_of_the_same_model_only() -> None:
    commits = [
        *commits_of("baseline", "m0", "m0", -1),
        *commits_of("round-01", "m1", "m1", 1),
        *commits_of("round-02", "m2", "before it was trained again", 2),
    ]
    rows = rounds_json(RunRecord.of_commits(commits))
    assert rows["general_baseline"] == {"recall@3": 0.5, "ndcg@10": 0.6}
    general = next(commit for commit in commits if commit.name == "general-round-01-evaluate")
    assert rows["rounds"][0]["general"] == {
        "recall@3": 0.5,
        "ndcg@10": 0.6,
        "against_baseline": general.figures["against_baseline"],
    }
    assert "general" not in rows["rounds"][1]
    without = [commit for commit in commits if not commit.name.startswith("general-")]
    assert "general" not in rounds_json(RunRecord.of_commits(without))["rounds"][0]


def test_a_person_reads_one_line() -> None:
    rows = rounds_json(RunRecord.of_commits([*commits_of("baseline", "m0", "m0", -1), *commits_of("round-01", "m1", "m1", 1)]))
    rows["rounds"][0] |= {"negatives": "mined", "train_loss": 1.0}
    summary = rows | {
        "name": "shop",
        "output": "/runs/shop",
        "model": "/runs/shop/model",
        "best_round": 1,
        "baseline": {},
        "usage": "code",
        "copy": None,
    }
    console = Console(file=io.StringIO(), width=200)
    show_summary(console, summary)
    shown = [line for line in console.file.getvalue().splitlines() if line.startswith("general set")]  # type: ignore[attr-defined]
    assert shown == [
        "general set, round 1 against off the shelf (Recall@3 0.500 · NDCG@10 0.600): "
        "Recall@3 -2.0 points [-3.0, -1.0] · NDCG@10 -3.0 points [-4.0, -2.0]"
    ]
    assert general_line(summary | {"best_round": -1}) == "general set, off the shelf: Recall@3 0.500 · NDCG@10 0.600"
    assert general_line(summary | {"general_baseline": None}) is None
