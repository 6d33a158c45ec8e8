"""A teacher's second opinion on what the filters left: the pairs that it reads, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.errors import ArtifactError
from cluster.session.resources import PoolSize, embed_pool
from cluster.storage.model_folders import Manifest
from cluster.tables.tables import Part
from jobs.record.plan import has_teacher
from jobs.record.stages import Kind, ModelName, Second, Stage
from jobs.stages.context import Context
from jobs.stages.ingest.models.teacher_server import make_asking
from jobs.stages.ingested import read_ingested
from jobs.stages.mine.report import REPORT_ONLY
from jobs.stages.mine.task import mining_task
from jobs.stages.stage_2_search import blocks_of_split, mined_split, search_queries
from mining.passes import Passes
from mining.settings import TeacherSettings
from mining.teacher.cut import depth_of
from mining.teacher.pairs import cut_as, write_pairs
from mining.teacher.reading import Asking, PairReader, ReadTask, read_pairs

AFTER_TEACHER = {
    "teacher",
    "num_negatives",
    "choose",
    "temperature",
    "max_uses",
    "popularity",
    "popularity_power",
    "search",
    "embedding_dtype",
    *REPORT_ONLY,
}
"""Settings that do not decide what a teacher reads; its depth is part of the key on its own."""


def choose_pairs(context: Context, stage: Stage) -> Commit:
    """The pairs that the teacher reads: the best survivors of the other filters, one part for each block of queries."""
    task, inputs = mining_task(context, stage)
    query_block, split = context.config.cluster.query_block, mined_split(context, stage.scope)

    def work(folder: str) -> Outcome:
        passes = Passes(replace(task, folder=f"{folder}/pairs"), retries=context.config.cluster.retries)
        parts, count = write_pairs(passes)
        blocks = blocks_of_split(context, read_ingested(context), split)  # the hits may be cut otherwise
        parts = cut_as(context.store, parts, blocks, f"{folder}/pairs-of-{query_block}")
        cuts = asdict(passes.task.cuts) if passes.task.cuts else None  # choosing needs the same
        return Outcome(tables={"pairs": parts}, figures={"pairs": count, "cuts": cuts})

    inputs |= {"mining": task.settings.model_dump(exclude=AFTER_TEACHER)}
    return context.commit(stage, inputs=inputs | {"depth": depth_of(task.settings), "query_block": query_block}, work=work)


def ask_teacher(context: Context, stage: Stage) -> Commit:
    """What the teacher says of the pairs: cosines of a second encoder (table "hits"), or the others' scores ("scores").

    Raises:
        DataError: the teacher gives NaN. ConfigError, ClusterError: its server refuses requests, or does not answer.
    """
    settings = context.config.mining.teacher
    assert settings is not None
    pairs = context.need(stage.sibling(Kind.TEACHER_PAIRS))
    if settings.kind != "encoder":
        model = Stage(Kind.TRAIN_RERANKER) if settings.own else Stage(Kind.MODEL, Second.TEACHER)
        return _read(context, stage, context.need(model), pairs)
    vectors = context.need(Stage(Kind.EMBED, Second.TEACHER))
    split = mined_split(context, stage.scope)
    return search_queries(context, stage, vectors, split=split, num_hits=0, also=pairs.parts("pairs"))


def _read(context: Context, stage: Stage, model: Commit, pairs: Commit) -> Commit:
    """Let the teacher read the pairs that it has not read in an earlier round."""
    config, settings, data = context.config, context.config.mining.teacher, read_ingested(context)
    assert settings is not None
    # one process asks a server: more of them would be more requests at once than mining.teacher.requests
    pool = PoolSize(1, 1, 0) if settings.served else embed_pool(config.cluster, context.size)
    reading = {
        "teacher": model.figures["digest"],
        "max_length": _max_length(settings),
        "bfloat16": in_bfloat16(context, pool),
        "tables": data.tables.key,
    }
    round_before = ModelName(stage.of.round - 1 if isinstance(stage.of, ModelName) else 0)
    taught_before = round_before.round > 0 and has_teacher(config, round_before)
    before = context.need(replace(stage, of=round_before)) if taught_before else None
    # a stage of this name under another key: the pairs have changed since, their scores have not
    stale = context.ledger.find(stage.name)

    def work(folder: str) -> Outcome:
        task = ReadTask(
            context.store,
            pairs.parts("pairs"),
            [known_scores(context, commit, reading) for commit in (before, stale)],
            data.queries,
            data.corpus,
            f"{folder}/scores",
        )
        make = _reader(context, settings, model, pool)
        done = read_pairs(task, make, pool, retries=config.cluster.retries, mailbox=context.progress.mailbox)
        return Outcome(
            tables={"scores": done.parts},
            work_seconds=done.seconds,
            figures={"pairs": pairs.figures["pairs"], "read": done.pairs},
        )

    inputs = {**reading, "pairs": pairs.key, "before": before.key if before else None}
    return context.commit(stage, inputs=inputs, work=work)


def _reader(context: Context, settings: TeacherSettings, model: Commit, pool: PoolSize) -> Callable[[], PairReader | Asking]:
    """What makes the teacher in the process that reads."""
    if settings.served:
        return make_asking(settings, model.figures["form"])
    make: Callable[[], PairReader] = make_pair_reader(context, pool, model.files, model.figures["prefix"], _max_length(settings))
    return make


def _max_length(settings: TeacherSettings) -> int | None:
    """Tokens of a pair; None: what the model says, as the re-ranker of a run always does."""
    return None if settings.kind == "reranker" else settings.max_length


def make_pair_reader(context: Context, pool: PoolSize, files: Manifest, prefix: str, max_length: int | None) -> Any:
    """What loads a model that reads pairs in an actor of the pool."""
    from training.encoders.cross_encoder import MakeCrossEncoder  # loads torch

    bfloat16 = in_bfloat16(context, pool)
    make: Any = MakeCrossEncoder(context.store, files, prefix, pool.cpus, bool(pool.gpus), bfloat16, max_length)
    return make


def in_bfloat16(context: Context, pool: PoolSize) -> bool:
    """Whether pairs are read in bfloat16."""
    return bool(pool.gpus) and context.config.training.precision != "float32"


def known_scores(context: Context, commit: Commit | None, reading: Mapping[str, Any]) -> list[Part]:
    """What a stage has read in the same way, of the same texts; nothing where it was read otherwise, or is gone."""
    if commit is None or "scores" not in commit.tables or any(commit.inputs.get(key) != reading[key] for key in reading):
        return []
    try:
        context.ledger.verify(commit)
    except ArtifactError:
        return []
    return commit.parts("scores")
