"""Stage 0: the user's data and base model become the run's own tables, tokens and model folder. Once per run."""

from __future__ import annotations

from typing import Any

from cluster.commits import Commit, Outcome
from cluster.errors import ConfigError, DataError
from cluster.session.resources import embed_pool, search_pool, train_pool
from cluster.storage.store import Store
from cluster.tables.tables import Part, read_schema
from jobs.config.config import Config
from jobs.config.data import SOURCES, DatasetSettings
from jobs.config.without_effect import without_effect
from jobs.record.stages import Kind, ModelName, Scope, Second, Stage
from jobs.stages.chosen import counted_ranks
from jobs.stages.context import Context, in_worker, size_for
from jobs.stages.evaluate.reranker.model import prepare_reranker
from jobs.stages.evaluate.slice_columns import check_slices
from jobs.stages.ingest.counts.counts import Counts, doubts, refuse_unfit
from jobs.stages.ingest.counts.forecast import forecast, measured_spread
from jobs.stages.ingest.counts.notes import data_lines, describe_equal_texts
from jobs.stages.ingest.data import ingest_tables
from jobs.stages.ingest.fingerprints import BESIDE, folder_fingerprint, naming_section, second_set, sources
from jobs.stages.ingest.histories import write_sequence
from jobs.stages.ingest.lookup.equal_texts import reads_vectors
from jobs.stages.ingest.models.base_model import make_base, tokenise_parts
from jobs.stages.ingest.models.second_model import make_teacher, reranker_of_run
from jobs.stages.ingest.models.teacher_server import ask_server, known_to, server_name
from jobs.stages.ingested import read_ingested
from mining.choice.attributes import check_popularity, check_rules
from mining.report.confusion import check_confusion
from mining.settings import TeacherSettings
from mining.teacher.agreement import Agreement, describe
from training.settings import EncoderSettings


def ingest(context: Context, stage: Stage) -> Commit:
    """The tables of the run's data, of the general set, or of the set that is mixed in.

    Raises:
        ConfigError: a setting does not fit the data or the cluster. DataError: what is wrong with the data.
    """
    config, beside = context.config, stage.scope in (Scope.GENERAL, Scope.MIX)
    sets: dict[Scope, DatasetSettings | None] = {Scope.GENERAL: config.evaluation.general, Scope.MIX: config.data.mix}
    data = sets.get(stage.scope, config.data)
    assert data is not None
    prints = context.prints[stage.scope] if beside else {k: v for k, v in context.prints.items() if k not in BESIDE}
    if not beside:
        _check_pools(context)
    settings = data.model_dump(exclude={*SOURCES, "mix", "share"})  # which change nothing of these tables
    inputs = {"data": prints, "settings": settings, "part_rows": config.cluster.part_rows}
    if config.encoder.kind == "sequence":
        inputs["histories"] = True
    if reads_vectors(config.encoder):
        inputs["vectors"] = True
    tables = context.commit(
        stage, inputs=inputs, work=lambda folder: in_worker(_ingest_tables, context, config, context.store, folder, data)
    )
    for line in [*data_lines(tables.figures, data.section), *describe_equal_texts(tables.figures["equal_texts"])]:
        context.progress.say(line)
    if beside:
        _check_beside(context, tables, data)
    else:
        _check_schema(context, tables)
        _check_counts(context, tables)
    return tables


def prepare_base(context: Context, stage: Stage) -> Commit:
    """The model that the run starts from.

    Raises:
        ConfigError: the model is missing, damaged or of a kind that is not run, or training.matryoshka does not fit it.
    """
    tables = context.need(Stage(Kind.INGEST))
    base = context.commit(
        stage,
        inputs=_base_inputs(context.config, tables, tables.figures["dimension"], context.prints["model"]),
        work=lambda folder: in_worker(make_base, context, context.config, context.store, folder, tables),
    )
    _check_matryoshka(context, base.figures["dimension"])
    return base


