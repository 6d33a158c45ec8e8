"""Near-duplicates of relevant items, looked up once per run: a text stays the same while the model trains."""

from __future__ import annotations

import numpy as np

from cluster.commits import Commit, Outcome
from cluster.tables.tables import I64, stream_parts
from jobs.record.stages import BASELINE, Kind, Scope, Stage
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested, read_ingested
from jobs.stages.stage_2_search import mined_split, rows_of_split, search_corpus
from mining.search.block_actor import SearchTask
from mining.sources.near import NEIGHBOURS, find_near


def near_stage(context: Context, stage: Stage) -> Stage | None:
    """The near-duplicates that a mining reads; None: mining.near_duplicate is off.

    `hardmine mine` without a round may look at more queries than a run in the same folder: neither undoes the other's.
    """
    if context.config.mining.near_duplicate is None:
        return None
    return Stage(Kind.NEAR, scope=Scope.RUN if mined_split(context, stage.scope) == "train" else stage.scope)


def near_duplicates(context: Context, stage: Stage) -> Commit:
    """The near-duplicates (table "near") of the relevant items of the mined queries.

    They are among the NEIGHBOURS nearest items of each, by the off-the-shelf vectors, searched as mining.search says.
    """
    config, ingested, split = context.config, read_ingested(context), mined_split(context, stage.scope)
    threshold = config.mining.near_duplicate
    assert threshold is not None
    vectors = context.need(Stage(Kind.EMBED, BASELINE))

    def work(place: str) -> Outcome:
        rows = relevant_items(context, ingested, split)
        task = SearchTask(
            store=context.store,
            item_vectors=vectors.parts("corpus"),
            query_vectors=vectors.parts("corpus"),
            labels=[],
            codes=[],
            num_queries=0,
            num_hits=NEIGHBOURS + 1,  # each item is its own nearest
            folder=place,
        )
        searched, _ = search_corpus(context, ingested, task, rows, config.mining.search)
        near = find_near(context.store, searched.parts, f"{place}/near", threshold, retries=config.cluster.retries)
        return Outcome(
            tables={"near": near.parts},
            work_seconds=searched.seconds,
            figures=searched.figures
            | {"items": len(rows), "items_with_near": near.items, "pairs": near.pairs, "items_full": near.full},
        )

    inputs = {
        "vectors": vectors.key,
        "tables": ingested.tables.key,
        "split": split,
        "threshold": threshold,
        "neighbours": NEIGHBOURS,
        "search": config.mining.search.model_dump(exclude={"engine"}),
    }
    commit = context.commit(stage, inputs=inputs, work=work)
    full, items = commit.figures["items_full"], commit.figures["items"]
    if full:
        context.progress.say(
            f"! all {NEIGHBOURS} nearest neighbours of {full:,} of {items:,} relevant items count as their near-duplicates "
            f"(cosine of at least {threshold}), and there may be more, which are not dropped"
            + ("" if context.trains else "; raise mining.near_duplicate")
        )
    return commit


def relevant_items(context: Context, ingested: Ingested, split: str) -> I64:
    """Distinct rows of the items that are relevant to a query of the split, ascending."""
    queries = rows_of_split(context, ingested, split)
    items = [np.zeros(0, np.int64)]
    for _, labels in stream_parts(context.store, ingested.labels, ["query_row", "item_row", "score"]):
        relevant = (labels["score"].to_numpy() > 0) & np.isin(labels["query_row"].to_numpy(), queries)
        items.append(labels["item_row"].to_numpy()[relevant].astype(np.int64))
    return np.unique(np.concatenate(items))
