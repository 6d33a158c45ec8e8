"""The bench of illnesses: its data, its table, and three of its cases trained for real."""

import datetime
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.illnesses.__main__ import evidence_path
from benchmarks.illnesses.cases import BY_NAME, CASES
from benchmarks.illnesses.data import Data, Editions, ExactTags, FewItems, Label, NarrowDomain, OneLabelEach, SyntheticQueries
from benchmarks.illnesses.kept import read_evidence, write_evidence
from benchmarks.illnesses.table import ORDER, Named, as_markdown
from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Slice, Training
from eval.significance import Interval

ROOT = Path(__file__).resolve().parents[2]


def small() -> Data:
    """Four items; two training queries, of which one has two relevant items, and two dev queries."""
    items = [
        {
            "text": f"title {row} of the book by somebody",
            "group": "saga" if row < 2 else None,
            "popularity": 1.0 / (row + 1),
            "author": f"author {row}",
            "genre": "g",
        }
        for row in range(4)
    ]
    queries = [
        {"text": f"query {row}", "kind": "plot" if row % 2 else "mood", "split": "train" if row < 2 else "dev"}
        for row in range(4)
    ]
    clicks = [Label(0, 2, 1, "click"), Label(0, 3, 1, "click"), Label(1, 1, 2, "click"), Label(1, 0, 0, "click")]
    return Data(items, queries, [*clicks, Label(2, 2, 1, "editorial"), Label(3, 3, 1, "editorial")])


def rng():
    return np.random.default_rng(0)


def test_hidden_labels_are_those_of_training_queries_only():
    data = OneLabelEach()(small(), rng())
    train = [label for label in data.labels if label.query < 2]
    assert sorted(label.query for label in train) == [0, 1]
    assert [label for label in data.labels if label.query >= 2] == [label for label in small().labels if label.query >= 2]
    assert all(item["group"] is None for item in data.items)


def test_unlabelled_editions_are_relevant_on_dev_and_unknown_in_training():
    data = Editions(copies=2)(small(), rng())
    assert len(data.items) == 12
    assert {label.item for label in data.labels if label.query == 2} == {2, 6, 10}
    assert {label.item for label in data.labels if label.query == 0} == {2, 3}
    assert data.items[4]["group"] is None
    assert set(data.items[6]["text"].split()) <= set(data.items[2]["text"].split())


def test_labelled_editions_share_the_group():
    data = Editions(known=True)(small(), rng())
    assert {label.item for label in data.labels if label.query == 0} == {2, 3, 6, 7}
    assert data.items[4]["group"] == "saga"


def test_clicks_on_best_sellers_leave_dev_alone():
    data = FewItems(count=1, share=1.0)(small(), rng())
    assert {label.item for label in data.labels if label.query < 2} == {0}
    assert sorted(label.item for label in data.labels if label.query >= 2) == [2, 3]


def test_made_queries_replace_the_real_training_queries():
    data = SyntheticQueries(dev=1)(small(), rng())
    assert all(data.queries[row]["kind"] == "made" for row in data.rows("train"))
    assert len(data.rows("train")) == 2
    assert len(data.rows("dev")) == 3
    assert {label.source for label in data.labels if data.queries[label.query]["kind"] == "made"} == {"synthetic"}


def test_tags_of_a_query_are_those_of_an_item_it_wants():
    data = ExactTags()(small(), rng())
    assert data.queries[3]["shelf"] == data.items[3]["shelf"]
    assert data.items[3]["shelf"] in data.queries[3]["text"]


def test_queries_of_other_kinds_become_the_general_set():
    data = NarrowDomain(kinds=("plot",))(small(), rng())
    assert [query["split"] for query in data.queries] == ["earlier", "train", "general", "dev"]


def test_evidence_comes_back_as_it_was(tmp_path):
    measured = Measurement(
        "round-01",
        1,
        9,
        {"recall@3": 0.5},
        against_previous={"recall@3": Interval(0.1, 0.0, 0.2, 9)},
        slices=[Slice("kind", "plot", 4, {"recall@3": 0.25}, Interval(0.1, -0.1, 0.3, 4))],
    )
    training = Training("round-01", 1, {"loss": np.array([1.0, np.nan])}, np.array([2.0]), np.array([0.5]))
    mining = Mining("round-01", 1, 9, 90, 0.5, 0, 0, 3, {"position": 45})
    evidence = Evidence([Arm("mined", measured, [training], [measured], [mining])], baseline=measured)
    write_evidence(tmp_path / "kept.json", evidence, seed=1)
    read = read_evidence(tmp_path / "kept.json")
    arm = read.arms[0]
    for kept in (read.baseline, arm.start, *arm.measurements):
        assert asdict(kept) == asdict(measured)
    assert [asdict(kept) for kept in arm.minings] == [asdict(mining)]
    np.testing.assert_array_equal(arm.trainings[0].steps["loss"], [1.0, np.nan])
    np.testing.assert_array_equal(arm.trainings[0].validation_recall, [0.5])


def test_a_case_that_is_made_otherwise_is_made_again(tmp_path):
    case = CASES[0]
    assert evidence_path(tmp_path, case, 0) == evidence_path(tmp_path, replace(case, made="told otherwise"), 0)
    assert evidence_path(tmp_path, case, 0) != evidence_path(tmp_path, replace(case, warmup_epochs=9), 0)


def test_every_expectation_is_a_finding_that_the_table_has_a_column_for():
    assert {name for case in CASES for name in case.expected.values()} == set(ORDER)
    assert len(BY_NAME) == len(CASES)


def test_the_table_tells_first_from_found_beside_another():
    soft, well = Named("temperature_too_soft", "critical"), Named("healthy", "note")
    found = {
        ("τ = 0.5", 0): {"mined": [soft]},
        ("τ = 0.5", 1): {"mined": [Named("collapse", "critical"), soft]},
        ("healthy", 0): {"mined": [well]},
    }
    text = as_markdown(found, {"processor": "P", "cpus": 2, "load": 0.5}, datetime.date(2026, 11, 21))
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    by_case = {row[0]: dict(zip(head, row, strict=False)) for row in rows[1:3]}
    assert by_case["τ = 0.5"]["too soft"] == "**1+1 of 2**"
    assert by_case["τ = 0.5"]["collapse"] == "1"
    assert by_case["healthy"]["healthy"] == "**1 of 1**"
    assert "Named first: 1 of 2 ill arms. No finding of weight: 1 of 1 healthy arms." in text


@pytest.mark.cluster
def test_ill_trainings_are_named_and_a_healthy_one_is_not(tmp_path):
    cases = ["healthy", "τ = 0.5", "strict margin"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.illnesses",
            "--work",
            str(tmp_path),
            "--seeds",
            "0",
            "--json",
            str(tmp_path / "found"),
            "--cases",
            *cases,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = {row["case"]: row["found"]["mined"] for row in json.loads((tmp_path / "found").read_text())}
    assert [found[case][0]["name"] for case in cases] == [BY_NAME[case].expected["mined"] for case in cases]
