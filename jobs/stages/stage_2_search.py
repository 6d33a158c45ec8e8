"""Stage 2: the nearest items of some queries over shards of the corpus, and the scores of pairs that others found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Outcome, digest
from cluster.errors import DataError
from cluster.resources import search_pool
from cluster.tables import I64, Part, read_part
from jobs.record.stages import Kind, Scope, Stage
from jobs.stages.chosen import mining_model
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested, read_ingested
from mining.search.block_actor import SearchTask
from mining.search.driver import search
from mining.search.shards import plan_blocks, plan_shards
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
            nothing else is done.
        settings: how to search; None: exactly, as every evaluation does.
    """
    config, ingested = context.config, read_ingested(context, stage.scope)
    once = config.encoder.kind == "sequence" and not config.encoder.repeats
    how = settings or SearchSettings(mode="exact", engine=config.mining.search.engine)

    def work(place: str) -> Outcome:
        rows = rows_of_split(context, ingested, split)
        pool = search_pool(config.cluster, context.size)
        task = SearchTask(
            store=context.store,
            item_vectors=vectors.parts("corpus"),
            query_vectors=vectors.parts("queries"),
            labels=ingested.labels,
            corpus=ingested.corpus,
            num_queries=int(ingested.tables.figures["queries"]),
            num_hits=num_hits,
            folder=f"{place}/blocks-of-{config.cluster.query_block}",  # blocks of another size: other parts
            exclude_known=exclude_known,
            also=tuple(also or ()),
            histories=tuple(ingested.queries) if once else (),
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
            how,
            retries=config.cluster.retries,
            seed=config.rounds.seed,
            mailbox=context.progress.mailbox,
        )
        return Outcome(
            tables={"hits": found.parts},
            work_seconds=found.seconds,
            figures={"queries": len(rows), "shards": len(shards)} | found.figures,
        )

    inputs = {
        "vectors": vectors.key,
        "tables": ingested.tables.key,
        "split": split,
        "num_hits": num_hits,
        "search": _what_matters(how),
    }
    if exclude_known:
        inputs["exclude_known"] = True
    if once:
        inputs["histories"] = "left out"
    if also:
        inputs["also"] = digest([part.path for part in also])  # a part's folder is named after what made it
    return context.commit(stage, inputs=inputs, work=work)


def _what_matters(how: SearchSettings) -> dict[str, object] | str:
    """What the hits depend on: an exact search's do not depend on how it is done."""
    return "exact" if how.mode == "exact" else how.model_dump(exclude={"engine"})


def rows_of_split(context: Context, ingested: Ingested, split: str) -> I64:
    """Rows of the queries of a split ("train"), or of several ("train+dev"), ascending. Raises DataError: none."""
    found: Sequence[I64] = [_rows_in(context, part, split) for part in ingested.queries]
    rows = np.concatenate(found)
    if not len(rows):
        raise DataError(
            f"no query belongs to the {split} split, so there is nothing to search; found {ingested.tables.figures['splits']}"
        )
    return rows


def _rows_in(context: Context, part: Part, split: str) -> I64:
    column = read_part(context.store, part.path, ["split"])["split"]
    mask = pc.is_in(column, value_set=pa.array(split.split("+"))).to_numpy()
    return np.flatnonzero(mask).astype(np.int64) + part.first_row
