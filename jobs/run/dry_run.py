"""`hardmine run --dry-run`: what would run, what it can show, what it costs, the settings as they hold. Writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from cluster.commits import Commit
from cluster.errors import ConfigError, DataError
from cluster.session.resources import ClusterSize, PoolSize, search_pool, train_pool
from cluster.storage.usage import Used
from jobs.config.config import Config
from jobs.config.data import DatasetSettings
from jobs.config.without_effect import reads_texts, without_effect
from jobs.record.stages import Kind, Stage
from jobs.run.driver import open_run
from jobs.run.expected_usage import Sizes, expected_copy, expected_ingest, parts_of
from jobs.run.peek import Peek, peek
from jobs.run.resolved import resolved, set_settings
from jobs.run.scale import Work, gets, memory, puts, read, stored
from jobs.stages.context import size_for
from jobs.stages.ingest.counts.counts import Counts, doubts, refuse_unfit
from jobs.stages.ingest.counts.forecast import Forecast, forecast, measured_spread
from jobs.stages.ingest.counts.quick_counts import about_rows, existing, file_bytes, quick_counts, readable
from jobs.stages.ingest.fingerprints import sources
from jobs.stages.ingest.lookup.equal_texts import reads_vectors
from jobs.stages.ingest.models.base_model import refuse_no_vectors
from jobs.stages.ingest.models.known_models import local_folder, models_elsewhere, vector_length
from jobs.stages.ingest.reading.slices import slice_source
from jobs.stages.ingest.reading.vectors import first_dimension, refuse_other_vectors
from mining.search.how import SMALL_PRODUCTS

SHORT_TEXT_TOKENS = 128
"""Assumed tokens per item, before anything is tokenised."""
ASSUMED_DIMENSION = 768
"""Length of the vectors of a base-sized model, assumed where the model is not on this machine."""


def make_plan(config: Config) -> dict[str, Any]:
    """The resolved configuration, the stages with what is kept, a forecast, and estimates of rows, memory and disk.

    Data that is ingested already is not read again. Else the label and query files are read, if they are not too large
    (`quick_counts.readable`); of the corpus only rows are counted, which is cheap in Parquet.

    Raises:
        ConfigError, DataError, ClusterError: a run would be refused too.
    """
    store, prints = open_run(config, writes=False)
    stages, context = peek(config, store, prints)
    ingested = context.done.get(Stage(Kind.INGEST))
    rows = _rows(config.data, config) if ingested is None else {name: ingested.rows(name) for name in ("corpus", "queries")}
    rows.setdefault("labels", int(ingested.figures["labels"]) if ingested else 0)
    warnings = [] if ingested else without_effect(config)
    warnings += models_elsewhere(config) if Stage(Kind.BASE) not in context.done else []
    of_data = _data_dimension(config) if ingested is None else ingested.figures["dimension"]
    dimension = _dimension(config, context, of_data)
    sizes = _sizes(config, rows)
    work = _work(config, rows, context.size, dimension or ASSUMED_DIMENSION, sizes)
    expected, why_not = _forecast(config, context, ingested, rows["corpus"], warnings)
    return {
        "config": json.loads(config.model_dump_json()),
        "set": set_settings(config),
        "resolved": resolved(config, context.size),
        "warnings": warnings,
        "rows": rows,
        "general_rows": _rows(config.evaluation.general, config) if config.evaluation.general else None,
        "dimension": dimension,
        "stages": [asdict(stage) for stage in stages],
        "forecast": expected.as_json() if expected else None,
        "forecast_lines": [line for line in expected.lines() if not line.startswith("!")] if expected else [f"  {why_not}"],
        "estimates": _estimates(config, work),
        "expected": {name: asdict(used) for name, used in _expected(config, sizes, of_data).items()},
        "requests": gets(work) | puts(work),
        "reads": read(work),
    }


def _forecast(
    config: Config, context: Peek, ingested: Commit | None, items: int, warnings: list[str]
) -> tuple[Forecast | None, str | None]:
    """(the forecast, None: the data is too large to be read for it; why not). Adds what a run would warn of to `warnings`."""
    why_not = readable(config) if ingested is None else None
    if why_not:
        return None, why_not
    try:
        ranks = train_pool(config.cluster, size_for(config, Stage(Kind.TRAIN), context.size)).count
    except ConfigError:  # a cluster that is elsewhere has more than this machine
        ranks = config.cluster.train_workers or 1
    counts = Counts.of(ingested.figures if ingested else quick_counts(config, items), ranks)
    try:
        refuse_unfit(config, counts, trains=True)
    except (ConfigError, DataError) as refused:  # equal texts, which are not looked at here, may change a count
        return None, f"by its labels and queries the run will be refused: {refused}"
    spread = measured_spread(context.store, context.ledger, config.evaluation.primary)
    expected = forecast(config, counts, spread)
    if ingested:  # the stage itself has said it
        warnings += [line.removeprefix("! ") for line in context.said if line.startswith("! ")]
    else:
        warnings += [*doubts(config, counts, trains=True), *expected.warnings]
    return expected, None


def _estimates(config: Config, work: Work) -> dict[str, int]:
    """Bytes of memory and disk; `jobs.run.scale` has the formulas."""
    general = _rows(config.evaluation.general, config) if config.evaluation.general else {"corpus": 0, "queries": 0}
    trained = config.rounds.mined + bool(config.rounds.warmup_epochs) + len(config.rounds.merge)
    general_vectors = (general["corpus"] + general["queries"]) * work.dimension * work.vector_bytes * (1 + trained)
    own = stored(work)
    of_all = own["vectors_per_model_bytes"] * (2 + trained + config.rounds.compare_random) + general_vectors
    return own | {"vectors_all_models_bytes": of_all} | memory(work)


def _work(config: Config, rows: dict[str, int], size: ClusterSize, dimension: int, sizes: Sizes) -> Work:
    cluster, mining, training = config.cluster, config.mining, config.training
    try:
        pool = search_pool(cluster, size)
    except ConfigError:  # a cluster that is elsewhere has more than this machine
        pool = PoolSize(cluster.actors or 1, 1, 0)
    nodes = min(pool.count, size.nodes)
    return Work(
        items=rows["corpus"],
        queries=rows["queries"],
        labels=rows["labels"],
        dimension=dimension,
        num_hits=mining.num_hits,
        num_negatives=mining.num_negatives,
        block=cluster.query_block,
        part_rows=-(-rows["corpus"] // parts_of(sizes, cluster.part_rows)) or 1,
        nodes=nodes,
        actors_per_node=-(-pool.count // nodes),
        node_memory=size.node_memory,
        gpu=bool(pool.gpus),
        cpus=size.cpus,
        vector_bytes=2 if mining.embedding_dtype == "float16" else 4,
        feature_bytes=SHORT_TEXT_TOKENS * 4 if reads_texts(config) and config.encoder.kind != "adapter" else None,
        shards=cluster.shards,
        rules=len({rule.column for rule in mining.rules}),
        weighted=mining.popularity is not None,
        counted=mining.max_uses is not None,
        hard=training.hard_negatives if config.rounds.mined else 0,
        random=training.random_negatives(mined=bool(config.rounds.mined)),
        epochs=training.epochs,
        mode=_mode(config, rows, gpu=bool(pool.gpus)),
        lists=mining.search.lists,
    )


def _mode(config: Config, rows: dict[str, int], *, gpu: bool) -> str:
    """The search's mode. What "auto" takes is measured only then: of those it may take, the one that reads most."""
    mode = config.mining.search.mode
    if mode != "auto":
        return mode
    return "exact" if gpu or rows["corpus"] * rows["queries"] < SMALL_PRODUCTS else "ivf"


