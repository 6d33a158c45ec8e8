"""The pairs that the re-rankers read, the hits of all retrievers together, and what they say of them; each pair is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.commits import Commit, Outcome
from cluster.session.resources import PoolSize, embed_pool
from cluster.storage.model_folders import Manifest
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import Part, part_name, read_parts, write_part
from jobs.record.stages import Kind, Reranker, Second, Stage
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.reranker.retrievers import retrievers
from jobs.stages.ingested import read_ingested
from jobs.stages.mine.teacher import in_bfloat16, known_scores, make_pair_reader
from mining.candidates import dense_hits, read_span, without_self
from mining.teacher.cut import Pairs
from mining.teacher.reading import ReadTask, read_pairs

BLOCK = 32
"""Queries of a part: some thousands of pairs, which a CPU reads in about a minute. A killed stage goes on with the next part."""


def pairs_to_rerank(context: Context, stage: Stage) -> Commit:
    """Every evaluated query with its hits under each retriever."""
    hits = [context.need(measured.sibling(Kind.HITS)) for measured in retrievers(context).values()]
    tables = read_ingested(context).tables

    def work(folder: str) -> Outcome:
        parts = [commit.parts("hits") for commit in hits]
        written: list[Part]
        written, pairs = in_worker(write_pairs, context, context.store, parts, tables.parts("queries"), folder)
        return Outcome(tables={"pairs": written}, figures={"pairs": pairs})

    return context.commit(stage, inputs={"hits": [commit.key for commit in hits], "tables": tables.key}, work=work)


def write_pairs(store: Store, hits: Sequence[Sequence[Part]], queries: Sequence[Part], folder: str) -> tuple[list[Part], int]:
    """Write the pairs of all hits tables, BLOCK queries to a part; (the parts, how many pairs).

    Args:
        hits: tables of the same queries in the same order, however they are cut.
    """
    query_rows = read_parts(store, hits[0], ["query_row"])["query_row"].to_numpy()
    own = read_rows(store, queries, query_rows, ["item_row"])["item_row"].to_numpy()
    parts, count = [], 0
    for number, start in enumerate(range(0, len(query_rows), BLOCK)):
        rows, mine = query_rows[start : start + BLOCK], own[start : start + BLOCK]
        tables = [read_span(store, table, start, rows, ["item_rows", "scores"]) for table in hits]
        every = np.concatenate([without_self(*dense_hits(table), mine)[0] for table in tables], axis=1)
        owner, column = np.nonzero(every >= 0)
        pairs = Pairs.ordered(rows[owner], every[owner, column])
        parts.append(write_part(store, f"{folder}/pairs/{part_name(number)}", pairs.to_table(rows, scored=False)))
        count += len(pairs)
    return parts, count


@dataclass(frozen=True)
class RerankerModel:
    """A re-ranker in the run's storage."""

    digest: str
    prefix: str
    files: Manifest

    def make_reader(self, context: Context, pool: PoolSize) -> Any:
        """What loads it in an actor of the pool."""
        assert context.config.reranker is not None
        return make_pair_reader(context, pool, self.files, self.prefix, context.config.reranker.max_length)


def reranker_model(context: Context, reranker: Reranker) -> RerankerModel | None:
    """A re-ranker of the run; None: off the shelf it has no head, so it cannot score."""
    base = context.need(Stage(Kind.MODEL, Second.RERANKER))
    if reranker is Reranker.OFF_THE_SHELF:
        figures = base.figures
        return None if figures["new_head"] else RerankerModel(figures["digest"], figures["prefix"], base.files)
    trained = context.need(Stage(Kind.TRAIN_RERANKER))
    return RerankerModel(trained.figures["digest"], trained.figures["prefix"], trained.files)


def score_with_reranker(context: Context, stage: Stage) -> Commit:
    """What a re-ranker says of the pairs; without the table "scores" where it cannot score.

    Raises:
        DataError: it gives NaN.
    """
    assert isinstance(stage.of, Reranker)
    pairs, model = context.need(Stage(Kind.RERANKER_PAIRS)), reranker_model(context, stage.of)
    if model is None:
        return context.commit(stage, inputs={"model": None}, work=lambda _: Outcome(figures={"pairs": 0, "read": 0}))
    pool, data = embed_pool(context.config.cluster, context.size), read_ingested(context)
    settings = context.config.reranker
    assert settings is not None
    reading = {
        "model": model.digest,
        "max_length": settings.max_length,
        "bfloat16": in_bfloat16(context, pool),
        "tables": data.tables.key,
    }
    before = context.ledger.find(stage.name)  # of other pairs, if another retriever was kept then

    def work(folder: str) -> Outcome:
        task = ReadTask(
            context.store,
            pairs.parts("pairs"),
            [known_scores(context, before, reading)],
            data.queries,
            data.corpus,
            f"{folder}/scores",
            setting="reranker.model",
        )
        done = read_pairs(
            task, model.make_reader(context, pool), pool, retries=context.config.cluster.retries, mailbox=context.progress.mailbox
        )
        figures = {"pairs": pairs.figures["pairs"], "read": done.pairs}
        return Outcome(tables={"scores": done.parts}, work_seconds=done.seconds, figures=figures)

    return context.commit(stage, inputs=reading | {"pairs": pairs.key}, work=work)
