"""A finished run made up by a random generator, in the format of a real one: for tests and benchmarks of what reads runs.

    store = write_run(folder, queries=100_000)

Nothing is embedded, mined or trained; the rankings, and the figures computed from them, get better from model to model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Ledger, Outcome
from cluster.storage.digests import described
from cluster.storage.records import write_record
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part
from eval.metrics import Judgements, per_query_metrics, summarise
from eval.results.score_histogram import score_figures
from jobs.record.record import RunRecord
from jobs.record.summary import summary_json
from tests.support.reranking import reranking_table

Json = dict[str, Any]
BLOCK = 4096
METRICS = ("recall@3", "recall@10", "hit@1", "ndcg@10", "bad_top1")
GENRES = ("crime", "poetry", "travel", "law")
SHARES = ("hard", "random", "in_batch")


@dataclass(frozen=True)
class Size:
    """How large a run to make up."""

    queries: int = 60
    items: int = 200
    hits: int = 21
    rounds: int = 2
    steps: int = 40
    """Of one training."""
    relevant: int = 2
    title: str = "Item"
    """How titles begin."""


def write_run(
    folder: str | Path,
    size: Size | None = None,
    *,
    random_arm: bool = True,
    merged: bool = False,
    reranker: bool = False,
    finish: bool = True,
) -> Store:
    """Write a run below `folder` and return its store.

    Args:
        random_arm: with an arm of random negatives. merged: with a merged model, which is the best. reranker: with a re-ranker,
            whose figures are none of this run's hits.
        finish: with the end of the run.
    """
    size = size or Size()
    store = Store(str(folder))
    writer = _Writer(store, size, np.random.default_rng(7))
    write_record(
        store,
        "identity.json",
        {"data": {"corpus:all": {"corpus.parquet": "c0ffee"}}, "encoder": {"kind": "static", "model": None}},
    )
    writer.ingest()
    baseline = writer.measure("baseline", -1, 0.12, None, None)
    models = [writer.train("round-00", 0, 0.45, baseline, None, "random")]
    for number in range(1, size.rounds + 1):
        writer.mine(number)
        models.append(writer.train(f"round-{number:02d}", number, 0.45 + 0.1 * number, baseline, models[-1], "mined"))
    if merged:
        figures = {"prefix": "rounds/merged-50/merge/model", "round": size.rounds, "share": 50}
        writer.commit("merged-50-merge", "rounds/merged-50/merge", figures=figures)
        writer.measure("merged-50", 150, 0.95, baseline, models[-1])
    if random_arm:
        writer.train(f"round-{size.rounds:02d}-random", size.rounds, 0.5, baseline, models[-1], "random")
    if reranker:
        hits = [writer.ledger.find(f"{name}-hits") for name in ("baseline", f"round-{size.rounds:02d}")]
        table = {name: value for name, value in reranking_table().items() if name != "split"}
        figures = {"round": size.rounds, "split": "dev", "reranking": table}
        writer.commit("reranked", "reranker/table", inputs={"hits": [hit.key for hit in hits if hit]}, figures=figures)
    if finish:
        writer.finish()
    return store


@dataclass
class _Writer:
    store: Store
    size: Size
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.store)
        self.relevant = self.rng.permuted(np.tile(np.arange(self.size.items), (min(self.size.queries, 512), 1)), axis=1)
        self.relevant = np.resize(self.relevant[:, : self.size.relevant], (self.size.queries, self.size.relevant))
        self.values: dict[str, dict[str, Any]] = {}

    def commit(
        self,
        name: str,
        folder: str,
        *,
        tables: Mapping[str, list[pa.Table]] | None = None,
        figures: Json | None = None,
        inputs: Json | None = None,
        files: Mapping[str, bytes] | None = None,
        seconds: float = 0.0,
    ) -> Commit:
        """A stage as the driver commits it."""

        def work(place: str) -> Outcome:
            parts: dict[str, list[Part]] = {}
            for table, found in (tables or {}).items():
                first = 0
                for number, part in enumerate(found):
                    parts.setdefault(table, []).append(
                        write_part(self.store, f"{place}/{table}/{part_name(number)}", part, first_row=first)
                    )
                    first += part.num_rows
            left = {}
            for path, data in (files or {}).items():
                self.store.write_bytes(f"{place}/{path}", data)
                left[f"{place}/{path}"] = described(data)
            return Outcome(tables=parts, files=left, figures=figures or {}, work_seconds=seconds)

        return self.ledger.stage(name, inputs=inputs or {}, work=work, folder=folder)

    def ingest(self) -> None:
        size = self.size
        corpus = pa.table(
            {
                "row": np.arange(size.items),
                "id": [f"i{n}" for n in range(size.items)],
                "text": [f"{size.title} {n} is a text of some length" for n in range(size.items)],
                "title": [f"{size.title} {n}" for n in range(size.items)],
            }
        )
        codes = pa.table({"text_code": np.arange(size.items)})
        queries = pa.table(
            {
                "row": np.arange(size.queries),
                "id": [f"q{n}" for n in range(size.queries)],
                "text": [f"query {n} for {size.title}" for n in range(size.queries)],
                "split": ["dev"] * size.queries,
                "item_row": np.full(size.queries, -1),
            }
        )
        labels = pa.table(
            {
                "query_row": np.repeat(np.arange(size.queries), size.relevant),
                "item_row": self.relevant.reshape(-1),
                "score": np.ones(size.queries * size.relevant, np.int64),
            }
        )
        self.commit(
            "ingest",
            "tables",
            tables={
                name: _blocks(table)
                for name, table in (("corpus", corpus), ("codes", codes), ("queries", queries), ("labels", labels))
            },
            figures={"items": size.items, "queries": size.queries, "labels": len(labels), "splits": {"dev": size.queries}},
            inputs={"data": {"corpus:all": {"corpus.parquet": "c0ffee"}}},
        )

    def measure(self, name: str, number: int, good: float, baseline: Commit | None, best: Commit | None) -> Commit:
        """Hits whose relevant items come among the first with probability `good`, and their figures."""
        size, rng = self.size, self.rng
        start_Q1, step = rng.integers(0, size.items, (size.queries, 1)), next(n for n in (7, 11, 13, 17, 1) if size.items % n)
        rows_QK = (start_Q1 + step * np.arange(size.hits)) % size.items
        found = rng.random((size.queries, size.relevant)) < good
        place = rng.geometric(0.3, (size.queries, size.relevant)).clip(1, size.hits - 1) - 1
        for column in range(size.relevant):
            chosen = np.flatnonzero(found[:, column])
            wanted = self.relevant[chosen, column]
            there = rows_QK[chosen, place[chosen, column]]
            rows_QK[chosen] = np.where(rows_QK[chosen] == wanted[:, None], there[:, None], rows_QK[chosen])  # no item twice
            rows_QK[chosen, place[chosen, column]] = wanted
        scores_QK = -np.sort(-rng.beta(2, 4, rows_QK.shape).astype(np.float32), axis=1)
        query_rows = np.arange(size.queries)
        hits = self.commit(
            f"{name}-hits",
            f"{name}/hits",
            inputs={"vectors": name},
            seconds=0.3,
            tables={
                "hits": _blocks(pa.table({"query_row": query_rows, "item_rows": _lists(rows_QK), "scores": _lists(scores_QK)}))
            },
        )
        labels = (np.repeat(query_rows, size.relevant), self.relevant.reshape(-1), np.ones(self.relevant.size, np.int64))
        per_query = per_query_metrics(rows_QK[:, :-1], query_rows, Judgements.from_triples(*labels))
        self.values[name] = per_query
        figures: Json = {
            "queries": size.queries,
            "queries_without_positive": 0,
            "round": number,
            "split": "dev",
            "metrics": {key: None if math.isnan(value) else value for key, value in summarise(per_query).items()},
        }
        for against, other in (("baseline", baseline), ("best", best or baseline), ("previous", best or baseline)):
            if other is not None:
                figures[f"against_{against}"] = self.compared(per_query, self.values[other.name.removesuffix("-evaluate")])
        figures |= self.more(per_query, good, baseline is not None)
        table = pa.table({"query_row": query_rows} | {key: pa.array(value) for key, value in per_query.items()})
        return self.commit(
            f"{name}-evaluate",
            f"{name}/evaluate",
            tables={"per_query": [table]},
            figures=figures,
            inputs={
                "hits": hits.key,
                "baseline": baseline.key if baseline else None,
                "settings": {"confidence": 0.95, "primary": "recall@3"},
            },
        )

    def compared(self, values: Mapping[str, Any], other: Mapping[str, Any]) -> Json:
        """As a comparison looks; ends by the normal approximation, which is fast at any size."""
        result: Json = {}
        for name in METRICS:
            change = values[name] - other[name]
            mean, half = float(change.mean()), float(1.96 * change.std() / math.sqrt(len(change)))
            certain = abs(mean) > half
            result[name] = {"mean": mean, "low": mean - half, "high": mean + half, "queries": len(change)}
            p = 0.0004 if certain else 0.4
            result[name] |= {"p": p, "p_adjusted": min(1.0, p * 2), "significant": certain}
        better = result["recall@3"]
        return result | {"verdict": "improved" if better["low"] > 0 else "worse" if better["high"] < 0 else "flat"}

    def more(self, per_query: Mapping[str, Any], good: float, trained: bool) -> Json:
        """What is written beside the metrics."""
        rng, kinds = self.rng, np.arange(self.size.queries) % len(GENRES)
        slices = []
        for number, genre in enumerate(GENRES):
            chosen = {name: values[kinds == number] for name, values in per_query.items()}
            row = {
                "value": genre,
                "queries": int((kinds == number).sum()),
                "metrics": {name: None if math.isnan(value) else value for name, value in summarise(chosen).items()},
            }
            if trained:
                other = {name: values[kinds == number] for name, values in self.values["baseline"].items()}
                row["against_baseline"] = self.compared(chosen, other)["recall@3"]
            slices.append(row)
        spread = {
            "positive": rng.normal(0.3 + 0.4 * good, 0.12, 4000),
            "hard": rng.normal(0.35, 0.1, 4000),
            "random": rng.normal(0.0, 0.1, 4000),
        }
        result: Json = {
            "slices": {"genres": {"slices": slices, "left_out": 0}},
            "scores": score_figures(spread),
            "results": {
                "depth": 10,
                "coverage": 0.4 + good / 2,
                "gini": 0.6 - good / 4,
                "top_share": 0.1,
                "similarity": 0.3,
                "popularity": 0.55,
                "relevant_popularity": 0.5,
            },
        }
        return result if trained else result | {"leakage": {"genres": {"positives": 0.6, "random": 0.2, "pairs": 100}}}

    def train(self, name: str, number: int, good: float, baseline: Commit, best: Commit | None, negatives: str) -> Commit:
        """A training with its telemetry, then its measurement."""
        lines = [self.line(step, number, negatives) for step in range(1, self.size.steps + 1)]
        half = {"event": "validation", "step": self.size.steps // 2, "recall": 0.5 + 0.05 * number}
        lines.insert(self.size.steps // 2, half)
        lines.append({"event": "validation", "step": self.size.steps, "recall": 0.55 + 0.05 * number})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self.commit(
            f"{name}-train",
            f"{name}/train",
            files={"telemetry.jsonl": text.encode()},
            seconds=3.0,
            inputs={"name": name},
            figures={
                "steps": self.size.steps,
                "epochs": 2,
                "train_loss": lines[-2]["loss"],
                "seconds": 3.0,
                "negatives": negatives,
                "validation": [half["recall"], lines[-1]["recall"]],
            },
        )
        return self.measure(name, number, good, baseline, best)

    def line(self, step: int, number: int, negatives: str) -> Json:
        """One line of telemetry: loss falls, and faster what random negatives teach."""
        gone = math.exp(-step / self.size.steps * (3 if negatives == "random" else 1))
        hard = 0.6 if negatives == "mined" else 0.0
        shares = dict(zip((f"gradient_share_{kind}" for kind in SHARES), (hard, 0.1, 0.9 - hard), strict=True))
        return {
            "round": number,
            "epoch": 0,
            "step": step,
            "loss": 0.2 + 2 * gone,
            "positive_probability": 1 - 0.7 * gone,
            "hardest_weight": 0.3,
            "effective_negatives": 4 + 20 * gone,
            "dead_negatives": 0.9 - 0.4 * gone,
            "above_positive": 0.01 * gone,
            "negatives_per_query": 60.0,
            "temperature": 0.05,
            "gradient_norm": gone,
        } | shares

    def mine(self, number: int) -> None:
        """A mining with a confusion table and one sample."""
        item = {"item_id": "i1", "text": f"{self.size.title} 1", "score": 0.71}
        sample = {
            "query_id": "q0",
            "query": f"query 0 for {self.size.title}",
            "relevant": [item],
            "relevant_total": 1,
            "negatives": [item | {"item_id": "i2", "score": 0.6, "position": 0, "source": "model", "suspected": False}],
        }
        figures: Json = {
            "queries": self.size.queries,
            "candidates": 10_000,
            "survivors": 8_000,
            "chosen": 1_900,
            "judged": 3,
            "new": 1_000,
            "queries_short": 4,
            "queries_empty": 0,
            "suspected_false_negatives": 120,
            "above_positive": 2,
            "hit_rate": 0.8,
            "dropped": {"positive": 500, "duplicate": 0, "relative_margin": 1_500},
            "sources": {"model": 1_900},
            "cuts": None,
            "hardness": {"p5": -0.4, "p25": -0.3, "p50": -0.2, "p75": -0.1, "p95": 0.0},
            "warnings": [],
            "reuse": {
                "items": 200,
                "used": 150,
                "top_share": 0.05,
                "gini": 0.3,
                "histogram": {"0": 50},
                "most_used": [{"item_id": "i3", "title": f"{self.size.title} 3", "uses": 9}],
            },
            "confusion": {"column": "genres", "values": list(GENRES), "counts": (10 + np.eye(4, dtype=int) * 30).tolist()},
        }
        self.commit(f"round-{number:02d}-mine", f"rounds/{number:02d}/mine", figures=figures, inputs={"round": number})
        self.commit(
            f"round-{number:02d}-report",
            f"rounds/{number:02d}/report",
            figures=figures,
            inputs={"round": number},
            files={"mining.md": b"# Negatives\n", "mining.json": json.dumps(figures | {"samples": [sample]}).encode()},
        )

    def finish(self) -> None:
        """The last commit and run.json."""
        record = RunRecord.read(self.store)
        summary = summary_json(record, name=Path(self.store.root).name, output="", primary="recall@3", patience=2, model="model")
        config = {
            "name": summary["name"],
            "training": {"temperature": 0.07, "batch_size": 64},
            "evaluation": {"primary": "recall@3"},
            "data": {"corpus": "corpus.parquet"},
        }
        usage = {"reads": "texts", "dimension": 8}
        figures = {"prefix": "model", "summary": summary, "usage": usage}
        self.commit("finish", "model", figures=figures, inputs={"config": config})
        write_record(
            self.store,
            "run.json",
            {"config": config, "data": {"corpus:all": {"corpus.parquet": "c0ffee"}}, "versions": {"numpy": np.__version__}},
        )


def _blocks(table: pa.Table) -> list[pa.Table]:
    return [table.slice(start, BLOCK) for start in range(0, table.num_rows, BLOCK)]


def _lists(values_QK: Any) -> pa.ListArray:
    width = values_QK.shape[1]
    return pa.ListArray.from_arrays(
        pa.array(np.arange(0, values_QK.size + 1, width), pa.int32()), pa.array(values_QK.reshape(-1))
    )
