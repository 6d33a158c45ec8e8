"""Near-duplicates of relevant items, found once per run: what items say does not follow the model in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.commits import Commit, Outcome
from cluster.resources import search_pool
from cluster.tables import I64, read_part
from jobs.record.stages import BASELINE, Kind, Scope, Stage
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested, read_ingested
from jobs.stages.stage_2_search import mined_split, rows_of_split
from mining.search.block_actor import SearchTask
from mining.search.driver import search
from mining.search.shards import plan_blocks, plan_shards
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

    Found among the NEIGHBOURS nearest items of each, by the off-the-shelf vectors and as mining.search says.
    """
    config, ingested, split = context.config, read_ingested(context), mined_split(context, stage.scope)
    threshold = config.mining.near_duplicate
    assert threshold is not None
    vectors = context.need(Stage(Kind.EMBED, BASELINE))

    def work(place: str) -> Outcome:
        rows = relevant_items(context, ingested, split)
        pool = search_pool(config.cluster, context.size)
        task = SearchTask(
            store=context.store,
            item_vectors=vectors.parts("corpus"),
            query_vectors=vectors.parts("corpus"),
            labels=[],
            corpus=ingested.corpus,
            num_queries=0,
            num_hits=NEIGHBOURS + 1,  # each finds itself
            folder=f"{place}/blocks-of-{config.cluster.query_block}",
        )
        shards = plan_shards(
            int(ingested.tables.figures["items"]),
            shards=config.cluster.shards,
            actors=pool.count,
            shard_rows=config.cluster.shard_rows,
        )
        found = search(
            task,
            shards,
            plan_blocks(rows, config.cluster.query_block),
            pool,
            config.mining.search,
            retries=config.cluster.retries,
            seed=config.rounds.seed,
            mailbox=context.progress.mailbox,
        )
        near = find_near(context.store, found.parts, f"{place}/near", threshold, retries=config.cluster.retries)
        return Outcome(
            tables={"near": near.parts},
            work_seconds=found.seconds,
            figures=found.figures
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
    if commit.figures["items_full"]:
        context.progress.say(_many(commit.figures["items_full"], commit.figures["items"], threshold))
    return commit


def _many(full: int, items: int, threshold: float) -> str:
    return (
        f"! all {NEIGHBOURS} nearest neighbours of {full:,} of {items:,} relevant items count as their near-duplicates "
        f"(cosine of at least {threshold}), and there may be more that are not dropped; raise mining.near_duplicate"
    )


def relevant_items(context: Context, ingested: Ingested, split: str) -> I64:
    """Distinct rows of the items that are relevant to a query of the split, ascending."""
    queries = rows_of_split(context, ingested, split)
    found: Sequence[I64] = [_relevant_in(context, part.path, queries) for part in ingested.labels]
    return np.unique(np.concatenate(found))


def _relevant_in(context: Context, path: str, queries: I64) -> I64:
    labels = read_part(context.store, path, ["query_row", "item_row", "score"])
    relevant = (labels["score"].to_numpy() > 0) & np.isin(labels["query_row"].to_numpy(), queries)
    return np.unique(labels["item_row"].to_numpy()[relevant]).astype(np.int64)
