"""The table: each retriever with each re-ranker on the evaluated queries, and what to ship.

The figures of the best pair have the form of an evaluation, so that whatever reads one (the gate) reads them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Outcome
from cluster.errors import ArtifactError
from cluster.session.resources import PoolSize, embed_pool
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, csr_to_lists, offsets_of, read_parts, write_part
from eval.metrics import F64
from eval.reranking.order import reorder, tied_at_the_top
from eval.reranking.shipping import Cost, best_pair, what_to_ship
from eval.reranking.table import FINE_TUNED, METRICS, NONE, OFF_THE_SHELF, Cell, compare_cells
from eval.settings import EvaluationSettings
from eval.significance import Comparison
from eval.verdict import too_little
from jobs.record.stages import BASELINE, Kind, Reranker, Stage
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.item_texts import ItemTexts
from jobs.stages.evaluate.measure import (
    EvaluateTask,
    Measured,
    Order,
    compare_metrics,
    measure_queries,
    measure_results,
    measure_slices,
)
from jobs.stages.evaluate.reranker.retrievers import kept_model, retrievers
from jobs.stages.evaluate.reranker.scores import reranker_model
from jobs.stages.evaluate.reranker.speed import DEPTHS, QUERIES, Asked, time_reading
from jobs.stages.stage_5_evaluate import evaluation_task
from mining.candidates import dense_hits
from mining.teacher.cut import Pairs


@dataclass(frozen=True)
class TableTask:
    """What the table is made from."""

    store: Store
    folder: str
    retrievers: Mapping[str, EvaluateTask]
    """OFF_THE_SHELF, and FINE_TUNED where a trained model is kept."""
    scores: Mapping[str, list[Part]]
    """Re-ranker -> its scores of all pairs."""
    speed: Mapping[str, Any]
    """Of `time_reading`, with "where"."""

    @property
    def reference(self) -> Cell:
        """The kept retriever alone."""
        return Cell(FINE_TUNED if FINE_TUNED in self.retrievers else OFF_THE_SHELF)

    @property
    def settings(self) -> EvaluationSettings:
        """Of every evaluation."""
        return self.retrievers[OFF_THE_SHELF].settings


def compare_rerankers(context: Context, stage: Stage) -> Commit:
    """Measure every pair, and say what to ship."""
    stages, tasks, inputs = retrievers(context), dict[str, EvaluateTask](), dict[str, Any]()
    for model, measured in stages.items():
        name = OFF_THE_SHELF if model == BASELINE else FINE_TUNED
        tasks[name], inputs[name] = evaluation_task(context, measured)
    scored = {reranker: context.need(Stage(Kind.RERANK, reranker)) for reranker in Reranker}
    scores = {str(name): commit.parts("scores") for name, commit in scored.items() if "scores" in commit.tables}
    pool, kept = embed_pool(context.config.cluster, context.size), kept_model(context)
    split = stages[BASELINE].split

    def work(folder: str) -> Outcome:
        speed = _time(context, tasks, pool)
        part, hits, figures = in_worker(make_table, context, TableTask(context.store, folder, tasks, scores, speed))
        of_kept = figures["reranking"]["pair"]["retriever"] == FINE_TUNED
        figures = {"round": (kept if of_kept else BASELINE).round, "split": split} | figures
        context.store.write_json(f"{folder}/evaluation.json", figures)
        return Outcome(tables={"per_query": [part], "hits": [hits]}, figures=figures)

    inputs |= {"scores": [commit.key for commit in scored.values()], "hits": [inputs[name].pop("hits") for name in tasks]}
    return context.commit(stage, inputs=inputs, work=work)


def _time(context: Context, tasks: Mapping[str, EvaluateTask], pool: PoolSize) -> dict[str, Any]:
    """The speed of the fine-tuned re-ranker; the off-the-shelf one is of the same make."""
    import ray

    task = list(tasks.values())[-1]
    hits = read_parts(context.store, task.hits[:1], ["query_row", "item_rows", "scores"]).slice(0, QUERIES)
    asked = Asked(hits["query_row"].to_numpy(), dense_hits(hits)[0][:, : task.settings.num_hits])
    model = reranker_model(context, Reranker.FINE_TUNED)
    assert model is not None
    remote = ray.remote(time_reading).options(num_cpus=pool.cpus, num_gpus=pool.gpus, max_retries=context.config.cluster.retries)
    make = model.make_reader(context, pool)
    speed: dict[str, Any] = ray.get(remote.remote(make, context.store, task.queries, task.corpus, asked, pool.cpus))
    return speed | {"where": "a GPU" if pool.gpus else "1 CPU thread" if pool.cpus == 1 else f"{pool.cpus} CPU threads"}


def make_table(task: TableTask) -> tuple[Part, Part, dict[str, Any]]:
    """(values per query of the best pair, its hits, the figures): in a worker."""
    settings, primary = task.settings, task.settings.primary
    measured: dict[Cell, Measured] = {}
    for retriever, evaluation in task.retrievers.items():
        measured[Cell(retriever)] = measure_queries(evaluation)
        for reranker in task.scores:
            measured[Cell(retriever, reranker)] = _measure(task, Cell(retriever, reranker))
    reference = task.reference
    values = {cell: each.values for cell, each in measured.items()}
    compared = compare_cells(values, reference, primary=primary, resamples=settings.resamples, confidence=settings.confidence)
    means = {cell: _mean(columns[primary]) for cell, columns in values.items()}
    changes = {cell: changes[primary] for cell, changes in compared.items()}
    pair = best_pair(means, changes)
    depths = {depth: _mean(_measure(task, pair, depth).values[primary]) for depth in DEPTHS if depth < settings.num_hits}
    cost = Cost(task.speed["p50_ms"], task.speed["p95_ms"], task.speed["where"], depths | {settings.num_hits: means[pair]})
    queries = int((~np.isnan(values[reference][primary])).sum())
    shipping = what_to_ship(means, changes, reference, primary=primary, cost=cost, doubt=too_little(queries))
    table = {
        "primary": primary,
        "candidates": settings.num_hits,
        "queries": queries,
        "reference": _name(reference),
        "pair": _name(pair),
        "ship": _name(shipping.cell),
        "sentence": shipping.sentence,
        "cells": [_cell_json(task, cell, measured[cell], compared.get(cell, {})) for cell in measured],
        "depths": {str(depth): figure for depth, figure in cost.figures.items()},
        "speed": {name: _text_keys(value) for name, value in task.speed.items()},
        "slices": measure_slices(task.retrievers[pair.retriever], measured[pair], values[reference]),
    }
    return *_write(task, measured[pair]), _evaluation(task, pair, measured[pair], values[Cell(OFF_THE_SHELF)]) | {
        "reranking": table
    }


def _measure(task: TableTask, cell: Cell, depth: int | None = None) -> Measured:
    return measure_queries(task.retrievers[cell.retriever], in_order_of(task.store, task.scores[cell.reranker], depth))


def in_order_of(store: Store, scores: Sequence[Part], depth: int | None = None) -> Order:
    """Puts hits into a re-ranker's order. Args: scores: of all pairs. depth: hits that it re-ranks; None: all."""
    pairs = Pairs.from_table(read_parts(store, scores))
    known = np.append(pairs.scores, np.float32(np.nan))  # the place -1 is the last

    def order(query_rows: I64, rows_QK: I64, _: F32) -> tuple[I64, F32]:
        scores_QK = known[pairs.find(np.broadcast_to(query_rows[:, None], rows_QK.shape), rows_QK)]
        try:
            return reorder(rows_QK, scores_QK, depth=depth)
        except ValueError as error:
            raise ArtifactError(
                f"{scores[0].path.rsplit('/', 1)[0]}: {error}; delete the commit of that stage, and run again"
            ) from error

    return order


