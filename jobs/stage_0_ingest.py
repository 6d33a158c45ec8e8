"""Stage 0: the user's data and base model become the run's own tables, tokens and model folder. Once per run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Outcome
from cluster.errors import ConfigError, DataError
from cluster.folders import fetch_folder, folder_digest, upload_folder
from cluster.storage import Store
from cluster.tables import Part, read_part, write_part
from jobs.config import Config, DataSettings
from jobs.context import Context
from jobs.ingest_tables import (
    Written,
    assign_splits,
    read_labels,
    stable_code,
    write_labels,
    write_texts,
)
from jobs.sources import Chunk, fingerprint, read_chunks
from jobs.templates import Template
from mining.attributes import check_rules
from training.settings import EncoderSettings

SAMPLE_TEXTS = 200_000
"""Texts that a new tokenizer is trained on at most."""


@dataclass(frozen=True)
class Ingested:
    """What later stages read."""

    tables: Commit
    base: Commit
    tokens: Commit | None
    """None: the data has vectors, nothing is tokenised."""
    dimension: int | None
    """Length of the data's own vectors; None: it has none."""

    @property
    def corpus(self) -> list[Part]:
        """Corpus table."""
        return self.tables.parts("corpus")

    @property
    def queries(self) -> list[Part]:
        """Query table."""
        return self.tables.parts("queries")

    @property
    def labels(self) -> list[Part]:
        """Label table."""
        return self.tables.parts("labels")


def sources(data: DataSettings) -> dict[str, list[tuple[str, str | None]]]:
    """Table -> (address, the split its file stands for)."""
    if data.folder is None:
        assert data.corpus and data.queries and data.qrels
        return {"corpus": [(data.corpus, None)], "queries": [(data.queries, None)], "labels": [(data.qrels, None)]}
    root = data.folder.rstrip("/")
    return {"corpus": [(f"{root}/corpus.jsonl", None)], "queries": [(f"{root}/queries.jsonl", None)],
            "labels": [(f"{root}/qrels/{split}.tsv", split) for split in ("train", "dev", "test")]}


def fingerprints(config: Config) -> dict[str, Any]:
    """Source file -> what tells its content apart, for every file of the data.

    Raises:
        DataError: a file is missing.
    """
    found: dict[str, Any] = {}
    for table, places in sources(config.data).items():
        for url, split in places:
            try:
                found[f"{table}:{split or 'all'}"] = fingerprint(url, config.storage)
            except DataError:
                if config.data.folder is None or split in (None, "train"):  # BEIR: dev and test may be missing
                    raise
    return found


def ingest(context: Context, prints: dict[str, Any]) -> Ingested:
    """Run the three parts of stage 0: tables, base model, tokens."""
    config = context.config
    tables = context.stage(
        "ingest", "ingest", folder="tables",
        inputs={"data": prints, "settings": config.data.model_dump(exclude={"corpus", "queries", "qrels", "folder"}),
                "part_rows": config.cluster.part_rows},
        work=lambda folder: _in_worker(_ingest_tables, context, config, context.store, folder),
    )
    _check_schema(context.store, config, tables)
    dimension = tables.figures["dimension"]
    base = context.stage(
        "base", "base", folder="base", inputs=_base_inputs(config, tables, dimension),
        work=lambda folder: _in_worker(make_base, context, config, context.store, folder, tables),
    )
    if config.encoder.kind == "adapter" and config.encoder.model is None:
        return Ingested(tables, base, None, dimension)
    tokens = context.stage(
        "tokens", "tokens", folder="tokens", inputs={"tables": tables.key, "base": base.figures["digest"],
                                                     "encoder": config.encoder.model_dump(include={
                                                         "kind", "query_prompt", "item_prompt"})},
        work=lambda folder: _tokenise(context, folder, tables, base),
    )
    return Ingested(tables, base, tokens, dimension)


def _in_worker(function: Any, context: Context, *arguments: Any) -> Outcome:
    import ray

    remote = ray.remote(function).options(num_cpus=1, max_retries=context.config.cluster.retries)
    outcome: Outcome = ray.get(remote.remote(*arguments))
    return outcome


def _base_inputs(config: Config, tables: Commit, dimension: int | None) -> dict[str, Any]:
    encoder = config.encoder
    inputs: dict[str, Any] = {"encoder": encoder.model_dump(), "seed": config.rounds.seed, "dimension": dimension}
    if encoder.kind == "static" and encoder.model is None:
        inputs["texts"] = tables.key
    return inputs


