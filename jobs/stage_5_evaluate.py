"""Stage 5: figures of one model on the evaluated queries, and how sure it is that they are better."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Outcome
from cluster.storage import Store
from cluster.tables import I64, Part, read_part, read_parts, write_part
from eval.metrics import Judgements, per_query_metrics, summarise
from eval.settings import EvaluationSettings
from eval.significance import paired_bootstrap
from eval.verdict import verdict
from jobs.context import Context
from jobs.stage_0_ingest import Ingested
from mining.candidates import dense_hits
from mining.choice.attributes import Attribute


def evaluate(context: Context, ingested: Ingested, hits: Commit, *, name: str, folder: str, split: str, number: int,
             baseline: Commit | None, best: Commit | None) -> Commit:
    """Figures of the model that made `hits`, against the off-the-shelf model and the best round so far.

    Args:
        split: the queries that `hits` are of. number: the model's round.
    """
    config = context.config
    settings = config.evaluation
    column = settings.bad_top1_column or (config.mining.rules[0].column if config.mining.rules else None)

    def work(place: str) -> Outcome:
        import ray

        remote = ray.remote(_evaluate).options(num_cpus=1, max_retries=config.cluster.retries)
        figures, part = ray.get(remote.remote(
            context.store, place, hits.parts("hits"), ingested, column, settings,
            baseline.parts("per_query") if baseline else [], best.parts("per_query") if best else [],
        ))
        figures |= {"round": number, "split": split}
        for path in (f"{place}/evaluation.json", f"{folder}/evaluation.json"):
            context.store.write_json(path, figures)
        return Outcome(tables={"per_query": [part]}, figures=figures)

    inputs = {"hits": hits.key, "tables": ingested.tables.key, "settings": settings.model_dump(exclude={"split"}),
              "column": column, "round": number, "baseline": baseline.key if baseline else None,
              "best": best.key if best else None}
    return context.stage("evaluate", name, folder=f"{folder}/evaluate", inputs=inputs, work=work)


def _evaluate(store: Store, folder: str, hits: list[Part], ingested: Ingested, column: str | None,
              settings: EvaluationSettings, baseline: list[Part], best: list[Part]) -> tuple[dict[str, Any], Part]:
    found = read_parts(store, hits, ["query_row", "item_rows", "scores"])
    judged = read_parts(store, ingested.labels, ["query_row", "item_row", "score"])
    judgements = Judgements.from_triples(*(judged[name].to_numpy() for name in ("query_row", "item_row", "score")))
    query_rows = found["query_row"].to_numpy()
    own = read_parts(store, ingested.queries, ["item_row"])["item_row"].to_numpy()[query_rows]
    rows_QK = without_self(dense_hits(found)[0], own)
    compatible = None
    if column:
        values = read_parts(store, ingested.corpus, [column])[column]
        compatible = _compatible(values, judged, query_rows, rows_QK[:, 0])
    per_query = per_query_metrics(rows_QK, query_rows, judgements, compatible_top1_Q=compatible)
    table = pa.table({"query_row": query_rows} | {name: pa.array(values) for name, values in per_query.items()})
    part = write_part(store, f"{folder}/per_query.parquet", table)
    metrics = {name: None if math.isnan(value) else value for name, value in summarise(per_query).items()}
    figures: dict[str, Any] = {"queries": len(query_rows), "metrics": metrics,
                               "queries_without_positive": int(np.isnan(per_query["recall@1"]).sum())}
    for name, other in (("baseline", baseline), ("best", best)):
        if other:
            figures[f"against_{name}"] = _compare(per_query, read_part(store, other[0].path), settings)
    return figures, part


def without_self(rows_QK: I64, own_Q: I64) -> I64:
    """[Q, K-1]: the hits without the item that the query itself is (-1: it is none), else without the last one."""
    keep = rows_QK != np.where(own_Q < 0, -2, own_Q)[:, None]
    keep[keep.all(axis=1), -1] = False
    left: I64 = rows_QK[keep].reshape(len(rows_QK), -1)
    return left


def _compare(per_query: dict[str, Any], other: pa.Table, settings: EvaluationSettings) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in dict.fromkeys([settings.primary, "recall@3", "ndcg@10", "bad_top1"]):
        if name not in per_query:  # fewer hits than the figure looks at
            continue
        interval = paired_bootstrap(per_query[name], other[name].to_numpy(), resamples=settings.resamples,
                                    confidence=settings.confidence)
        result[name] = asdict(interval)
        if name == settings.primary:
            result["verdict"] = verdict(interval)
    return result


def _compatible(column: pa.ChunkedArray, judged: pa.Table, query_rows: Any, first_Q: Any) -> Any:
    """[Q]: whether the first hit shares a value of the column with a relevant item of its query."""
    relevant = judged.filter(pa.array(judged["score"].to_numpy() > 0))
    owner_row = relevant["query_row"].to_numpy()
    place = np.searchsorted(query_rows, owner_row)
    known = (place < len(query_rows)) & (query_rows[np.minimum(place, len(query_rows) - 1)] == owner_row)
    pairs = (place[known].astype(np.int64), relevant["item_row"].to_numpy()[known].astype(np.int64))
    return Attribute.from_column(column).overlap(pairs, first_Q[:, None])[:, 0]
