"""The figures of one model on the evaluated queries, in a worker: values per query, what they are compared with, slices.

Q queries, K hits, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.labels.labels import NO_NEGATIVE, contains
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, lists_to_csr, read_part, read_parts, write_part
from eval.attainable import attainable
from eval.copies import placed
from eval.metrics import F64, Bool, Judgements, per_query_metrics, summarise
from eval.reranking.order import perfect_order
from eval.settings import EvaluationSettings
from eval.significance import compare
from eval.slices import slice_figures
from eval.verdict import verdict
from jobs.stages.evaluate.item_texts import ItemTexts
from jobs.stages.evaluate.leakage_pairs import leakage_figures
from jobs.stages.evaluate.results import DEPTH, Ranking, popularity_percentiles, result_figures
from jobs.stages.evaluate.slice_columns import Relevant, memberships
from mining.candidates import dense_hits, without_self
from mining.choice.attributes import Attribute

COMPARED = ("recall@3", "recall@10", "hit@1", "hit@5", "hit@10", "ndcg@10", "mrr@10", "bad_top1")
"""Metrics that are compared with another model's, besides the primary one."""


@dataclass(frozen=True)
class EvaluateTask:
    """What one evaluation reads, and where it writes."""

    store: Store
    folder: str
    hits: list[Part]
    codes: list[Part]
    """What items have in common, as integers."""
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    item_vectors: list[Part]
    """Of the model that made the hits."""
    query_vectors: list[Part]
    settings: EvaluationSettings
    compatible: str | None
    """Column that makes an unlabelled first hit acceptable."""
    popularity: str | None
    """Number column of the corpus; None: see `popularity_percentiles`."""
    others: Mapping[str, list[Part]]
    """"baseline", "best", "previous" -> the values per query of that model on the same queries."""
    first: bool
    """Nothing of this run was measured on these queries before: what is true of the data is measured too."""


Order = Callable[[I64, I64, F32], tuple[I64, F32]]
"""(query rows [Q], hits [Q, K], scores [Q, K]) -> both in another order."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The values per query of some hits, and what they come from."""

    ranking: Ranking
    values: dict[str, F64]
    attainable: dict[str, F64]
    """Of a perfect model."""
    in_reach: dict[str, F64]
    """Of a perfect order of these hits: what a re-ranker could get at best."""
    judged: pa.Table
    """All labels of the run."""
    learned: I64
    """The items of all relevant labels of training queries."""

    @property
    def figures(self) -> dict[str, Any]:
        """Counts and means."""
        return {
            "queries": len(self.ranking.query_rows),
            "queries_without_positive": int(np.isnan(self.values["recall@1"]).sum()),
            "metrics": _means(self.values),
            "attainable": _means(self.attainable),
            "in_reach": _means(self.in_reach),
        }

    def table(self) -> pa.Table:
        """The values, a row for each query."""
        return pa.table({"query_row": self.ranking.query_rows} | {name: pa.array(column) for name, column in self.values.items()})


def measure(task: EvaluateTask) -> tuple[dict[str, Any], Part]:
    """(figures, values per query of every metric): in a worker. Writes the latter.

    Memory: the hits, all labels, what is read of the items that these name, and 8 bytes per item where the corpus has a number
    column that says how popular each is.
    """
    store, settings, measured = task.store, task.settings, measure_queries(task)
    ranking, part = measured.ranking, write_part(store, f"{task.folder}/per_query.parquet", measured.table())
    figures: dict[str, Any] = measured.figures | {
        "equal_texts": {
            "queries_with_copies": int(ranking.had_copies.sum()),
            "first_hits_of_own_text": int(ranking.first_has_own_text.sum()),
        }
    }
    others = {parts[0].path: _values_of(store, parts) for parts in task.others.values()}
    compared = {path: compare_metrics(measured.values, other, settings) for path, other in others.items()}
    figures |= {f"against_{key}": compared[parts[0].path] for key, parts in task.others.items()}
    figures["slices"] = measure_slices(task, measured, others[task.others["baseline"][0].path] if task.others else None)
    figures |= measure_results(task, measured)
    if task.first:
        figures["leakage"] = leakage_figures(store, task.corpus, task.queries, measured.judged)
    return figures, part


def measure_queries(task: EvaluateTask, order: Order | None = None) -> Measured:
    """The values of each evaluated query. Args: order: puts the hits into another order; None: as they were found."""
    store = task.store
    labels = read_parts(store, task.labels, ["query_row", "item_row", "score", "gain", "source"])
    judged = labels.filter(pc.not_equal(labels["score"], NO_NEGATIVE))
    queries = read_parts(store, task.queries, ["item_row", "split", "text_code"])
    of_training = pc.equal(queries["split"], "train").to_numpy()[judged["query_row"].to_numpy()]
    learned = judged["item_row"].to_numpy()[of_training & (judged["score"].to_numpy() > 0)]
    ranking = load_ranking(task, judged, queries, learned, order)
    compatible = None
    if task.compatible:
        compatible = _compatible(task, task.compatible, ranking)
    query_L, item_L, gain_L, score_L = (judged[name].to_numpy() for name in ("query_row", "item_row", "gain", "score"))
    judgements = Judgements.from_triples(query_L, item_L, gain_L, score_L > 0)
    values = per_query_metrics(ranking.rows, ranking.query_rows, judgements, compatible_top1_Q=compatible)
    perfect = perfect_order(ranking.rows, ranking.query_rows, judgements)
    in_reach = per_query_metrics(perfect, ranking.query_rows, judgements, compatible_top1_Q=compatible)
    best = attainable(values, ranking.query_rows, judgements)
    return Measured(ranking, values, best, in_reach, judged, learned)