def _tokenise(context: Context, folder: str, tables: Commit, base: Commit) -> Outcome:
    import ray

    parts = [(table, part) for table in ("corpus", "queries") for part in tables.parts(table)]
    groups = [parts[start::max(1, context.size.cpus)] for start in range(min(len(parts), context.size.cpus))]
    remote = ray.remote(tokenise_parts).options(num_cpus=1, max_retries=context.config.cluster.retries)
    results = ray.get([remote.remote(context.config, context.store, folder, base, group) for group in groups])
    written = [entry for result in results for entry in result]
    by_table = {table: sorted((part for name, part, _ in written if name == table), key=lambda part: part.first_row)
                for table in ("corpus", "queries")}
    count = {f"{table}_tokens": sum(tokens for name, _, tokens in written if name == table) for table in by_table}
    return Outcome(tables=by_table, figures=count)


def _check_schema(store: Store, config: Config, tables: Commit) -> None:
    import io

    import pyarrow.parquet as pq

    schema = pq.read_schema(io.BytesIO(store.read_bytes(tables.parts("corpus")[0].path)))
    check_rules(config.mining.rules, schema)
    column = config.evaluation.bad_top1_column
    if column is not None and column not in schema.names:
        raise ConfigError(f"evaluation.bad_top1_column: the corpus has no column {column!r}; it has "
                          f"{', '.join(schema.names)}")


# ---------------------------------------------------------------------------------------------------------------------
# in workers