def prepare_sequence(context: Context, stage: Stage) -> Commit:
    """The run as a sequence encoder reads it: its untrained model, and histories and item rows as tokens."""
    config, data = context.config, read_ingested(context, as_sequence=False)
    vectors = context.need(Stage(Kind.EMBED)) if "prefix" in data.base.figures else data.tables

    def work(folder: str) -> Outcome:
        outcome: Outcome = in_worker(
            write_sequence, context, config, context.store, folder, data.corpus, data.queries, vectors.parts("corpus")
        )
        return outcome

    inputs = {
        "tables": data.tables.key,
        "vectors": vectors.key,
        "seed": config.rounds.seed,
        "encoder": config.encoder.model_dump(include={"hidden", "max_length"}),
    }
    return context.commit(stage, inputs=inputs, work=work)


def prepare_second(context: Context, stage: Stage) -> Commit:
    """A model beside the retriever: the teacher's, the guide's or the re-ranker's.

    Raises:
        ConfigError: the model is missing, damaged or of another kind.
    """
    assert isinstance(stage.of, Second)
    if stage.of is Second.RERANKER:
        return prepare_reranker(context, stage)
    settings, section = second_settings(context.config, stage.of)
    if settings.served:
        return _ask_server(context, stage, settings)
    if settings.kind == "reranker":
        model = reranker_of_run(str(settings.model), context.config.storage)
        settings = settings.model_copy(update={"model": model, "max_length": None})
    inputs = {"model": folder_fingerprint(settings.model), "kind": settings.kind, "max_length": settings.max_length}
    return context.commit(
        stage,
        inputs=inputs,
        work=lambda folder: in_worker(make_teacher, context, context.config, context.store, folder, settings, section),
    )


def _ask_server(context: Context, stage: Stage, settings: TeacherSettings) -> Commit:
    """A teacher that a server has."""
    tables, seed = context.need(Stage(Kind.INGEST)), context.config.rounds.seed
    known = known_to(settings, context.store, tables, seed)
    inputs = server_name(settings) | ({"tables": tables.key, "seed": seed} if known else {})
    # in a worker, which needs the key later on
    asked = context.commit(stage, inputs=inputs, work=lambda _: in_worker(ask_server, context, settings, known))
    if known is not None:
        context.progress.say(f"  {describe(Agreement(**asked.figures['agreement']))}")
    return asked


def second_settings(config: Config, second: Second) -> tuple[TeacherSettings, str]:
    """(a second model's settings, the section of the configuration that names it)."""
    if second is Second.TEACHER:
        assert config.mining.teacher is not None
        return config.mining.teacher, "mining.teacher"
    assert config.training.guide is not None
    assert config.training.guide.model is not None
    return TeacherSettings(model=config.training.guide.model, kind="encoder"), "training.guide"


def tokenise(context: Context, stage: Stage) -> Commit:
    """The tokens of a data set, as the base model or a second model reads them."""
    config = context.config
    tables = context.need(Stage(Kind.INGEST, scope=stage.scope))
    if isinstance(stage.of, Second):
        base = context.need(Stage(Kind.MODEL, stage.of))
        encoder = EncoderSettings(kind=base.figures["encoder"], model=base.figures["prefix"])
        inputs = {"tables": tables.key, "base": base.figures["digest"]}
    else:
        base, encoder = context.need(Stage(Kind.BASE)), config.encoder
        shown = encoder.model_dump(include={"kind", "query_prompt", "item_prompt"})
        inputs = {"tables": tables.key, "base": base.figures["digest"], "encoder": shown}
    as_model = config.model_copy(update={"encoder": encoder})
    return context.commit(stage, inputs=inputs, work=lambda folder: _tokenise(context, as_model, folder, tables, base))


def _ingest_tables(config: Config, store: Store, folder: str, data: DatasetSettings) -> Outcome:
    with naming_section(data):
        return ingest_tables(config, data, sources(data), store, folder)


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


def _tokenise(context: Context, config: Config, folder: str, tables: Commit, base: Commit) -> Outcome:
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
    tables_of: dict[str, list[Part]] = {}
    figures: dict[str, int] = {}
    for table in ("corpus", "queries"):
        own = sorted((entry for entry in written if entry.table == table), key=lambda entry: entry.part.first_row)
        tables_of[table] = [entry.part for entry in own]
        blank = sum(entry.blank for entry in own)
        figures |= {f"{table}_tokens": sum(entry.tokens for entry in own), f"{table}_blank": blank}
        if blank and (table == "corpus" or config.encoder.kind != "sequence"):  # whose queries are histories
            first = next(entry.first_blank for entry in own if entry.blank)
            _report_blank(context, table, blank, tables.rows(table), first)
    return Outcome(tables=tables_of, figures=figures)


