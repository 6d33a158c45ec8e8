"""Stage 2: the nearest items of some queries over shards of the corpus, and the scores of given pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Outcome, digest
from cluster.errors import DataError
from cluster.session.resources import ClusterSettings, ClusterSize, search_pool
from cluster.tables.tables import I64, Part, read_schema, stream_parts
from jobs.record.stages import Kind, Scope, Stage
from jobs.stages.chosen import mining_model
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested, read_ingested
from mining.memory import rows_that_fit
from mining.search.block_actor import SearchTask
from mining.search.driver import Searched, search
from mining.search.shards import QueryBlock, plan_blocks, plan_shards
from mining.settings import SearchSettings


def search_to_mine(context: Context, stage: Stage) -> Commit:
    """The nearest items of the queries to mine for, known positives left out, under the model that is to be trained next."""
    model = mining_model(context.config, stage.of)
    return search_queries(
        context,
        stage,
        context.need(Stage(Kind.EMBED, model)),
        split=mined_split(context, stage.scope),
        num_hits=context.config.mining.num_hits,
        exclude_known=True,
        settings=context.config.mining.search,
    )


def search_to_measure(context: Context, stage: Stage) -> Commit:
    """The nearest items of the evaluated queries under the stage's own model."""
    # one more than is measured: a query that is an item finds itself first, and that one is taken out
    return search_queries(
        context,
        stage,
        context.need(stage.sibling(Kind.EMBED)),
        split=stage.split,
        num_hits=context.config.evaluation.num_hits + 1,
    )


def mined_split(context: Context, scope: Scope) -> str:
    """The splits whose queries are mined for: alone, where the data has no dev split, what was cut off as dev as well."""
    cut = read_ingested(context).tables.figures.get("dev_queries_cut_from_train", 0)
    return "train+dev" if scope is Scope.ALONE and cut else "train"


def search_queries(
    context: Context,
    stage: Stage,
    vectors: Commit,
    *,
    split: str,
    num_hits: int,
    exclude_known: bool = False,
    also: Sequence[Part] | None = None,
    settings: SearchSettings | None = None,
) -> Commit:
    """The `num_hits` nearest items of every query of `split`, and the scores of its judged items.

    Args:
        exclude_known: leave out items that are known to be relevant, when mining.
        also: pairs (query_row, also_rows; one part for each block) that are scored under `vectors` too; with num_hits = 0
            only these.
        settings: how to search; None: exactly, as every evaluation does.
    """
    config, ingested = context.config, read_ingested(context, stage.scope)
    once = config.encoder.kind == "sequence" and not config.encoder.repeats
    how = settings or SearchSettings(mode="exact", engine=config.mining.search.engine)

    def work(place: str) -> Outcome:
        rows = rows_of_split(context, ingested, split)
        task = SearchTask(
            store=context.store,
            item_vectors=vectors.parts("corpus"),
            query_vectors=vectors.parts("queries"),
            labels=ingested.labels,
            codes=ingested.codes,
            num_queries=int(ingested.tables.figures["queries"]),
            num_hits=num_hits,
            folder=place,
            exclude_known=exclude_known,
            also=tuple(also or ()),
            histories=tuple(ingested.queries) if once else (),
        )
        searched, shards = search_corpus(context, ingested, task, rows, how)
        return Outcome(
            tables={"hits": searched.parts},
            work_seconds=searched.seconds,
            figures={"queries": len(rows), "shards": shards} | searched.figures,
        )

    inputs = {"vectors": vectors.key, "tables": ingested.tables.key, "split": split, "num_hits": num_hits}
    inputs["search"] = "exact" if how.mode == "exact" else how.model_dump(exclude={"engine"})  # exact hits: any way gives them
    if exclude_known:
        inputs["exclude_known"] = True
    if once:
        inputs["histories"] = "left out"
    if also:
        inputs["also"] = digest([part.path for part in also])  # a part's folder is named after what made it
    return context.commit(stage, inputs=inputs, work=work)


def search_corpus(
    context: Context, ingested: Ingested, task: SearchTask, rows: I64, settings: SearchSettings
) -> tuple[Searched, int]:
    """Search the corpus for some rows of `task.query_vectors`, cut into shards and blocks as [cluster] says.

    Args:
        task: what to search; its folder gets a folder for this size of blocks.
        rows: ascending.

    Returns:
        (what the search wrote, number of shards).
    """
    cluster, pool = context.config.cluster, search_pool(context.config.cluster, context.size)
    items = int(ingested.tables.figures["items"])
    dimension = read_schema(context.store, task.item_vectors[0]).field("vector").type.list_size
    rows_of_shard = shard_rows(cluster, context.size, dimension)
    shards = plan_shards(items, shards=cluster.shards, actors=pool.count, shard_rows=rows_of_shard)
    searched = search(
        replace(task, folder=f"{task.folder}/blocks-of-{cluster.query_block}"),  # blocks of another size: other parts
        shards,
        plan_blocks(rows, cluster.query_block),
        pool,
        settings,
        retries=cluster.retries,
        seed=context.config.rounds.seed,
        mailbox=context.progress.mailbox,
    )
    return searched, len(shards)


def shard_rows(cluster: ClusterSettings, size: ClusterSize, dimension: int) -> int:
    """Maximum items of a shard: as many as an actor's part of its node's memory holds."""
    pool = search_pool(cluster, size)
    nodes = (size.gpu_nodes or size.nodes) if pool.gpus else size.nodes
    return rows_that_fit(dimension, size.node_memory, -(-pool.count // nodes), gpu=bool(pool.gpus))


def blocks_of_split(context: Context, ingested: Ingested, split: str) -> list[QueryBlock]:
    """The queries of a split, cut as a search of them is. Raises DataError: there are none."""
    return plan_blocks(rows_of_split(context, ingested, split), context.config.cluster.query_block)


def rows_of_split(context: Context, ingested: Ingested, split: str) -> I64:
    """Rows of the queries of a split ("train"), or of several ("train+dev"), ascending. Raises DataError: none."""
    wanted, in_parts = pa.array(split.split("+")), [np.zeros(0, np.int64)]
    for part, table in stream_parts(context.store, ingested.queries, ["split"]):
        column = table["split"]
        in_parts.append(np.flatnonzero(pc.is_in(column, value_set=wanted).to_numpy()) + part.first_row)
    rows: I64 = np.concatenate(in_parts)
    if not len(rows):
        raise DataError(
            f"no query belongs to the {split} split, so there is nothing to search; found {ingested.tables.figures['splits']}"
        )
    return rows
