"""Stage 1: corpus and queries as vectors of one model. Addressed by what made them, so no model is embedded twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cluster.commits import Commit, Outcome, digest
from cluster.session.resources import embed_pool
from cluster.storage.model_folders import Manifest, folder_digest
from cluster.tables.tables import Part
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Scope, Second, Stage, embedding_name
from jobs.record.version import versions
from jobs.stages.chosen import chosen_model
from jobs.stages.context import Context
from jobs.stages.embed.given import copy_vectors
from jobs.stages.embed.siblings import copy_known, origin
from jobs.stages.ingested import read_ingested
from mining.embed import EmbedJob, check_counts, embed
from training.encoders.part_encoder import MakeEncoder

ENCODING = ("torch", "transformers", "sentence-transformers")
"""Packages that a model's vectors depend on."""


@dataclass(frozen=True)
class Model:
    """A model in the run's storage."""

    digest: str
    """Digest of its folder's content."""
    prefix: str
    files: Manifest
    reads_base: bool = False
    """It reads the vectors of the frozen base model (an adapter) instead of texts."""


def base_model(base: Commit) -> Model | None:
    """The off-the-shelf model of a `base`, or of a second model; None: the data's own vectors are it."""
    figures = base.figures
    return Model(figures["digest"], figures["prefix"], base.files) if "prefix" in figures else None


def start_model(base: Commit) -> Model:
    """The model that training starts from: the off-the-shelf one, or a new adapter on it."""
    figures = base.figures
    if "adapter_prefix" in figures:
        return Model(base.key, figures["adapter_prefix"], base.files, reads_base=True)
    model = base_model(base)
    assert model is not None
    return model


def trained_model(context: Context, name: ModelName) -> Model:
    """The model that a training or a merge left, of the kind of the run's first; of BASELINE the one that it starts from."""
    start = start_model(read_ingested(context).base)
    if name == BASELINE:
        return start
    trained = context.need(name.source)
    prefix = trained.figures["prefix"]
    return Model(folder_digest(trained.files, prefix), prefix, trained.files, reads_base=start.reads_base)


def read_features(context: Context, scope: Scope, *, of_base: bool) -> tuple[list[Part], list[Part], str]:
    """(item features, query features, what they are) that a model reads.

    Args:
        of_base: the vectors of the frozen base model, for an adapter; else tokens.
    """
    commit = _features(context, scope, of_base=of_base)
    return commit.parts("corpus"), commit.parts("queries"), commit.key


def _features(context: Context, scope: Scope, *, of_base: bool) -> Commit:
    data = read_ingested(context, scope)
    if not of_base:
        assert data.tokens is not None
        return data.tokens
    return context.need(Stage(Kind.EMBED, BASELINE, scope)) if base_model(data.base) else data.tables


def embed_model(context: Context, stage: Stage) -> Commit:
    """The vectors of every item and query under the stage's model; the data's own, normalised, where there is none.

    Without a model in its name the stage is of the frozen base of a sequence encoder, of which only items are embedded.
    """
    items_only, trained = stage.of is None, False
    name = chosen_model(context, stage.of) if isinstance(stage.of, Chosen) else stage.of
    if isinstance(name, Second):
        model = base_model(context.need(Stage(Kind.MODEL, name)))
        features = context.need(Stage(Kind.TOKENS, name))
    elif name is None or name == BASELINE:
        data = read_ingested(context, stage.scope, as_sequence=not items_only)
        model = base_model(data.base)
        features = data.tokens or data.tables
    else:
        assert isinstance(name, ModelName), "other sources have no vectors"
        model, trained = trained_model(context, name), True
        features = _features(context, stage.scope, of_base=model.reads_base)
    return _embed(context, stage, model, features, items_only=items_only, trained=trained)


def _embed(context: Context, stage: Stage, model: Model | None, features: Commit, *, items_only: bool, trained: bool) -> Commit:
    config, tables = context.config, ["corpus"] if items_only else ["corpus", "queries"]
    pool = embed_pool(config.cluster, context.size)
    bfloat16 = model is not None and config.mining.embeds_in_bfloat16(gpu=bool(pool.gpus), training=config.training.precision)
    inputs: dict[str, Any] = {
        "model": model.digest if model else "vectors",
        "features": features.key,
        "dtype": config.mining.embedding_dtype,
        "bfloat16": bfloat16,
        "budget": config.cluster.micro_batch_tokens,
    }
    if items_only:
        inputs["items_only"] = True
    if model is None:
        given = {table: features.parts(table) for table in tables}
        return context.commit(
            stage, inputs=inputs, work=lambda folder: copy_vectors(context, given, folder), name=embedding_name(digest(inputs))
        )
    make: Any = MakeEncoder(
        context.store, model.files, model.prefix, pool.cpus, bool(pool.gpus), bfloat16, config.cluster.micro_batch_tokens
    )
    made = origin(versions(ENCODING), features, tables) if not trained else {}

    def work(folder: str) -> Outcome:
        jobs = [EmbedJob(table, features.parts(table), folder) for table in tables]
        targets = {job.target(part): part.sha256 for job in jobs for part in job.sources} if made else {}
        copied = copy_known(context, inputs, made, targets) if made else {}
        vectors = embed(
            [replace(job, sources=[part for part in job.sources if job.target(part) not in copied]) for job in jobs],
            make,
            context.store,
            pool,
            dtype=config.mining.embedding_dtype,
            retries=config.cluster.retries,
            mailbox=context.progress.mailbox,
        )
        for job in jobs:
            mine = [copied[path] for path in map(job.target, job.sources) if path in copied]
            vectors.tables[job.table] = sorted([*vectors.tables[job.table], *mine], key=lambda part: part.first_row)
        check_counts(vectors, jobs, context.store)
        return Outcome(tables=vectors.tables, figures=made, work_seconds=vectors.seconds)

    return context.commit(stage, inputs=inputs, work=work, name=embedding_name(digest(inputs)))