def _report_blank(context: Context, table: str, blank: int, rows: int, first: str | None) -> None:
    """Raises DataError: the model reads none of the texts."""
    what = {"corpus": "items", "queries": "queries"}[table]
    text = (
        f"{blank:,} of {rows:,} {what} have a text of which the model reads nothing (only white space, control "
        f"characters, or words that it does not know), the first with the id {first!r}"
    )
    if blank == rows:
        raise DataError(f"{text}; give an encoder.model for the language of these texts, or mend the text template of [data]")
    context.progress.say(f"! {text}. They count as empty texts: their vectors say nothing of them. Leave them out, or mend them")


def _check_matryoshka(context: Context, dimension: int | None) -> None:
    """Raises ConfigError: a length of training.matryoshka that the model's vectors do not have."""
    lengths = context.config.training.matryoshka
    if context.trains and dimension is not None and lengths and max(lengths) > dimension:
        raise ConfigError(
            f"training.matryoshka = {lengths}: the vectors of this model have {dimension} dimensions, and no first "
            f"{max(lengths)}; take out what is above {dimension}"
        )


def _check_pools(context: Context) -> None:
    """Raises ConfigError: a later stage asks for more than the cluster has. Better told before the data is read."""
    config, size, last = context.config, context.size, ModelName(context.config.rounds.mined)
    mining = size_for(config, Stage(Kind.MINE, last), size) if context.trains else size
    for pool in (embed_pool, search_pool):
        pool(config.cluster, mining)
    if context.trains:
        train_pool(config.cluster, size_for(config, Stage(Kind.TRAIN, last), size))


def _check_counts(context: Context, tables: Commit) -> None:
    """What later stages would stop at, and what would make their figures meaningless, told before anything is embedded.

    Raises:
        ConfigError, DataError: as `refuse_unfit`.
    """
    config, trains = context.config, context.trains
    size = size_for(config, Stage(Kind.TRAIN), context.size)
    ranks = counted_ranks(context, train_pool(config.cluster, size).count) if trains else 1
    counts = Counts.of(tables.figures, ranks)
    refuse_unfit(config, counts, trains=trains)
    idle = [] if config.derived else without_effect(config, trains=trains)
    for warning in [*idle, *doubts(config, counts, trains=trains)]:
        context.progress.say(f"! {warning}")
    if trains:
        spread = measured_spread(context.store, context.ledger, config.evaluation.primary)
        for line in forecast(config, counts, spread).lines():
            context.progress.say(line)


def _check_schema(context: Context, tables: Commit) -> None:
    config = context.config
    schema = read_schema(context.store, tables.parts("corpus")[0])
    check_rules(config.mining.rules, schema)
    check_confusion(config.mining, schema)
    check_popularity(config.mining.popularity, schema)
    if context.trains:
        check_slices(config.evaluation.slices, read_schema(context.store, tables.parts("queries")[0]), schema)
    column = config.evaluation.bad_top1_column
    if context.trains and column is not None and column not in schema.names:
        known = [name for name in schema.names if name not in ("row", "text_code", "group_code", "vector")]
        raise ConfigError(
            f"evaluation.bad_top1_column: expected a column of the corpus, found {column!r}; it has {', '.join(known)}"
        )


def _check_beside(context: Context, tables: Commit, data: DatasetSettings) -> None:
    """Raises DataError: the encoder cannot read the general set, or the one that is mixed in."""
    figures, called = tables.figures, second_set(data)
    count = figures["splits"][data.splits[0]]
    context.progress.say(f"  {called}: {count:,} labelled queries among {figures['items']:,} items")
    wanted = context.need(Stage(Kind.INGEST)).figures["dimension"]
    if read_ingested(context).tokens is None and figures["dimension"] != wanted:
        vectors = "none" if figures["dimension"] is None else f"vectors of {figures['dimension']} numbers"
        raise DataError(
            f"the {called}: the encoder reads vectors of {wanted} numbers, so corpus and queries need a `vector` column "
            f"of that length, found {vectors}; make them with the model that made the run's, or take [{data.section}] out"
        )