def _ingest_tables(config: Config, store: Store, folder: str) -> Outcome:
    data, part_rows = config.data, config.cluster.part_rows
    reader = _Reader(config)
    corpus = write_texts(reader.chunks("corpus"), store, f"{folder}/corpus", what="items", columns=data.columns,
                         template=Template(data.item_text, "data.item_text"), part_rows=part_rows, extra=_group_codes,
                         source=reader.places("corpus"))
    splits: list[str | None] = []

    def keep_splits(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
        splits.extend(split_column(table, chunk))
        return {"item_row": _item_rows(table, chunk, corpus)}

    queries = write_texts(reader.chunks("queries"), store, f"{folder}/queries-unsplit", what="queries",
                          columns=data.columns, template=Template(data.query_text, "data.query_text"),
                          part_rows=part_rows, extra=keep_splits, source=reader.places("queries"))
    if corpus.dimension != queries.dimension:
        raise DataError(f"the corpus has {_describe(corpus.dimension)}, the queries have {_describe(queries.dimension)}; "
                        f"both need a `vector` column of the same length, or neither")
    labels = read_labels(reader.labels(), queries.ids, corpus.ids, data.columns)
    reader.refuse_unknown_columns()
    assigned, notes = assign_splits(splits, labels, queries.ids, data.dev_fraction)
    notes |= _check_positives(assigned, labels, queries, data)
    query_parts = _write_splits(store, f"{folder}/queries", queries.parts, assigned)
    label_parts, repeated = write_labels(labels, store, f"{folder}/labels")
    relevant = Counter(assigned[row] for row in set(labels.relevant.tolist()))
    return Outcome(
        tables={"corpus": corpus.parts, "queries": query_parts, "labels": label_parts},
        figures={"items": len(corpus.ids), "queries": len(queries.ids), "labels": len(labels.scores),
                 "repeated_labels": repeated, "splits": {split: assigned.count(split) for split in (*SPLITS, "none")},
                 "with_positive": {split: relevant[split] for split in SPLITS}, "dimension": corpus.dimension,
                 "judged_irrelevant": int((labels.scores == 0).sum()), **notes},
    )


class _Reader:
    """The data's chunks, and which columns they have."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._sources = sources(config.data)
        self._seen: set[str] = set()

    def places(self, table: str) -> str:
        """The addresses of a table, for messages."""
        return ", ".join(url for url, _ in self._sources[table])

    def chunks(self, table: str) -> Iterator[Chunk]:
        for url, _ in self._sources[table]:
            for chunk in read_chunks(url, self._config.storage):
                self._seen.update(chunk.table.column_names)
                yield chunk

    def labels(self) -> Iterator[tuple[Chunk, str | None]]:
        for url, split in self._sources["labels"]:
            try:
                for chunk in read_chunks(url, self._config.storage):
                    self._seen.update(chunk.table.column_names)
                    yield chunk, split
            except DataError:
                if split in (None, "train"):
                    raise
                if Store(url.rpartition("/")[0], self._config.storage).exists(url.rpartition("/")[2]):
                    raise

    def refuse_unknown_columns(self) -> None:
        for ours, theirs in self._config.data.columns.items():
            if theirs not in self._seen:
                close = difflib.get_close_matches(theirs, self._seen, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"they have {', '.join(sorted(self._seen))}"
                raise ConfigError(f"data.columns.{ours}: expected a column of the data, found {theirs!r}, which none of "
                                  f"the tables has; {hint}")


def _describe(dimension: int | None) -> str:
    return "no vectors" if dimension is None else f"vectors of {dimension} numbers"


def _group_codes(table: pa.Table, chunk: Chunk) -> dict[str, pa.Array]:
    values = [None] * table.num_rows
    if "group" in table.column_names:
        if pa.types.is_nested(table["group"].type):
            raise DataError(f"{chunk.file}: column 'group' should hold one text or number per item, found "
                            f"{table['group'].type}; rename it if it is something else")
        values = table["group"].cast(pa.string()).to_pylist()
    return {"group_code": pa.array([stable_code(value) if value else -1 for value in values], pa.int64())}


def _item_rows(table: pa.Table, chunk: Chunk, corpus: Written) -> pa.Array:
    if "item_id" not in table.column_names:
        return pa.array(np.full(table.num_rows, -1, np.int64))
    if pa.types.is_nested(table["item_id"].type):
        raise DataError(f"{chunk.file}: column 'item_id' should hold the one item that the query is, found "
                        f"{table['item_id'].type}; relevant items belong into the labels")
    ids = table["item_id"].cast(pa.string())
    rows = pc.index_in(ids, value_set=corpus.ids)
    unknown = pc.and_(pc.is_null(rows), pc.is_valid(ids)).to_numpy()
    if unknown.any():
        where = int(np.flatnonzero(unknown)[0])
        raise DataError(f"{chunk.file}, row {chunk.first_row + where}: the query says it is item {ids[where].as_py()!r}, "
                        f"which is not in the corpus; {int(unknown.sum())} row(s) of this chunk do. Correct `item_id`, or "
                        f"add the items")
    return pc.fill_null(rows, -1).cast(pa.int64()).combine_chunks()


def _check_positives(splits: list[str], labels: LabelRows, queries: Written, data: DataSettings) -> dict[str, int]:
    relevant = set(labels.relevant.tolist())
    notes = {"dev_queries_without_positive": sum(split == "dev" and row not in relevant for row, split in enumerate(splits))}
    if "train" not in splits:
        raise DataError(f"expected queries of the train split, found {_counts(splits)}; say split = \"train\" for some in the "
                        f"queries or the labels")
    without = [row for row, split in enumerate(splits) if split == "train" and row not in relevant]
    if not without:
        return notes
    if not data.skip_queries_without_positive:
        raise DataError(f"{len(without)} training queries have no relevant item (a label with score > 0), the first is "
                        f"{queries.ids[without[0]].as_py()!r}; label them, remove them, or set "
                        f"data.skip_queries_without_positive = true to leave them out")
    if len(without) == splits.count("train"):
        raise DataError(f"none of the {len(without)} training queries has a relevant item (a label with score > 0); check the "
                        f"scores in the labels")
    for row in without:
        splits[row] = "none"
    return notes | {"train_queries_skipped": len(without)}


def _counts(splits: list[str]) -> str:
    return ", ".join(f"{count} of {split}" for split, count in Counter(splits).items() if split != "none") or \
        "none with a label or a split"


def _write_splits(store: Store, folder: str, parts: list[Part], splits: list[str]) -> list[Part]:
    written = []
    for part in parts:
        table = read_part(store, part.path)
        if "split" in table.column_names:
            table = table.drop_columns(["split"])
        own = pa.array(splits[part.first_row : part.first_row + part.rows], pa.string())
        name = part.path.rsplit("/", 1)[-1]
        written.append(write_part(store, f"{folder}/{name}", table.append_column("split", own), first_row=part.first_row))
        store.delete(part.path)
    return written
