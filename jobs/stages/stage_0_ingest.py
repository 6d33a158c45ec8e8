"""Stage 0: the user's data and base model become the run's own tables, tokens and model folder. Once per run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.commits import Commit, Outcome, digest
from cluster.errors import ConfigError, DataError
from cluster.resources import embed_pool, search_pool, train_pool
from cluster.storage import StorageSettings, Store, is_s3
from cluster.tables import read_schema
from jobs.config.config import Config
from jobs.config.data import SOURCES, DatasetSettings
from jobs.stages.context import Context
from jobs.stages.ingest.data import Sources, ingest_tables
from jobs.stages.ingest.equal_texts import describe_equal_texts
from jobs.stages.ingest.files import fingerprint
from jobs.stages.ingest.models import ON_VECTORS, make_base, tokenise_parts
from jobs.stages.ingest.notes import data_lines
from jobs.stages.ingested import Ingested
from jobs.stages.slice_columns import check_slices
from jobs.stages.stage_1_embed import start_sequence
from mining.choice.attributes import check_popularity, check_rules
from mining.report.confusion import check_confusion
from mining.search.shards import plan_shards

FORMAT = 2
"""Part of the tables' key: another number makes those of earlier versions anew."""
BESIDE = ("model", "general")
"""Fingerprints that the run's own tables do not depend on."""


def sources(data: DatasetSettings) -> Sources:
    """Table -> (address, the split its file stands for)."""
    if data.folder is None:
        assert data.corpus is not None
        assert data.queries is not None
        assert data.qrels is not None
        return {"corpus": [(data.corpus, None)], "queries": [(data.queries, None)], "labels": [(data.qrels, None)]}
    root = data.folder.rstrip("/")
    return {
        "corpus": [(f"{root}/corpus.jsonl", None)],
        "queries": [(f"{root}/queries.jsonl", None)],
        "labels": [(f"{root}/qrels/{split}.tsv", split) for split in ("train", "dev", "test")],
    }


def fingerprints(config: Config) -> dict[str, Any]:
    """Source file -> what tells its content apart, for every file of the data; those of a general set under "general".

    Raises:
        DataError: a file is missing.
    """
    found = _fingerprints(config.data, config.storage)
    general = config.evaluation.general
    return found if general is None else found | {"general": _fingerprints(general, config.storage)}