def measure_slices(task: EvaluateTask, measured: Measured, baseline: Mapping[str, F64] | None) -> dict[str, Any]:
    """ "slices" of evaluation.json. Args: baseline: values per query of the model to compare with; None: there is none."""
    settings, ranking = task.settings, measured.ranking
    columns = memberships(task.store, task.queries, task.corpus, ranking.query_rows, ranking.relevant, settings.slices)
    slices = slice_figures(
        measured.values,
        columns,
        primary=settings.primary,
        baseline=baseline,
        attainable=measured.attainable[settings.primary],
        least=settings.min_slice_queries,
        resamples=settings.resamples,
        confidence=settings.confidence,
    )
    # a column that nobody named and whose values are all too rare says nothing
    return {name: found for name, found in slices.items() if found["slices"] or settings.slices is not None}


def measure_results(task: EvaluateTask, measured: Measured) -> dict[str, Any]:
    """ "results" and "scores" of evaluation.json."""
    shown = measured.ranking.rows[:, :DEPTH]
    rows = np.concatenate([shown[shown >= 0], measured.ranking.relevant.item])
    popular = popularity_percentiles(task.store, task.corpus, rows, measured.learned, task.popularity)
    return result_figures(task.store, task.item_vectors, task.query_vectors, measured.ranking, popular)


def _means(per_query: Mapping[str, F64]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in summarise(per_query).items()}


def load_ranking(task: EvaluateTask, judged: pa.Table, queries: pa.Table, learned: I64, order: Order | None = None) -> Ranking:
    """The hits and relevant labels of the evaluated queries.

    Args:
        judged: all labels of the run, sorted by query and item.
        queries: item_row and text_code of every query of the run.
        learned: the items of all relevant labels of training queries.
        order: puts the hits into another order, before copies of relevant items leave them; None: as they were found.
    """
    hits = read_parts(task.store, task.hits, ["query_row", "item_rows", "scores", "label_rows", "label_scores"])
    query_rows = hits["query_row"].to_numpy()
    own, query_codes = (queries[name].to_numpy()[query_rows] for name in ("item_row", "text_code"))
    query, label = placed(query_rows, judged["query_row"].to_numpy())
    item = judged["item_row"].to_numpy()[label].astype(np.int64)
    wanted = judged["score"].to_numpy()[label] > 0
    found = without_self(*dense_hits(hits), own)
    if order is not None:
        found = order(query_rows, *found)
    texts = ItemTexts.read(task.store, task.codes, [found[0], item, own, learned.astype(np.int64)])
    relevant = Relevant(
        query[wanted],
        item[wanted],
        judged["source"].take(pa.array(label[wanted])),
        np.isin(texts.of(item[wanted]), texts.of(learned)),  # by text: under another id it is the same memory
        _label_scores(hits, query[wanted], item[wanted]),
    )
    rows_QK, scores_QK, had_copies = texts.without_copies(*found, query, item, wanted)
    first_Q = rows_QK[:, 0]
    same = (texts.of(first_Q) == query_codes) | ((own >= 0) & (texts.of(first_Q) == texts.of(own)))
    own_text = (first_Q >= 0) & same & ~contains(relevant.query, relevant.item, rows_QK[:, :1])[:, 0]
    return Ranking(query_rows, own, rows_QK, scores_QK, relevant, had_copies, own_text)


def _label_scores(hits: pa.Table, query: I64, item: I64) -> F32:
    """[L] the cosine of each label, from the hits table's lists of judged items; NaN: it is not there."""
    offsets, rows = lists_to_csr(hits["label_rows"])
    scores = lists_to_csr(hits["label_scores"])[1].astype(np.float32)
    owner = np.repeat(np.arange(hits.num_rows), np.diff(offsets))
    width = int(max(rows.max(initial=0), item.max(initial=0))) + 1
    keys, wanted = owner * width + rows, query * width + item
    order = np.argsort(keys, kind="stable")
    position = np.minimum(np.searchsorted(keys[order], wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(wanted), np.nan, np.float32)
    return np.where(keys[order][position] == wanted, scores[order][position], np.float32(np.nan))


def _values_of(store: Store, parts: Sequence[Part]) -> dict[str, F64]:
    table = read_part(store, parts[0])
    return {name: table[name].to_numpy() for name in table.column_names if name != "query_row"}


def compare_metrics(per_query: Mapping[str, F64], other: Mapping[str, F64], settings: EvaluationSettings) -> dict[str, Any]:
    """One "against_…" of evaluation.json: the change of each metric, and the verdict of the primary one.

    The primary metric was named beforehand and decides alone: its adjusted p is its p. The others are one family.
    A metric that looks at more hits than there are is left out.
    """
    names = [name for name in dict.fromkeys([settings.primary, *COMPARED]) if name in per_query]
    compared = compare(
        {name: per_query[name] for name in names},
        other,
        alone=[settings.primary],
        resamples=settings.resamples,
        confidence=settings.confidence,
    )
    result: dict[str, Any] = {name: comparison.as_json() for name, comparison in compared.items()}
    result["verdict"] = verdict(compared[settings.primary])
    return result


def _compatible(task: EvaluateTask, column: str, ranking: Ranking) -> Bool:
    """[Q]: whether the first hit shares a value of the column with a relevant item of its query."""
    first_Q1, relevant = ranking.rows[:, :1], ranking.relevant
    rows = np.unique(np.concatenate([first_Q1[first_Q1 >= 0], relevant.item]))
    values = read_rows(task.store, task.corpus, rows, [column])[column]
    place_Q1 = np.where(first_Q1 >= 0, np.searchsorted(rows, first_Q1), -1)
    wanted = relevant.query, np.searchsorted(rows, relevant.item)
    shares: Bool = Attribute.from_column(values).overlap(wanted, place_Q1)[:, 0]
    return shares
