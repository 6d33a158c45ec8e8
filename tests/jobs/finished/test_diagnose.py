"""`hardmine diagnose` on runs whose commits are written by hand: finished, older, under way; and on what is no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Ledger, Outcome
from cluster.storage.records import write_record
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.finished.diagnose import diagnose_output
from jobs.finished.evidence import read_evidence, training_from_lines
from training.telemetry.telemetry import telemetry_files

QUERIES = 300
HEALTHY = {
    "positive_probability": 0.6,
    "hardest_weight": 0.3,
    "effective_negatives": 30.0,
    "negatives_per_query": 200.0,
    "above_hard": 0.02,
    "mean_pairwise_cosine": 0.1,
    "temperature": 0.05,
}


def lines(steps: int, **figures: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": n, "loss": 2.0 - n / steps, **HEALTHY, **figures} for n in range(1, steps + 1)]
    at = [steps // 4, steps // 2, 3 * steps // 4, steps]
    return rows + [{"event": "validation", "epoch": n, "step": step, "recall": 0.5 + 0.02 * n} for n, step in enumerate(at)]


def interval(mean: float) -> dict[str, Any]:
    return {"recall@3": {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "queries": QUERIES, "p": 0.01}, "verdict": "flat"}


class Run:
    """A run's folder, stage by stage."""

    def __init__(self, folder: str) -> None:
        self.store = Store(f"{folder}/runs/catalogue")
        self.ledger = Ledger(self.store)
        self.keys: dict[str, str] = {}
        write_record(self.store, "identity.json", {"encoder": {"kind": "static", "model": None}})
        self.commit("ingest", "tables", {}, {"items": 5000})
        self.commit("baseline-hits", "baseline", {})
        self.evaluate("baseline", -1, leakage={"shelf": {"positives": 0.1, "random": 0.1, "pairs": 900}})

    def commit(
        self,
        name: str,
        folder: str,
        inputs: dict[str, Any],
        figures: dict[str, Any] | None = None,
        rows: list[dict[str, Any]] | None = None,
        values: Any = None,
    ) -> None:
        def work(place: str) -> Outcome:
            if rows is not None:
                self.store.write_bytes(f"{place}/telemetry.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
            table = pa.table({"query_row": np.arange(QUERIES), "recall@3": values}) if values is not None else None
            tables = {"per_query": [write_part(self.store, f"{place}/per_query.parquet", table)]} if table is not None else {}
            return Outcome(tables=tables, files=telemetry_files(self.store, place), figures=figures or {})

        self.keys[name] = self.ledger.stage(name, inputs=inputs, work=work, folder=folder).key

    def evaluate(self, name: str, number: int, values: Any = None, **figures: Any) -> None:
        if f"{name}-hits" not in self.keys:
            self.commit(f"{name}-hits", f"rounds/{name}", {})
        inputs = {"hits": self.keys[f"{name}-hits"], "baseline": self.keys.get("baseline-evaluate")}
        self.commit(
            f"{name}-evaluate",
            f"rounds/{name}/evaluate",
            inputs,
            values=values,
            figures={"round": number, "queries": QUERIES, "metrics": {"recall@3": 0.5, "mrr@10": None}, **figures},
        )

    def train(self, name: str, number: int, rows: list[dict[str, Any]], **figures: Any) -> None:
        self.commit(
            f"{name}-train",
            f"rounds/{number:02d}/train",
            {"name": name, "training": {"temperature": 0.05}},
            {"steps": len(rows), **figures},
            rows,
        )

    def mined_round(self, number: int, **figures: float) -> None:
        name = f"round-{number:02d}"
        self.commit(
            f"{name}-report",
            f"rounds/{number:02d}/report",
            {"n": number},
            {"queries": 900, "candidates": 9000, "hit_rate": 0.9, "suspected_false_negatives": 9, "dropped": {"positive": 10}},
        )
        self.train(name, number, lines(100, **figures))
        self.evaluate(
            name,
            number,
            against_baseline=interval(0.3),
            against_previous=interval(0.05),
            scores={"percentiles": {"random": {"p50": 0.1}}},
            slices={
                "kind": {
                    "left_out": 0,
                    "slices": [
                        {
                            "value": "plot",
                            "queries": 90,
                            "metrics": {"recall@3": 0.4},
                            "against_baseline": {
                                "mean": 0.1,
                                "low": 0.05,
                                "high": 0.15,
                                "p": 0.01,
                                "p_adjusted": 0.02,
                                "significant": True,
                            },
                        }
                    ],
                }
            },
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path))