def _cell_json(task: TableTask, cell: Cell, measured: Measured, compared: Mapping[str, Comparison]) -> dict[str, Any]:
    names = dict.fromkeys((task.settings.primary, *METRICS))
    return _name(cell) | {
        "metrics": {name: _mean(measured.values[name]) for name in names if name in measured.values},
        "against_reference": {name: comparison.as_json() for name, comparison in compared.items()},
        "tied_at_the_top": _tied(task, cell, measured) if cell.reranker != NONE else None,
    }


def _tied(task: TableTask, cell: Cell, measured: Measured) -> int:
    """Queries whose first result shares its score with another text: there the retriever's order decides."""
    ranking = measured.ranking
    texts = ItemTexts.read(task.store, task.retrievers[cell.retriever].codes, [ranking.rows])
    return int(tied_at_the_top(ranking.scores, texts.of(ranking.rows)).sum())


def _evaluation(task: TableTask, pair: Cell, measured: Measured, baseline: Mapping[str, F64]) -> dict[str, Any]:
    """The pair's figures as an evaluation has them, against the off-the-shelf retriever alone."""
    evaluation = task.retrievers[pair.retriever]
    scores = np.zeros_like(measured.ranking.scores)  # a re-ranker's are no cosines, which alone are counted there
    shown = replace(measured, ranking=replace(measured.ranking, scores=scores))
    return measured.figures | {
        "against_baseline": compare_metrics(measured.values, baseline, task.settings),
        "slices": measure_slices(evaluation, measured, baseline),
        "results": measure_results(evaluation, shown)["results"],
    }


def _write(task: TableTask, measured: Measured) -> tuple[Part, Part]:
    """The pair's values per query, and its hits in their new order."""
    ranking = measured.ranking
    real = ranking.rows >= 0
    offsets = offsets_of(real.sum(axis=1))
    hits = pa.table(
        {
            "query_row": ranking.query_rows,
            "item_rows": csr_to_lists(offsets, ranking.rows[real]),
            "scores": csr_to_lists(offsets, ranking.scores[real]),
        }
    )
    return (
        write_part(task.store, f"{task.folder}/per_query.parquet", measured.table()),
        write_part(task.store, f"{task.folder}/hits.parquet", hits),
    )


def _mean(values: F64) -> float:
    """Over the queries that have a relevant item; the run's first stage refuses data that have none."""
    return float(values[~np.isnan(values)].mean())


def _name(cell: Cell) -> dict[str, Any]:
    return {"retriever": cell.retriever, "reranker": cell.reranker}


def _text_keys(value: Any) -> Any:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else value
