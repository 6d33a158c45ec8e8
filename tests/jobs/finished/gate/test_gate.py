"""`hardmine gate` on a run folder written by hand through its commits: no Ray, nothing trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger, Outcome
from cluster.storage.records import read_record, write_record
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import read_parts, write_part
from eval.attainable import attainable
from eval.gate.latency import Latency
from eval.gate.settings import GateSettings
from eval.metrics import Judgements, per_query_metrics, summarise
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from jobs.config.config import parse_config
from jobs.finished.gate.figures import _with_reranker
from jobs.finished.gate.gate import gate, judge
from jobs.run.driver import _keep_gate
from jobs.stages.evaluate.measure import compare_metrics
from tests.support.reranking import reranking_table

if TYPE_CHECKING:
    from tests.jobs.conftest import Answer, Case

    Refused = Callable[[Answer, int, Sequence[str]], None]

ITEMS, QUERIES, HITS = 20, 40, 11
"""Query q of dev has the relevant item q % ITEMS; of test as well."""
CATALOGUE = "evaluation.gate.bar=mature_catalogue"
HALF = "evaluation.gate.metrics.recall@3.min=0.5"
HALF_IS_FOUND = ["evaluation.gate.metrics.hit@5.min_gain=-100"]
"""Round 0 lost the other half from the first five results."""


def found_at(position: int, query: int) -> list[int]:
    """Hits of a query with its relevant item at a position from 0, among others."""
    others = [(query + 1 + n) % ITEMS for n in range(ITEMS - 1)][: HITS - 1]
    return [*others[:position], query % ITEMS, *others[position:]][:HITS]


@dataclass
class Run:
    """Writes a run; `positions` says where each model finds the relevant item of query n."""

    store: Store
    best: int = 1
    test: bool = False
    finished: bool = True
    general: dict[str, Any] | None = None
    """Each round's comparison on the general set; {}: there is a set, and nothing was measured on it."""
    more: int = 0
    """Further relevant items of every query, which no model finds."""
    per_query: dict[str, Any] = field(default_factory=dict)

    def write(self, positions: dict[str, Callable[[int], int]], figures: dict[str, dict[str, Any]] | None = None) -> Run:
        """All commits. Args: figures: model -> what its evaluation has beside the metrics."""
        write_record(self.store, "identity.json", {})
        self._tables()
        scored = {name: self._model(name, place, (figures or {}).get(name, {})) for name, place in positions.items()}
        watched = {"general": {"against_baseline": self.general}} if self.general else {}
        rounds = [{"round": int(name[6:8])} | watched for name in positions if name.startswith("round-")]
        summary = {
            "best_round": self.best,
            "primary": "recall@3",
            "rounds": rounds,
            "model": None,
            "test": {"best": scored["test-best"]} if self.test else None,
        }
        if self.finished:
            self._stage("finish", Outcome(figures={"summary": summary}))
            config = parse_config(
                {"name": "run", "output": self.store.root, "data": {"folder": "d"}, "encoder": {"kind": "static"}}, source="test"
            )
            settings = config.model_dump(mode="json")
            if self.general is not None:
                settings["evaluation"]["general"] = {"folder": "general"}
            write_record(self.store, "run.json", {"config": settings})
        return self

    def _stage(self, name: str, outcome: Outcome, **inputs: Any) -> Commit:
        return Ledger(self.store).stage(name, inputs=inputs, work=lambda _: outcome, folder=name)

    def _tables(self) -> None:
        corpus = pa.table(
            {
                "row": range(ITEMS),
                "id": [f"i{n}" for n in range(ITEMS)],
                "text": [f"text {n}" for n in range(ITEMS)],
                "title": [f"Title {n}" for n in range(ITEMS)],
            }
        )
        queries = pa.table(
            {
                "row": range(2 * QUERIES),
                "id": [f"q{n}" for n in range(2 * QUERIES)],
                "text": [f"query {n}" for n in range(2 * QUERIES)],
                "item_row": [-1] * 2 * QUERIES,
            }
        )
        labels = pa.table(
            {"query_row": range(2 * QUERIES), "item_row": [n % ITEMS for n in range(2 * QUERIES)], "score": [1] * 2 * QUERIES}
        )
        codes = pa.table({"text_code": range(ITEMS)})
        parts = {
            name: [write_part(self.store, f"t/{name}", table)]
            for name, table in (("corpus", corpus), ("codes", codes), ("queries", queries), ("labels", labels))
        }
        self._stage("ingest", Outcome(tables=parts))

    def _model(self, name: str, place: Callable[[int], int], figures: dict[str, Any]) -> dict[str, Any]:
        split = "test" if name.startswith("test-") else "dev"
        rows = np.arange(QUERIES) + (QUERIES if split == "test" else 0)
        lists = [found_at(place(int(row)), int(row)) for row in rows]
        table = pa.table({"query_row": rows, "item_rows": lists, "scores": [[1 - n / 20 for n in range(HITS)]] * len(rows)})
        hits = self._stage(f"{name}-hits", Outcome(tables={"hits": [write_part(self.store, f"{name}/hits", table)]}))
        items = np.concatenate([rows % ITEMS, *(np.full(len(rows), ITEMS + n) for n in range(self.more))])
        judged = Judgements.from_triples(np.tile(rows, 1 + self.more), items, np.ones(len(items)))
        per_query = per_query_metrics(np.array(lists)[:, :-1], rows, judged)
        part = write_part(self.store, f"{name}/per_query", pa.table({"query_row": rows} | per_query))
        metrics = summarise(per_query)
        self.per_query[name] = per_query
        best = summarise(attainable(per_query, rows, judged))
        common = {"metrics": metrics, "attainable": best, "queries": len(rows), "split": split, "round": self.best}
        common["queries_without_positive"] = 0
        baseline = self.per_query.get("test-baseline" if split == "test" else "baseline")
        if baseline is not None and not name.endswith("baseline"):
            common["against_baseline"] = compare_metrics(per_query, baseline, EvaluationSettings(num_hits=10))
        self._stage(f"{name}-evaluate", Outcome(tables={"per_query": [part]}, figures=common | figures), hits=hits.key)
        return metrics