def test_a_run_of_two_arms_is_read_from_its_commits(run: Run) -> None:
    run.train("round-00", 0, lines(60))
    run.evaluate("round-00", 0, against_baseline=interval(0.2))
    run.mined_round(1)
    run.train("round-01-random", 1, lines(100, positive_probability=0.98))
    run.evaluate("round-01-random", 1, against_best=interval(-0.05), against_previous=interval(0.0))
    evidence = read_evidence(run.store)
    mined, random = evidence.arms
    assert (mined.name, random.name, evidence.items) == ("mined", "random", 5000)
    assert mined.start is not None
    assert mined.start.name == "round-00"
    assert len(mined.trainings[0].steps["loss"]) == 100
    assert mined.trainings[0].validation_steps.tolist() == [25, 50, 75, 100]
    assert mined.minings[0].dropped == {"positive": 10}
    assert mined.measurements[0].metrics == {"recall@3": 0.5}
    assert mined.measurements[0].scores == {"random_p50": 0.1}
    [part] = mined.measurements[0].slices
    assert part.against_baseline is not None
    assert (part.column, part.queries, part.significant, part.against_baseline.high) == ("kind", 90, True, 0.15)
    assert random.measurements[0].against_mined["recall@3"].mean == -0.05
    assert evidence.settings["training.temperature"] == 0.05
    assert evidence.settings["training.label_sources.synthetic.cap"] == 0.2
    assert (evidence.settings["encoder.kind"], evidence.settings["name"]) == ("static", "catalogue")
    assert evidence.leakage["shelf"]["pairs"] == 900
    findings = diagnose_output(run.store).findings
    assert [(found.name, found.arm) for found in findings] == [("negatives_too_easy", "random"), ("healthy", "mined")]


def test_a_run_under_way_is_read_as_far_as_it_got(run: Run) -> None:
    assert diagnose_output(run.store).findings == []
    run.store.write_bytes("rounds/00/train/abc/telemetry.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in lines(60)))
    [found] = diagnose_output(run.store).findings
    assert (found.name, found.arm) == ("not_enough_evidence", "random")
    run.train("round-00", 0, lines(60))
    run.evaluate("round-00", 0, against_baseline=interval(0.2), against_previous=interval(0.2))
    assert [found.name for found in diagnose_output(run.store).findings] == ["healthy"]
    run.commit("round-01-mine", "rounds/01/mine", {}, {"candidates": 100, "hit_rate": 0.5})
    run.store.write_bytes(
        "rounds/01/train/abc/telemetry.jsonl",
        b"".join(json.dumps(row).encode() + b"\n" for row in lines(60, mean_pairwise_cosine=0.99)),
    )
    assert [(found.name, found.arm) for found in diagnose_output(run.store).findings] == [("collapse", "mined")]


def test_what_an_earlier_configuration_left_does_not_count(run: Run) -> None:
    run.mined_round(1)
    assert len(read_evidence(run.store).arms[0].measurements) == 1
    run.commit("round-01-hits", "rounds/round-01", {"other": 1})
    assert read_evidence(run.store).arms[0].measurements == []


def test_the_general_set_is_read(run: Run) -> None:
    run.mined_round(1)
    for name, number in (("general-baseline", -1), ("general-round-01", 1)):
        run.evaluate(name, number, against_baseline=interval(-0.1) if number > 0 else {})
    assert [measured.name for measured in read_evidence(run.store).general] == ["general-baseline", "general-round-01"]
    assert diagnose_output(run.store).findings[0].name == "forgetting"
    for name in ("merged-75", "general-merged-75"):
        run.evaluate(name, 175, against_baseline=interval(0.1))
    after = read_evidence(run.store)
    assert [measured.name for measured in after.general] == ["general-baseline", "general-round-01"]
    assert [measured.name for arm in after.arms for measured in arm.measurements] == ["round-01"], "no average is judged"


def test_telemetry_of_nothing_is_a_training_without_figures() -> None:
    training = training_from_lines("round-01", 1, [])
    assert (dict(training.steps), len(training.validation_recall)) == ({}, 0)
    gap = training_from_lines("round-01", 1, [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}])
    assert np.isnan(gap.steps["loss"][0])