def _fingerprints(data: DatasetSettings, storage: StorageSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _naming(data):
        for table, places in sources(data).items():
            for url, split in places:
                try:
                    found[f"{table}:{split or 'all'}"] = fingerprint(url, storage)
                except DataError:
                    if split is None or split in data.needed_splits:  # of a BEIR folder, other splits may be missing
                        raise
        if not any(name.startswith("labels:") for name in found):
            raise DataError(
                f"{data.section}.folder: expected train.tsv, dev.tsv or test.tsv in {data.folder}/qrels, found none "
                f"of them; check the address"
            )
    return found


@contextmanager
def _naming(data: DatasetSettings) -> Iterator[None]:
    """Raises what is raised inside, for a general set with its own section where the run's is named."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if data.section == "data":
            raise
        text = str(error).replace("[data]", f"[{data.section}]")
        text = re.sub(r"\bdata\.(columns|item_text|query_text|relevant_from)\b", rf"{data.section}.\1", text)
        raise type(error)(f"the general set: {text}") from error


def model_fingerprint(config: Config) -> str | None:
    """What tells the base model apart: the content of a folder that is here, else the model's name."""
    return folder_fingerprint(config.encoder.model)


def folder_fingerprint(name: str | None) -> str | None:
    """The content of a model folder that is here; of what is elsewhere, its name."""
    if name is None or is_s3(name) or not Path(name).is_dir():
        return name
    store = Store(name)
    return digest({path: store.fingerprint(path) for path in store.list()})


def ingest(context: Context, prints: dict[str, Any]) -> Ingested:
    """Run the three parts of stage 0: tables, base model, tokens."""
    config = context.config
    _check_pools(context)
    tables = make_tables(context, config.data, {name: value for name, value in prints.items() if name not in BESIDE})
    _check_schema(context, tables)
    _check_counts(context, tables)
    dimension = tables.figures["dimension"]
    base = context.stage(
        "base",
        "base",
        folder="base",
        inputs=_base_inputs(config, tables, dimension, prints["model"]),
        work=lambda folder: in_worker(make_base, context, config, context.store, folder, tables),
    )
    if config.encoder.kind == "vectors" or (config.encoder.kind in ON_VECTORS and config.encoder.model is None):
        return _with_histories(context, Ingested(tables, base, None, dimension))
    return _with_histories(context, Ingested(tables, base, make_tokens(context, tables, base), dimension))


def _with_histories(context: Context, ingested: Ingested) -> Ingested:
    return start_sequence(context, ingested) if context.config.encoder.kind == "sequence" else ingested


def make_tables(context: Context, data: DatasetSettings, prints: dict[str, Any], *, prefix: str = "") -> Commit:
    """The tables of a data set.

    Args:
        prints: fingerprints of its files. prefix: of the stage's name.
    """
    config = context.config
    inputs = {
        "data": prints,
        "settings": data.model_dump(exclude=set(SOURCES)),
        "part_rows": config.cluster.part_rows,
        "format": FORMAT,
    }
    if config.encoder.kind == "sequence":
        inputs["histories"] = True
    tables = context.stage(
        "ingest",
        f"{prefix}ingest",
        folder="tables",
        inputs=inputs,
        work=lambda folder: in_worker(_ingest_tables, context, config, context.store, folder, data),
    )
    for line in [*data_lines(tables.figures, data.section), *describe_equal_texts(tables.figures["equal_texts"])]:
        context.progress.say(line)
    return tables


def make_tokens(context: Context, tables: Commit, base: Commit, *, prefix: str = "") -> Commit:
    """The tokens of a data set, as the base model reads them."""
    encoder = context.config.encoder.model_dump(include={"kind", "query_prompt", "item_prompt"})
    return context.stage(
        "tokens",
        f"{prefix}tokens",
        folder="tokens",
        inputs={"tables": tables.key, "base": base.figures["digest"], "encoder": encoder},
        work=lambda folder: tokenise(context, context.config, folder, tables, base),
    )


def _ingest_tables(config: Config, store: Store, folder: str, data: DatasetSettings | None = None) -> Outcome:
    wanted = data or config.data
    with _naming(wanted):
        return ingest_tables(config, wanted, sources(wanted), store, folder)


def in_worker(function: Any, context: Context, *arguments: Any) -> Outcome:
    """What `function` makes of the arguments, in a Ray task: models and tables stay out of the driver."""
    import ray

    remote = ray.remote(function).options(num_cpus=1, max_retries=context.config.cluster.retries)
    outcome: Outcome = ray.get(remote.remote(*arguments))
    return outcome


def _base_inputs(config: Config, tables: Commit, dimension: int | None, model: str | None) -> dict[str, Any]:
    encoder = config.encoder
    inputs: dict[str, Any] = {
        "encoder": encoder.model_dump() | {"model": model},
        "seed": config.rounds.seed,
        "dimension": dimension,
    }
    if encoder.kind == "static" and encoder.model is None:
        inputs["texts"] = tables.key
    return inputs


def tokenise(context: Context, config: Config, folder: str, tables: Commit, base: Commit) -> Outcome:
    """The tokens of all items and queries, as the model of `base` reads them.

    Args:
        config: its `encoder` says what kind of model it is; a teacher's is not the run's own.
    """
    import ray

    parts = [(table, part) for table in ("corpus", "queries") for part in tables.parts(table)]
    groups = [parts[start :: max(1, context.size.cpus)] for start in range(min(len(parts), context.size.cpus))]
    remote = ray.remote(tokenise_parts).options(num_cpus=1, max_retries=context.config.cluster.retries)
    results = ray.get([remote.remote(config, context.store, folder, base, group) for group in groups])
    written = [entry for result in results for entry in result]
    by_table = {
        table: sorted((part for name, part, _ in written if name == table), key=lambda part: part.first_row)
        for table in ("corpus", "queries")
    }
    count = {f"{table}_tokens": sum(tokens for name, _, tokens in written if name == table) for table in by_table}
    return Outcome(tables=by_table, figures=count)


def trains(context: Context) -> bool:
    """Whether training and evaluation are to follow, so that their settings must fit the data and the cluster."""
    return context.only is None or context.only.trains


def _check_pools(context: Context) -> None:
    """Raises ConfigError: a later stage asks for more than the cluster has. Better told before the data is read."""
    for pool in (embed_pool, search_pool, *([train_pool] if trains(context) else [])):
        pool(context.config.cluster, context.size)


def _check_counts(context: Context, tables: Commit) -> None:
    """What later stages would stop at, told before anything is embedded.

    Raises:
        ConfigError: more shards than items, or a batch larger than the training queries.
        DataError: no query that is to be measured has a relevant item.
    """
    config, figures = context.config, tables.figures
    plan_shards(figures["items"], shards=config.cluster.shards, actors=1, shard_rows=config.cluster.shard_rows)
    if context.only is not None:
        return
    ranks, queries = train_pool(config.cluster, context.size).count, figures["splits"]["train"]
    if config.training.batch_size * ranks > queries:
        if queries < 2 * ranks:
            raise DataError(
                f"expected at least {2 * ranks} training queries for {ranks} rank(s), found {queries}; label more "
                f"queries, or lower cluster.train_workers"
            )
        more = ", or take more of the training queries (data.train_fraction; of a probe probe.fraction)"
        raise ConfigError(
            f"training.batch_size = {config.training.batch_size} on each of {ranks} rank(s) is more than "
            f"the {queries} training queries; set it to {max(2, queries // ranks)} or less"
            f"{more if config.data.train_fraction < 1 else ''}"
        )
    lowest = config.data.relevant_from
    rule = "a score > 0" if lowest is None else f"a score of at least data.relevant_from = {lowest:g}"
    for split in sorted({"dev", config.evaluation.split}):
        if figures["with_positive"][split]:
            continue
        raise DataError(
            f'evaluation.split = "{split}" is to be measured, but of its {figures["splits"][split]} queries '
            f"none has a relevant item (a label with {rule}); label some, or measure another split"
        )


def _check_schema(context: Context, tables: Commit) -> None:
    config = context.config
    schema = read_schema(context.store, tables.parts("corpus")[0])
    check_rules(config.mining.rules, schema)
    check_confusion(config.mining, schema)
    check_popularity(config.mining.popularity, schema)
    if trains(context):
        check_slices(config.evaluation.slices, read_schema(context.store, tables.parts("queries")[0]), schema)
    column = config.evaluation.bad_top1_column
    if trains(context) and column is not None and column not in schema.names:
        known = [name for name in schema.names if name not in ("row", "text_code", "group_code", "vector")]
        raise ConfigError(
            f"evaluation.bad_top1_column: expected a column of the corpus, found {column!r}; it has {', '.join(known)}"
        )
