"""What the ranks of the re-ranker's training read, loaded once: the tokens of the texts that its steps name, and their grades.

As `training.retriever.load`, but the texts are tokenised here: a pair has other tokens than its texts have for the retriever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cluster.errors import ArtifactError, ConfigError
from cluster.labels.labels import Labels, gather_csr
from cluster.storage.model_folders import fetch_folder
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, lists_to_csr, read_parts, read_schema
from training.encoders.rerankers.load import reranker_tokenizer
from training.encoders.tokens.pairs import Template, Texts
from training.feed.batches import BatchPlan
from training.feed.memory import POOL_ROWS
from training.rank.load import NOT_LOADED, draw_pool, joined_before, labels_of, micro_steps, numbers, plan_batches, renumbered
from training.reranker.lists import PairValues
from training.reranker.task import RerankTask
from training.reranker.validation import Candidates, choose_candidates
from training.task import Told, read_examples

HIGHEST_GAIN = 5.0
"""Grades of lambda are scaled down to this: 2 ^ grade of a grade of 100 would leave all other pairs without weight."""
TEXTS_AT_ONCE = 2**16


@dataclass(frozen=True)
class Loaded:
    """What every rank holds."""

    template: Template
    queries: Texts
    items: Texts
    labels: Labels
    gains: PairValues
    """Grades, as the loss takes them."""
    teacher: PairValues
    plan: BatchPlan
    """Of rank 0."""
    check: Candidates | None
    """None: no dev query has hits and a relevant item."""


def load(task: RerankTask, world: int, *, pool_rows: int = POOL_ROWS) -> Loaded:
    """Everything of a task but its model.

    Args:
        world: ranks.
        pool_rows: random negatives come from so many items; all, where there are no more.

    Raises:
        DataError: no training query has a relevant item. ConfigError: the examples do not fill an optimizer step; the loss needs
            a teacher's scores, and there are none.
    """
    told, teacher = read_examples(task, graded=True), _read_teacher(task)
    assert told.gains is not None
    num_items, num_queries = told.labels.num_items, told.labels.num_queries
    pool = draw_pool(task, num_items, pool_rows)
    plan = _plan(task, told, pool, world)
    check = choose_candidates(task, told, told.gains)
    queries, items = np.arange(num_queries), np.arange(num_items)
    if num_queries > pool_rows:
        queries = np.union1d(told.examples.query_rows, check.query_rows if check else np.zeros(0, np.int64))
    if pool is not None:
        items = _named_items(task, told, plan, check, queries)
    owner, index = gather_csr(told.labels.offsets, queries)
    labels = labels_of(task, told.labels, queries, items)
    assert len(labels.item_rows) == len(index), "an item with a label was not loaded"
    tokenizer = reranker_tokenizer(fetch_folder(task.store, task.model, task.model_prefix))
    plan = replace(
        plan,
        examples=renumbered(told.examples, queries, items),
        num_items=len(items),
        pool=None if pool is None else numbers(items, pool, missing=NOT_LOADED),
    )
    if check is not None:
        rows = np.where(check.item_rows >= 0, numbers(items, check.item_rows), -1)
        check = replace(check, query_rows=numbers(queries, check.query_rows), item_rows=rows)
    return Loaded(
        tokenizer.template,
        _texts(task, tokenizer.queries, task.data.queries, queries),
        _texts(task, tokenizer, task.data.corpus, items),
        labels,
        PairValues.of(owner, labels.item_rows, _scaled(task, told.gains)[index], len(items)),
        _teacher(teacher, queries, items),
        plan,
        check,
    )


def _plan(task: RerankTask, told: Told, pool: I64 | None, world: int) -> BatchPlan:
    """The plan of rank 0, with the re-ranker's numbers of negatives: as many as it wants also where nothing was mined."""
    try:
        plan = plan_batches(task, told.examples, told.labels.num_items, pool, world, joined_before(task))
    except ConfigError as error:
        raise ConfigError(str(error).replace("training.batch_size", "reranker.batch_size")) from error
    own = task.reranker
    mined = own.hard_negatives if task.data.negatives else 0
    return replace(plan, hard=mined, random=own.random_negatives + own.hard_negatives - mined)


def _scaled(task: RerankTask, gains: F32) -> F32:
    highest = float(gains.max(initial=0.0))
    if task.reranker.loss == "bce":
        return gains / max(highest, 1e-9)
    return gains * min(1.0, HIGHEST_GAIN / max(highest, 1e-9))


def _named_items(task: RerankTask, told: Told, plan: BatchPlan, check: Candidates | None, queries: I64) -> I64:
    """[M] the items of all steps and of validation, and those with a label of a loaded query."""
    _, index = gather_csr(told.labels.offsets, queries)
    shown = check.item_rows[check.item_rows >= 0] if check else np.zeros(0, np.int64)
    wanted = [plan.named_items(micro_steps(task, plan)), told.labels.item_rows[index], shown]
    return np.unique(np.concatenate(wanted))


def _texts(task: RerankTask, tokenise: Callable[[list[str]], Texts], parts: list[Part], rows: I64) -> Texts:
    """The tokens of the texts of some rows, a block of texts at a time."""
    blocks = []
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        texts = read_rows(task.store, parts, rows[start : start + TEXTS_AT_ONCE], ["text"])["text"].to_pylist()
        blocks.append(tokenise([text or "" for text in texts]))
    return Texts.joined(blocks)


def _read_teacher(task: RerankTask) -> tuple[I64, I64, F32] | None:
    """(query rows, item rows, scores) that a teacher gave, of mined negatives and of relevant items; None: it is not needed.

    Raises:
        ConfigError: the loss needs them, and the negatives have none.
    """
    if task.reranker.loss != "margin_mse":
        return None
    columns = (("negative_rows", "negative_teacher_scores"), ("positive_rows", "positive_teacher_scores"))
    parts = task.data.negatives
    if not parts or not {name for pair in columns for name in pair} <= set(read_schema(task.store, parts[0]).names):
        raise ConfigError(
            'reranker.loss = "margin_mse" learns the differences between a teacher\'s scores, but the mined negatives have none; '
            'set mining.teacher, or another reranker.loss ("bce", "lambda" or "listnet")'
        )
    table = read_parts(task.store, parts, ["query_row", *(name for pair in columns for name in pair)])
    read: list[tuple[I64, I64, F32]] = []
    for rows, scores in columns:
        offsets, items = lists_to_csr(table[rows])
        own_offsets, values = lists_to_csr(table[scores])
        if not np.array_equal(offsets, own_offsets):
            raise ArtifactError(
                f"the mined negatives have {scores} of another length than {rows}; delete the commit of stage mine"
            )
        read.append((np.repeat(table["query_row"].to_numpy(), np.diff(offsets)), items, values.astype(np.float32)))
    queries, items, values = (np.concatenate(each) for each in zip(*read, strict=True))
    return queries, items, values


def _teacher(read: tuple[I64, I64, F32] | None, queries: I64, items: I64) -> PairValues:
    """By the numbers of what is loaded."""
    if read is None:
        return PairValues(np.zeros(0, np.int64), np.zeros(0, np.float32), len(items))
    query_rows, item_rows = numbers(queries, read[0]), numbers(items, read[1])
    known = (query_rows != NOT_LOADED) & (item_rows != NOT_LOADED) & np.isfinite(read[2])
    return PairValues.of(query_rows[known], item_rows[known], read[2][known], len(items))
