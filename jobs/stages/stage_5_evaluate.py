"""Stage 5: figures of one model on the evaluated queries, and how sure it is that they are better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Outcome
from cluster.labels.labels import NO_NEGATIVE, contains
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, lists_to_csr, read_part, read_parts, write_part
from eval.attainable import attainable
from eval.copies import placed
from eval.metrics import F64, Bool, Judgements, per_query_metrics, summarise
from eval.settings import EvaluationSettings
from eval.significance import compare
from eval.slices import slice_figures
from eval.verdict import verdict
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Scope, Stage
from jobs.stages.chosen import best_model, earlier_models, evaluated_model, parent_model
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.item_texts import ItemTexts
from jobs.stages.evaluate.leakage_pairs import leakage_figures
from jobs.stages.evaluate.results import DEPTH, Ranking, popularity_percentiles, result_figures
from jobs.stages.evaluate.slice_columns import Relevant, memberships
from jobs.stages.ingested import read_ingested
from mining.candidates import dense_hits, without_self
from mining.choice.attributes import Attribute

MEASURED_BY = {"num_hits", "primary", "confidence", "resamples", "bad_top1_column", "slices", "min_slice_queries"}
"""Settings that the figures depend on. Nothing is trained, embedded or searched again when one changes."""
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


def evaluate(context: Context, stage: Stage) -> Commit:
    """Figures of the stage's model on its evaluated queries, against other models of the run."""
    config, scope = context.config, stage.scope
    settings, data = config.evaluation, read_ingested(context, scope)
    hits, vectors = context.need(stage.sibling(Kind.HITS)), context.need(stage.sibling(Kind.EMBED))
    others = {key: context.need(stage_of_other) for key, stage_of_other in _others(context, stage).items()}
    column = settings.bad_top1_column or (config.mining.rules[0].column if config.mining.rules else None)
    popularity = config.mining.popularity
    if scope is Scope.GENERAL:  # columns of the run's corpus say nothing about another one
        column, popularity, settings = None, None, settings.model_copy(update={"bad_top1_column": None, "slices": None})
    model = evaluated_model(context, stage)

    def work(folder: str) -> Outcome:
        task = EvaluateTask(
            context.store,
            folder,
            hits.parts("hits"),
            data.codes,
            data.corpus,
            data.queries,
            data.labels,
            vectors.parts("corpus"),
            vectors.parts("queries"),
            settings,
            column,
            popularity,
            {key: commit.parts("per_query") for key, commit in others.items()},
            first="baseline" not in others,
        )
        figures, part = in_worker(measure, context, task)
        figures = {"round": model.round, "split": stage.split} | figures
        for path in (f"{folder}/evaluation.json", f"{stage.root}/evaluation.json"):
            context.store.write_json(path, figures)
        return Outcome(tables={"per_query": [part]}, figures=figures)

    inputs = {
        "hits": hits.key,
        "tables": data.tables.key,
        "settings": settings.model_dump(include=MEASURED_BY),
        "column": column,
        "popularity": popularity,
        "round": model.round,
        **{key: others[key].key if key in others else None for key in ("baseline", "best", "previous")},
    }
    return context.commit(stage, inputs=inputs, work=work)


def _others(context: Context, stage: Stage) -> dict[str, Stage]:
    """What a model is compared with: the off-the-shelf one, the best so far, the one that it was trained from.

    The random arm's "best" is the last mined round. On the test split and on the general set only the first is.
    """
    model = stage.of
    if isinstance(model, Chosen) or stage.scope is Scope.GENERAL:
        first = replace(stage, of=Chosen.BASELINE if isinstance(model, Chosen) else BASELINE)
        return {} if stage == first else {"baseline": first}
    assert isinstance(model, ModelName)
    if model == BASELINE:
        return {}
    best = ModelName(model.round) if model.random else best_model(context, earlier_models(context.config, model))
    others = {"baseline": BASELINE, "best": best, "previous": parent_model(context.config, model)}
    return {key: replace(stage, of=other) for key, other in others.items()}