def test_the_command_prints_findings_for_a_person_and_one_object_for_a_program(run: Run, case: Any) -> None:
    run.mined_round(1, mean_pairwise_cosine=0.99)
    answer = case.hardmine("diagnose", run.store.root)
    assert (answer.code, answer.err) == (0, "")
    assert "collapse" in answer.out
    assert "next: lower training.learning_rate, under another name" in answer.out, "no file of this run is known"
    value = json.loads(case.hardmine("diagnose", run.store.root, "--json").out)
    assert [(finding["name"], finding["severity"]) for finding in value["findings"]] == [("collapse", "critical")]


def test_a_run_and_a_log_on_s3_are_read_from_there(s3_bucket: str, s3_endpoint: str, case: Any) -> None:
    case.patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    run = Run(s3_bucket)
    run.mined_round(1)
    value = json.loads(case.hardmine("diagnose", run.store.root, "--json").out)
    assert [finding["name"] for finding in value["findings"]] == ["healthy"]
    run.store.write_bytes("logs/trainer_state.json", json.dumps({"log_history": lines(20)}).encode())
    for address in ("logs", "logs/trainer_state.json"):
        value = json.loads(case.hardmine("diagnose", run.store.url(address), "--json").out)
        assert (value["log"]["lines"], value["findings"][0]["name"]) == (24, "healthy")


def test_a_run_whose_rounds_lost_what_the_warm_up_had_is_over_fitted(run: Run) -> None:
    for name, number, recall, change in (("round-00", 0, 0.565, 0.3), ("round-01", 1, 0.549, -0.016)):
        run.train(name, number, lines(100))
        run.evaluate(name, number, metrics={"recall@3": recall}, against_previous=interval(change))
    assert [found.name for found in diagnose_output(run.store).findings] == ["overfitting"]


def test_the_runs_own_file_stands_in_what_is_proposed(run: Run, case: Any, refused: Any) -> None:
    run.mined_round(1, mean_pairwise_cosine=0.99)
    path = str(case.write())
    answer = case.hardmine("diagnose", run.store.root, "--config", path)
    assert f"hardmine run {path} name=catalogue-slower" in answer.out
    refused(case.hardmine("diagnose", run.store.root, "--config", "nowhere.toml"), 2, ["nowhere.toml"])


def test_the_command_reads_a_log(tmp_path: Path, case: Any) -> None:
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["step,loss,recall@10", *(f"{n},{2 - n / 30},{0.5}" for n in range(30))]))
    answer = case.hardmine("diagnose", str(path), "--json")
    value = json.loads(answer.out)
    assert (answer.code, value["findings"][0]["name"]) == (0, "plateau")
    assert value["log"] == {"lines": 30, "loss": "loss", "metric": "recall@10", "runs": 1}
    assert "do not show why" in case.hardmine("diagnose", str(path)).out


def test_of_a_trainers_output_folder_the_newest_checkpoint_is_read(tmp_path: Path, case: Any) -> None:
    for step in (900, 1000, 99):
        path = tmp_path / f"output/checkpoint-{step}/trainer_state.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"log_history": [{"step": n, "loss": 1.0} for n in range(1, step, 3)]}))
    (tmp_path / "output/checkpoint-2000").mkdir()  # its writer was killed
    (tmp_path / "output/checkpoint-last").mkdir()
    value = json.loads(case.hardmine("diagnose", str(tmp_path / "output"), "--json").out)
    assert value["output"] == str(tmp_path / "output/checkpoint-1000/trainer_state.json")
    assert value["log"]["lines"] == 333


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("", None, ["neither a run", "trainer_state.json", "checkpoint-N"]),
        ("nowhere", None, ["neither a run", "<output>/<name>"]),
        ("nowhere.csv", None, ["there is no log"]),
        ("bad.csv", b"colour\nred\n", ["expected", "colour"]),
    ],
)
def test_what_is_no_run_and_no_log_is_the_users_mistake(
    name: str, content: bytes | None, words: list[str], tmp_path: Path, case: Any, refused: Any
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(case.hardmine("diagnose", str(tmp_path / name)), 2, words)
