"""Stage 1: corpus and queries as vectors of one model. Addressed by what made them, so no model is embedded twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.commits import Commit, Outcome, digest
from cluster.folders import Manifest, folder_digest
from cluster.resources import embed_pool
from cluster.tables import Part
from jobs.stages.context import Context
from jobs.stages.ingest.histories import write_sequence
from mining.embed import EmbedJob, check_counts, embed
from training.encoders.part_encoder import MakeEncoder, MakeNormaliser

if TYPE_CHECKING:  # stage 0 ends with `start_sequence`
    from jobs.stages.ingested import Ingested


@dataclass(frozen=True)
class Model:
    """A model in the run's storage."""

    digest: str
    """Digest of its folder's content."""
    prefix: str
    files: Manifest
    reads_base: bool = False
    """It reads the vectors of the frozen base model (an adapter) instead of texts."""


def base_model(ingested: Ingested) -> Model | None:
    """The off-the-shelf model; None: the data's own vectors are it."""
    figures = ingested.base.figures
    if "prefix" not in figures:
        return None
    return Model(figures["digest"], figures["prefix"], ingested.base.files)


def start_model(ingested: Ingested) -> Model:
    """The model that training starts from: the off-the-shelf one, or a new adapter on it."""
    figures = ingested.base.figures
    if "adapter_prefix" in figures:
        return Model(ingested.base.key, figures["adapter_prefix"], ingested.base.files, reads_base=True)
    model = base_model(ingested)
    assert model is not None
    return model


def trained_model(trained: Commit, start: Model) -> Model:
    """The model that a train stage left, of the kind of the one it started from."""
    prefix = trained.figures["prefix"]
    return Model(folder_digest(trained.files, prefix), prefix, trained.files, reads_base=start.reads_base)


def feature_parts(context: Context, ingested: Ingested, *, of_base: bool) -> tuple[list[Part], list[Part], str]:
    """(item features, query features, what they are) that a model reads.

    Args:
        of_base: the vectors of the frozen base model, for an adapter; else tokens.
    """
    if not of_base:
        assert ingested.tokens is not None
        return ingested.tokens.parts("corpus"), ingested.tokens.parts("queries"), ingested.tokens.key
    if base_model(ingested) is None:
        return ingested.corpus, ingested.queries, ingested.tables.key
    vectors = embed_model(context, ingested, base_model(ingested))
    return vectors.parts("corpus"), vectors.parts("queries"), vectors.key


def start_sequence(context: Context, ingested: Ingested) -> Ingested:
    """The run as a sequence encoder reads it: its untrained model is the base, histories and item rows are the tokens.

    Args:
        ingested: with the frozen base model, if it has one, and its tokens.
    """
    config, base = context.config, base_model(ingested)
    vectors = embed_model(context, ingested, base, items_only=True) if base else ingested.tables

    def work(folder: str) -> Outcome:
        import ray

        remote = ray.remote(write_sequence).options(num_cpus=1, max_retries=config.cluster.retries)
        outcome: Outcome = ray.get(
            remote.remote(config, context.store, folder, ingested.corpus, ingested.queries, vectors.parts("corpus"))
        )
        return outcome

    inputs = {
        "tables": ingested.tables.key,
        "vectors": vectors.key,
        "seed": config.rounds.seed,
        "encoder": config.encoder.model_dump(include={"hidden", "max_length"}),
    }
    commit = context.stage("base", "sequence", folder="sequence", inputs=inputs, work=work)
    return replace(ingested, base=commit, tokens=commit)


def embed_model(context: Context, ingested: Ingested, model: Model | None, *, items_only: bool = False) -> Commit:
    """The vectors of every item and query under `model` (None: the data's own, normalised)."""
    config = context.config
    if model is None:
        items, queries, source = ingested.corpus, ingested.queries, ingested.tables.key
    else:
        items, queries, source = feature_parts(context, ingested, of_base=model.reads_base)
    pool = embed_pool(config.cluster, context.size)
    bfloat16 = model is not None and config.mining.embeds_in_bfloat16(gpu=bool(pool.gpus), training=config.training.precision)
    inputs: dict[str, Any] = {
        "model": model.digest if model else "vectors",
        "features": source,
        "dtype": config.mining.embedding_dtype,
        "bfloat16": bfloat16,
        "budget": config.cluster.micro_batch_tokens,
    }
    if items_only:
        inputs["items_only"] = True
    make: Any = MakeNormaliser()
    if model is not None:
        make = MakeEncoder(
            context.store, model.files, model.prefix, pool.cpus, bool(pool.gpus), bfloat16, config.cluster.micro_batch_tokens
        )

    def work(folder: str) -> Outcome:
        jobs = [EmbedJob("corpus", items, folder), *([] if items_only else [EmbedJob("queries", queries, folder)])]
        made = embed(
            jobs,
            make,
            context.store,
            pool,
            dtype=config.mining.embedding_dtype,
            retries=config.cluster.retries,
            mailbox=context.progress.mailbox,
        )
        check_counts(made, jobs, context.store)
        return Outcome(tables=made.tables, work_seconds=made.seconds)

    return context.stage("embed", f"embed-{digest(inputs)[:12]}", folder="embeddings", inputs=inputs, work=work)