def measure(task: EvaluateTask) -> tuple[dict[str, Any], Part]:
    """(figures, values per query of every metric): in a worker. Writes the latter.

    Memory: the hits, all labels, what is read of the items that these name, and 8 bytes per item where the corpus has a number
    column that says how popular each is.
    """
    store, settings = task.store, task.settings
    labels = read_parts(store, task.labels, ["query_row", "item_row", "score", "gain", "source"])
    judged = labels.filter(pc.not_equal(labels["score"], NO_NEGATIVE))
    queries = read_parts(store, task.queries, ["item_row", "split", "text_code"])
    of_training = pc.equal(queries["split"], "train").to_numpy()[judged["query_row"].to_numpy()]
    learned = judged["item_row"].to_numpy()[of_training & (judged["score"].to_numpy() > 0)]
    ranking = load_ranking(task, judged, queries, learned)
    compatible = None
    if task.compatible:
        compatible = _compatible(task, task.compatible, ranking)
    query_L, item_L, gain_L, score_L = (judged[name].to_numpy() for name in ("query_row", "item_row", "gain", "score"))
    judgements = Judgements.from_triples(query_L, item_L, gain_L, score_L > 0)
    per_query = per_query_metrics(ranking.rows, ranking.query_rows, judgements, compatible_top1_Q=compatible)
    best = attainable(per_query, ranking.query_rows, judgements)
    table = pa.table({"query_row": ranking.query_rows} | {name: pa.array(values) for name, values in per_query.items()})
    part = write_part(store, f"{task.folder}/per_query.parquet", table)
    figures: dict[str, Any] = {
        "queries": len(ranking.query_rows),
        "queries_without_positive": int(np.isnan(per_query["recall@1"]).sum()),
        "equal_texts": {
            "queries_with_copies": int(ranking.had_copies.sum()),
            "first_hits_of_own_text": int(ranking.first_has_own_text.sum()),
        },
        "metrics": _means(per_query),
        "attainable": _means(best),
    }
    others = {parts[0].path: _values_of(store, parts) for parts in task.others.values()}
    compared = {path: compare_metrics(per_query, other, settings) for path, other in others.items()}
    figures |= {f"against_{key}": compared[parts[0].path] for key, parts in task.others.items()}
    columns = memberships(store, task.queries, task.corpus, ranking.query_rows, ranking.relevant, settings.slices)
    slices = slice_figures(
        per_query,
        columns,
        primary=settings.primary,
        baseline=others[task.others["baseline"][0].path] if task.others else None,
        attainable=best[settings.primary],
        least=settings.min_slice_queries,
        resamples=settings.resamples,
        confidence=settings.confidence,
    )
    # a column that nobody named and whose values are all too rare says nothing
    figures["slices"] = {name: found for name, found in slices.items() if found["slices"] or settings.slices is not None}
    shown = ranking.rows[:, :DEPTH]
    rows = np.concatenate([shown[shown >= 0], ranking.relevant.item])
    popular = popularity_percentiles(store, task.corpus, rows, learned, task.popularity)
    figures |= result_figures(store, task.item_vectors, task.query_vectors, ranking, popular)
    if task.first:
        figures["leakage"] = leakage_figures(store, task.corpus, task.queries, judged)
    return figures, part


def _means(per_query: Mapping[str, F64]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in summarise(per_query).items()}


def load_ranking(task: EvaluateTask, judged: pa.Table, queries: pa.Table, learned: I64) -> Ranking:
    """The hits and relevant labels of the evaluated queries.

    Args:
        judged: all labels of the run, sorted by query and item.
        queries: item_row and text_code of every query of the run.
        learned: the items of all relevant labels of training queries.
    """
    hits = read_parts(task.store, task.hits, ["query_row", "item_rows", "scores", "label_rows", "label_scores"])
    query_rows = hits["query_row"].to_numpy()
    own, query_codes = (queries[name].to_numpy()[query_rows] for name in ("item_row", "text_code"))
    query, label = placed(query_rows, judged["query_row"].to_numpy())
    item = judged["item_row"].to_numpy()[label].astype(np.int64)
    wanted = judged["score"].to_numpy()[label] > 0
    found = without_self(*dense_hits(hits), own)
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