def first(_: int) -> int:
    return 0


def fourth(_: int) -> int:
    return 3


def half(query: int) -> int:
    """First for even queries, sixth for odd ones."""
    return 0 if query % 2 == 0 else 5


def half_or_second(query: int) -> int:
    """As `half`, but four even queries lost their place."""
    return 7 if query in (2, 4, 6, 8) else min(half(query), 1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Off the shelf every relevant item is fourth; round 0 finds half of them first, round 1 all."""
    return Run(Store(str(tmp_path / "runs/run"))).write({"baseline": fourth, "round-00": half, "round-01": first})


def ask(case: Case, run: Run, *words: str) -> tuple[dict[str, Any], int]:
    answer = case.hardmine("gate", run.store.root, "--no-latency", "--json", *words)
    assert answer.code in (0, 1), answer.err
    assert answer.out.count("\n") == 1
    value: dict[str, Any] = json.loads(answer.out)
    assert value == run.store.read_json("gate.json")
    assert (value["passed"] is not False) == (answer.code == 0)
    return value, answer.code


def check(value: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in value["checks"] if one["name"] == name)
    return found


def test_a_good_model_passes_and_a_threshold_above_it_fails(ray_case: Case, run: Run) -> None:
    value, code = ask(ray_case, run, CATALOGUE)
    assert code == 0, value["verdict"]
    assert (value["round"], value["split"], check(value, "recall@3")["value"]) == (1, "dev", 1.0)
    assert value["checks"][0].keys() >= {"name", "value", "threshold", "passed", "interval"}
    assert check(value, "added_latency_ms")["passed"] is None
    assert value["worse"] == []
    assert value["better_total"] == QUERIES
    value, code = ask(ray_case, run, "--round", "0", CATALOGUE)
    assert code == 1
    assert value["verdict"].startswith("no: Recall@3: 0.500 [0.")
    assert "(at least 0.800): not passed; NDCG@10" in value["verdict"]
    value, code = ask(ray_case, run, "--round", "0", HALF, *HALF_IS_FOUND)
    assert code == 0, value["verdict"]
    assert value["passed"] is None
    assert value["verdict"].startswith("your decision: ")
    assert check(value, "recall@3:min")["outcome"] == "inconclusive", "half of 40 queries is not surely half"
    assert ask(ray_case, run, "--round", "0", HALF, *HALF_IS_FOUND, "evaluation.gate.require_significance=true")[1] == 1
    assert ask(ray_case, run, "evaluation.gate.strict=true")[1] == 1, "the latency was not measured"


def test_a_judgement_without_the_command_leaves_nothing(run: Run) -> None:
    before = run.store.list()
    value = judge(run.store, without_latency="there is no time")
    assert run.store.list() == before
    assert value == gate(run.store, without_latency="there is no time") == run.store.read_json("gate.json")
    assert check(value, "added_latency_ms")["why"] == "there is no time"


def test_what_a_perfect_model_gets_stands_beside_value_and_threshold(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run")), more=9).write({"baseline": fourth, "round-01": first})
    value, code = ask(ray_case, run, CATALOGUE, "evaluation.gate.min_gain=21")
    assert code == 1
    recall = check(value, "recall@3")
    assert (recall["value"], recall["threshold"], recall["attainable"]) == (pytest.approx(0.1), 0.8, pytest.approx(0.3))
    assert "unreachable: a perfect model gets 0.300 on these queries" in value["verdict"]
    assert check(value, "gain:recall@3")["attainable"] == pytest.approx(30.0), "off the shelf it is 0"
    assert (check(value, "bad_top1")["attainable"], check(value, "ndcg@10")["attainable"]) == (0.0, 1.0)
    shown = ray_case.hardmine("gate", run.store.root, CATALOGUE, "--no-latency").out
    assert "attain-" in shown, "the head of the column, in two lines"
    assert any(line.split()[0] == "recall@3" and "0.300" in line for line in shown.splitlines() if line.strip())


def test_a_figure_that_got_significantly_worse_fails_though_the_primary_one_gained(ray_case: Case, tmp_path: Path) -> None:
    # found third instead of first or eleventh: Recall@3 doubles, and no query has its item first any more
    run = Run(Store(str(tmp_path / "run"))).write({"baseline": lambda q: 0 if q % 2 else 10, "round-01": lambda _: 2})
    value, code = ask(ray_case, run)
    assert code == 1
    assert check(value, "gain:recall@3")["passed"] is True
    lost = check(value, "losses")
    assert (lost["passed"], lost["threshold"]) == (False, 0.0)
    assert "Hit@1" in lost["text"]
    own = [f"evaluation.gate.metrics.{name}.min_gain=-100" for name in ("hit@1", "bad_top1", "mrr@10", "ndcg@10")]
    assert ask(ray_case, run, *own)[1] == 0, "a threshold of its own allows it"


def test_intervals_are_those_of_the_evaluation(ray_case: Case, run: Run) -> None:
    value, _ = ask(ray_case, run, "--round", "0")
    ledger = Ledger(run.store)
    tables = [
        read_parts(run.store, found.parts("per_query"))
        for name in ("round-00", "baseline")
        if (found := ledger.find(f"{name}-evaluate"))
    ]
    gain = asdict(paired_bootstrap(*(table["recall@3"].to_numpy() for table in tables)))
    assert check(value, "gain:recall@3")["interval"] == {
        name: pytest.approx(gain[name] * (1 if name == "queries" else 100)) for name in gain
    }


def test_the_queries_that_got_worse_come_with_their_results_before_and_after(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run"))).write({"baseline": half, "round-01": half_or_second})
    value, _ = ask(ray_case, run)
    assert (value["worse_total"], value["better_total"]) == (4, QUERIES // 2)
    assert [query["query_id"] for query in value["worse"]] == ["q2", "q4", "q6", "q8"]
    worst = value["worse"][0]
    assert worst["change"] == -1.0
    assert worst["relevant"] == [{"item_id": "i2", "title": "Title 2", "grade": 1, "before": 1, "after": 8}]
    assert worst["before"][0] == {"position": 1, "item_id": "i2", "title": "Title 2", "score": 1.0, "relevant": True}
    assert not any(hit["relevant"] for hit in worst["after"])


def test_the_test_split_is_judged_where_the_run_looked_at_it(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run")), test=True).write(
        {"baseline": fourth, "round-00": first, "round-01": first, "test-baseline": fourth, "test-best": half}
    )
    value, code = ask(ray_case, run, CATALOGUE)
    assert (code, value["split"], check(value, "recall@3")["value"]) == (1, "test", 0.5)
    assert value["notes"] == ["whatever the answer, it rests on too little: 40 evaluated queries, fewer than 50"]
    value, code = ask(ray_case, run, "--round", "0")
    assert (code, value["split"]) == (0, "dev")
    assert "looked at the test split with round 1 only" in value["notes"][0]


def test_the_off_the_shelf_model_can_be_asked_about_and_is_nothing_new(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run")), best=-1).write({"baseline": first, "round-00": fourth})
    value, code = ask(ray_case, run)
    assert code == 1
    assert "there is nothing new to ship" in value["verdict"]
    value, code = ask(ray_case, run, "--round", "-1", CATALOGUE)
    assert code == 0
    assert [one["name"] for one in value["checks"] if one["passed"]] == ["recall@3", "ndcg@10", "bad_top1"]
    assert "not compared with itself" in value["verdict"]


def test_guards_and_slices_are_read_from_the_evaluation_and_named_where_it_is_older(ray_case: Case, tmp_path: Path) -> None:
    def results(popularity: float) -> dict[str, Any]:
        return {"results": {"depth": 10, "coverage": 0.5, "gini": 0.4, "popularity": popularity, "relevant_popularity": 0.5}}

    change = {"mean": -0.2, "low": -0.3, "high": -0.1, "p": 0.001, "p_adjusted": 0.002, "significant": True}
    slices = {
        "slices": {
            "genre": {
                "left_out": 0,
                "slices": [
                    {"value": "crime", "queries": 60, "metrics": {"recall@3": 0.2}, "against_baseline": change},
                    {
                        "value": "drama",
                        "queries": 60,
                        "metrics": {"recall@3": None},
                        "against_baseline": change | {"significant": False},
                    },
                ],
            }
        }
    }
    models = {"baseline": fourth, "round-01": first}
    new = Run(Store(str(tmp_path / "new"))).write(models, {"baseline": results(0.5), "round-01": results(0.7) | slices})
    value, code = ask(ray_case, new)
    assert code == 1
    assert [one["name"] for one in value["checks"] if one["passed"] is False] == ["popularity", "slices"]
    assert ask(ray_case, new, "evaluation.gate.max_popularity_gain=off", "evaluation.gate.slices=false")[1] == 0
    old = Run(Store(str(tmp_path / "old"))).write(models)
    value, code = ask(ray_case, old)
    assert code == 0
    assert [one["name"] for one in value["checks"] if one["passed"] is None] == [
        "added_latency_ms",
        "added_latency_p95",
        "popularity",
        "coverage",
        "gini",
        "slices",
        "general",
    ]


def test_forgetting_on_the_general_set_fails(ray_case: Case, tmp_path: Path) -> None:
    def judged(name: str, general: dict[str, Any]) -> dict[str, Any]:
        run = Run(Store(str(tmp_path / name)), general=general).write({"baseline": fourth, "round-01": first})
        return check(ask(ray_case, run)[0], "general")

    lost = judged("lost", {"recall@3": {"mean": -0.05, "low": -0.07, "high": -0.03, "queries": 300}})
    assert (lost["passed"], lost["value"], lost["threshold"]) == (False, pytest.approx(-5.0), -2.0)
    kept = judged("kept", {"recall@3": {"mean": -0.01, "low": -0.03, "high": 0.01, "queries": 300}})
    assert kept["outcome"] == "inconclusive"
    assert judged("unmeasured", {})["passed"] is None


def test_a_person_reads_the_answer_last(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run"))).write({"baseline": half, "round-01": half_or_second})
    answer = ray_case.hardmine("gate", run.store.root, "--no-latency", CATALOGUE)
    assert answer.code == 1
    for words in (
        "round 1 on 40 dev queries",
        "gain:recall@3",
        "failed",
        "not checked: added_latency_ms, added_latency_p95: --no-latency was given",
        "4 of 40 queries got worse in Recall@3, 20 better",
        "query 2 (q2; -100.0 points; position of Title 2 1 → 8)",
        "✓ Title 2 (i2)",
    ):
        assert words in answer.out
    assert answer.out.splitlines()[-2].startswith("no: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--round", "7"], ["--round 7", "found -1, 0, 1"]),
        (["training.epochs=2"], ["evaluation.gate.key=value", "'training.epochs'"]),
        (["evaluation.gate.min_gian=0.5"], ["evaluation.gate.min_gian is not a setting", "min_gain"]),
        (["evaluation.gate.min_gain=200"], ["evaluation.gate.min_gain", "found 200"]),
        (["evaluation.gate.bar=high"], ["evaluation.gate.bar", "mature_catalogue", "high"]),
        (["evaluation.gate.min_gain"], ["expected an override of the form"]),
        (["evaluation.gate.metrics.recall@7.min=0.5"], ["'recall@7'", "no evaluation measures", "recall@5"]),
        (["evaluation.gate.metrics.recall@5.least=0.5"], ["evaluation.gate.metrics.recall@5.least is not a setting"]),
    ],
)
def test_a_mistake_is_one_paragraph(ray_case: Case, run: Run, refused: Refused, words: list[str], told: list[str]) -> None:
    refused(ray_case.hardmine("gate", run.store.root, "--no-latency", *words), 2, told)


def test_what_is_no_finished_run_is_refused(ray_case: Case, tmp_path: Path, refused: Refused) -> None:
    refused(ray_case.hardmine("gate", str(tmp_path / "nothing")), 2, ["is not a run"])
    begun = Run(Store(str(tmp_path / "begun")), finished=False).write({"baseline": fourth, "round-00": first})
    refused(ray_case.hardmine("gate", begun.store.root), 2, ["expected a finished run", "`hardmine run`"])


def test_commits_of_two_configurations_are_not_mixed(ray_case: Case, run: Run, refused: Refused) -> None:
    path = Ledger(run.store).path("round-01-hits")
    write_record(run.store, path, read_record(run.store, path) | {"key": "another"})
    refused(ray_case.hardmine("gate", run.store.root, "--no-latency"), 2, ["round-01-evaluate", "another configuration"])


def test_a_run_on_s3_is_judged_where_it_lies(ray_case: Case, s3_bucket: str, s3_endpoint: str) -> None:
    store = Store(f"{s3_bucket}/runs/run", StorageSettings(endpoint=s3_endpoint))
    run = Run(store).write({"baseline": fourth, "round-01": first})
    value, code = ask(ray_case, run, "--endpoint", s3_endpoint)
    assert (code, value["output"]) == (0, store.root)


def test_thresholds_changed_after_the_end_are_the_ones_that_count(ray_case: Case, run: Run) -> None:
    config = parse_config(
        {
            "name": "run",
            "output": run.store.root,
            "data": {"folder": "d"},
            "encoder": {"kind": "static"},
            "evaluation": {"gate": {"min_gain": "off", "metrics": {"mrr@10": {"min": 0.9}}}},
        },
        source="test",
    )
    _keep_gate(config, run.store)
    value, _ = ask(ray_case, run)
    assert [one["name"] for one in value["checks"]][:2] == ["mrr@10:min", "gain:recall@3"]
    assert check(value, "gain:recall@3")["why"] == "evaluation.gate.min_gain is off"
    assert value["settings"] == config.evaluation.gate.model_dump(mode="json") != GateSettings().model_dump(mode="json")


def test_another_threshold_for_a_metric_leaves_that_of_the_bar_in_place(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run"))).write({"baseline": fourth, "round-01": half})
    value, code = ask(ray_case, run, CATALOGUE, "evaluation.gate.metrics.ndcg@10.min_gain=-100")
    assert code == 1
    asked = check(value, "ndcg@10")
    assert (asked["passed"], asked["threshold"]) == (False, 0.78)
    assert check(value, "gain:ndcg@10")["passed"] is True


def with_reranker(run: Run, place: Callable[[int], int]) -> None:
    """A re-ranker behind round 1 that finds the relevant item of query n at place(n)."""
    run._model("reranked-pair", place, {})
    ledger = Ledger(run.store)
    hits, evaluation = (ledger.find(f"reranked-pair-{kind}") for kind in ("hits", "evaluate"))
    assert hits is not None
    assert evaluation is not None
    table = reranking_table()
    del table["split"]
    outcome = Outcome(
        tables={"hits": hits.parts("hits"), "per_query": evaluation.parts("per_query")},
        figures=evaluation.figures | {"reranking": table, "round": 1},
    )
    known = ledger.find("baseline-hits")
    assert known is not None
    run._stage("reranked", outcome, hits=[known.key])
    finish = ledger.find("finish")
    assert finish is not None
    run._stage("finish", Outcome(figures=finish.figures), again=True)


def test_the_best_retriever_with_a_re_ranker_is_judged_by_its_own_figures(ray_case: Case, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "run"))).write({"baseline": fourth, "round-01": half})
    with_reranker(run, first)
    alone, pair = ask(ray_case, run)[0], ask(ray_case, run, "--with-reranker")[0]
    assert check(alone, "gain:recall@3")["value"] == pytest.approx(50.0)
    assert check(pair, "gain:recall@3")["value"] == pytest.approx(100.0)
    assert (alone["reranker"], pair["reranker"]) == (None, "fine-tuned")
    assert "fine-tuned retriever with the fine-tuned re-ranker" in pair["notes"][0]
    assert check(pair, "added_latency_ms")["why"] == check(alone, "added_latency_ms")["why"]
    shown = ray_case.hardmine("gate", run.store.root, "--with-reranker", "--no-latency").out
    assert "round 1 with the fine-tuned re-ranker on 40 dev queries" in shown


def test_the_time_of_re_ranking_is_added_to_the_retriever_s() -> None:
    latency = Latency(30, 5.0, 6.0, 4.0, 5.0, Interval(1.0, 0.5, 1.5, 30), Interval(0.2, 0.1, 0.3, 30))
    both, timed = _with_reranker(latency, {"what": "one text"}, reranking_table())
    assert (both.model_p50, both.model_p95, both.base_p50) == (1205.0, 1506.0, 4.0)
    assert both.added_ms == Interval(1201.0, 1200.5, 1201.5, 30)
    assert both.p95_increase == Interval(pytest.approx(300.2), pytest.approx(300.1), pytest.approx(300.3), 30)
    assert timed["model_p50"] == 1205.0
    assert "100 candidates re-ranked" in timed["what"]


def test_a_run_without_a_re_ranker_and_a_round_beside_one_are_refused(ray_case: Case, run: Run, refused: Refused) -> None:
    refused(ray_case.hardmine("gate", run.store.root, "--with-reranker"), 2, ["--with-reranker", "found none", "[reranker]"])
    refused(ray_case.hardmine("gate", run.store.root, "--with-reranker", "--round", "0"), 2, ["--round", "leave one of them out"])