def _sizes(config: Config, rows: dict[str, int]) -> Sizes:
    wanted = sources(config.data)
    urls = {table: existing(wanted, table, config.data, config.storage) for table in wanted}
    corpus = [slice_source(url, config.storage) for url in urls["corpus"]]
    slices = [part for each in corpus for part in each.slices]
    about = -(-rows["corpus"] // max(1, len(slices)))
    return Sizes(
        items=rows["corpus"],
        queries=rows["queries"],
        item_bytes=sum(file_bytes(url, config.storage) for url in urls["corpus"]),
        unpacked_bytes=sum(each.bytes for each in corpus),
        row_bytes=max(each.row_bytes for each in corpus),
        slice_rows=tuple(about if part.rows is None else part.rows for part in slices),
        query_bytes=sum(file_bytes(url, config.storage) for url in urls["queries"]),
        label_bytes=sum(file_bytes(url, config.storage) for url in urls["labels"]),
        text_files=any(part.rows is None for part in slices),
    )


def _expected(config: Config, sizes: Sizes, dimension: int | None) -> dict[str, Used]:
    """Requests, bytes and memory of the first stages."""
    most, expected = config.cluster.part_rows, {"ingest": expected_ingest(sizes, config.cluster.part_rows)}
    if reads_vectors(config.encoder) and dimension is not None:
        size = 2 if config.mining.embedding_dtype == "float16" else 4
        expected["embed"] = expected_copy(sizes, most, dimension, size)
    return expected


def _rows(data: DatasetSettings, config: Config) -> dict[str, int]:
    """Rows of each table. A BEIR folder need not have every split."""
    wanted = sources(data)
    return {
        table: sum(about_rows(url, config.storage)[0] for url in existing(wanted, table, data, config.storage))
        for table in wanted
    }


def _data_dimension(config: Config) -> int | None:
    """Length of the vectors that come with the data, by its first rows; None: it has none. Raises DataError as a run would."""
    lengths = {
        what: first_dimension(sources(config.data)[table][0][0], config.storage, config.data.columns, what)
        for table, what in (("corpus", "items"), ("queries", "queries"))
    }
    if config.encoder.kind != "sequence":  # a history has no vector of its own
        refuse_other_vectors(lengths["items"], lengths["queries"])
    return lengths["items"]


def _dimension(config: Config, context: Peek, of_data: int | None) -> int | None:
    """Length of the vectors that are searched; None: it is known only once the model is read."""
    encoder, base = config.encoder, context.done.get(Stage(Kind.BASE))
    if base is not None:
        return int(base.figures["dimension"])
    if reads_vectors(encoder):
        refuse_no_vectors(encoder, of_data)
        return of_data
    if encoder.model is None:
        return encoder.dimension
    folder = local_folder(encoder.model)
    return None if folder is None else vector_length(folder)
