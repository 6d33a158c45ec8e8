"""Stage 2: the nearest items of some queries, exactly, over shards of the corpus."""

from __future__ import annotations

import numpy as np

from cluster.commits import Commit, Outcome
from cluster.errors import DataError
from cluster.resources import search_pool
from cluster.tables import read_parts
from jobs.context import Context
from jobs.stage_0_ingest import Ingested
from mining.search import SearchTask, search
from mining.shards import plan_blocks, plan_shards


def search_queries(context: Context, ingested: Ingested, vectors: Commit, *, name: str, folder: str, split: str,
                   num_hits: int) -> Commit:
    """The `num_hits` nearest items of every query of `split`, and the scores of its judged items."""
    config = context.config

    def work(place: str) -> Outcome:
        splits = np.asarray(read_parts(context.store, ingested.queries, ["split"])["split"].to_pylist())
        rows = np.flatnonzero(splits == split).astype(np.int64)
        if not len(rows):
            raise DataError(f"no query belongs to the {split} split, so there is nothing to search; found "
                            f"{ingested.tables.figures['splits']}")
        pool = search_pool(config.cluster, context.size)
        items = int(ingested.tables.figures["items"])
        engine = config.mining.search.engine if config.mining.search.engine != "auto" else ("torch" if pool.gpus else "faiss")
        task = SearchTask(
            store=context.store, item_vectors=vectors.parts("corpus"), query_vectors=vectors.parts("queries"),
            labels=ingested.labels, corpus=ingested.corpus, num_queries=int(ingested.tables.figures["queries"]),
            num_hits=num_hits,
            folder=f"{place}/blocks-of-{config.cluster.query_block}", engine=engine,  # blocks of another size are other parts
        )
        shards = plan_shards(items, shards=config.cluster.shards, actors=pool.count, shard_rows=config.cluster.shard_rows)
        found = search(task, shards, plan_blocks(rows, config.cluster.query_block), pool,
                       retries=config.cluster.retries, mailbox=context.progress.mailbox)
        return Outcome(tables={"hits": found.parts}, work_seconds=found.seconds,
                       figures={"queries": len(rows), "shards": len(shards), "engine": engine})

    inputs = {"vectors": vectors.key, "tables": ingested.tables.key, "split": split, "num_hits": num_hits}
    return context.stage("search", name, folder=folder, inputs=inputs, work=work)
