"""A teacher's second opinion on what the filters left: its model, the pairs it is to read, what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.errors import ArtifactError
from cluster.resources import embed_pool
from cluster.tables import Part
from jobs.stages.context import Context
from jobs.stages.ingest.second_model import make_teacher
from jobs.stages.ingested import Ingested
from jobs.stages.stage_0_ingest import folder_fingerprint, in_worker, tokenise
from jobs.stages.stage_1_embed import base_model, embed_model
from jobs.stages.stage_2_search import rows_of_split, search_queries
from mining.negatives import MineTask
from mining.search.shards import plan_blocks
from mining.settings import TeacherSettings
from mining.teacher.cut import depth_of
from mining.teacher.pairs import cut_as, write_pairs
from mining.teacher.reading import ReadTask, read_pairs
from training.encoders.cross_encoder import MakeCrossEncoder
from training.settings import EncoderSettings

SCORED = "-teacher"
"""How the names of the stages end in which a teacher reads pairs."""


def check_teacher(context: Context) -> None:
    """Bring the teacher's model into storage before anything expensive is done: most mistakes show here.

    Does nothing without a teacher, or where a stage is run alone that needs none.

    Raises:
        ConfigError: the model is missing, damaged or of another kind.
    """
    settings = context.config.mining.teacher
    if settings is not None and (context.only is None or "teacher" in context.only.makes):
        second_model(context, settings)


def second_model(
    context: Context, settings: TeacherSettings, *, name: str = "teacher", section: str = "mining.teacher"
) -> Commit:
    """A model beside the one that is trained, in the run's storage.

    Args:
        name: of the stage, and its kind. section: where the configuration names the model.

    Raises:
        ConfigError: the model is missing, damaged or of another kind.
    """
    inputs = {"model": folder_fingerprint(settings.model), "kind": settings.kind, "max_length": settings.max_length}
    return context.stage(
        name,
        name,
        folder=name,
        inputs=inputs,
        work=lambda folder: in_worker(make_teacher, context, context.config, context.store, folder, settings, section),
    )


def ask_teacher(
    context: Context, ingested: Ingested, task: MineTask, inputs: Mapping[str, Any], *, name: str, folder: str, split: str
) -> tuple[list[Part], str] | None:
    """What the teacher says of the candidates that the other filters leave.

    Args:
        task: what is to be chosen from, as yet without a teacher.
        inputs: all that decides what the other filters leave; JSON-able.
        name: prefix of the stages' names, e.g. "round-01".
        split: whose queries the task's hits are.

    Returns:
        (scored pairs, one part per block of queries; what they depend on), or None: there is no teacher.

    Raises:
        ConfigError: as `check_teacher`. DataError: the teacher gives NaN.
    """
    settings = context.config.mining.teacher
    if settings is None:
        return None
    model = second_model(context, settings)
    pairs = _choose_pairs(context, ingested, task, inputs, name=name, folder=folder, split=split)
    if settings.kind == "encoder":
        vectors = second_vectors(context, ingested, model)
        scored = search_queries(
            context,
            ingested,
            vectors,
            name=f"{name}{SCORED}",
            folder=f"{folder}/teacher",
            split=split,
            num_hits=0,
            also=pairs.parts("pairs"),
        )
        return scored.parts("hits"), scored.key
    scored = _read(context, ingested, model, pairs, name=f"{name}{SCORED}", folder=f"{folder}/teacher")
    return scored.parts("scores"), scored.key


def _choose_pairs(
    context: Context, ingested: Ingested, task: MineTask, inputs: Mapping[str, Any], *, name: str, folder: str, split: str
) -> Commit:
    query_block = context.config.cluster.query_block

    def work(place: str) -> Outcome:
        parts, count = write_pairs(replace(task, folder=f"{place}/pairs"), retries=context.config.cluster.retries)
        blocks = plan_blocks(rows_of_split(context, ingested, split), query_block)  # the hits may be cut otherwise
        parts = cut_as(context.store, parts, blocks, f"{place}/pairs-of-{query_block}")
        return Outcome(tables={"pairs": parts}, figures={"pairs": count})

    return context.stage(
        "teacher",
        f"{name}{SCORED}-pairs",
        folder=f"{folder}/teacher-pairs",
        work=work,
        inputs={**inputs, "depth": depth_of(task.settings), "query_block": query_block},
    )


def second_vectors(context: Context, ingested: Ingested, model: Commit) -> Commit:
    """The vectors of all items and queries under a second embedding model (of `second_model`)."""
    encoder = EncoderSettings(kind=model.figures["encoder"], model=model.figures["prefix"])
    config = context.config.model_copy(update={"encoder": encoder})
    tokens = context.stage(
        model.name,
        f"{model.name}-tokens",
        folder="tokens",
        inputs={"tables": ingested.tables.key, "base": model.figures["digest"]},
        work=lambda folder: tokenise(context, config, folder, ingested.tables, model),
    )
    of_teacher = replace(ingested, base=model, tokens=tokens)
    return embed_model(context, of_teacher, base_model(of_teacher))


def _read(context: Context, ingested: Ingested, model: Commit, pairs: Commit, *, name: str, folder: str) -> Commit:
    """Let a cross-encoder read the pairs that it has not read in an earlier round."""
    config, settings = context.config, context.config.mining.teacher
    assert settings is not None
    pool = embed_pool(config.cluster, context.size)
    bfloat16 = bool(pool.gpus) and config.training.precision != "float32"
    reading = {
        "teacher": model.figures["digest"],
        "max_length": settings.max_length,
        "bfloat16": bfloat16,
        "tables": ingested.tables.key,
    }
    before = next((commit for commit in reversed(context.stages) if commit.name.endswith(SCORED) and commit.name != name), None)
    # a stage of this name under another key: the pairs have changed since, their scores have not
    stale = context.ledger.find(name)

    def work(place: str) -> Outcome:
        task = ReadTask(
            context.store,
            pairs.parts("pairs"),
            [_known(context, commit, reading) for commit in (before, stale)],
            ingested.queries,
            ingested.corpus,
            f"{place}/scores",
        )
        make = MakeCrossEncoder(
            context.store,
            model.files,
            model.figures["prefix"],
            pool.cpus,
            bool(pool.gpus),
            bfloat16,
            settings.batch_pairs,
            settings.max_length,
        )
        done = read_pairs(task, make, pool, retries=config.cluster.retries, mailbox=context.progress.mailbox)
        return Outcome(
            tables={"scores": done.parts},
            work_seconds=done.seconds,
            figures={"pairs": pairs.figures["pairs"], "read": done.pairs},
        )

    inputs = {**reading, "pairs": pairs.key, "before": before.key if before else None}
    return context.stage("teacher", name, folder=folder, inputs=inputs, work=work)


def _known(context: Context, commit: Commit | None, reading: Mapping[str, Any]) -> list[Part]:
    """What a stage has read in the same way, of the same texts; nothing where it was read otherwise, or is gone."""
    if commit is None or "scores" not in commit.tables or any(commit.inputs.get(key) != reading[key] for key in reading):
        return []
    try:
        context.ledger.verify(commit)
    except ArtifactError:
        return []
    return commit.parts("scores")
