"""Which table holds the items, which the queries and which the labels, and what their columns mean: pure.

Names decide first; where several columns could be an id, the one whose values the labels name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from jobs.init.found_tables import FILES, Folder, FoundTable
from jobs.stages.ingest.reading.chunk import SCORE_NAMES
from jobs.stages.ingest.reading.values import as_texts, one_array

OWN_IDS = ("id", "_id")
QUERY_IDS = ("query_id", "query-id", "qid", "queryid", "question_id", "search_id", "topic_id")
ITEM_IDS = (
    *("item_id", "corpus-id", "corpus_id", "itemid", "doc_id", "docid", "document_id", "product_id", "productid", "pid"),
    *("passage_id", "article_id", "answer_id", "book_id", "movie_id", "asin", "sku"),
)
TITLES = ("title", "name", "product_title", "product_name", "headline", "heading")
BODIES = (
    "text",
    "description",
    "product_description",
    "body",
    "content",
    "contents",
    "passage",
    "document",
    "abstract",
    "answer",
)
QUERY_TEXTS = ("text", "query", "question", "search_term", "search", "keyword", "keywords", "utterance", "title")
VECTORS = ("vector", "embedding", "embeddings", "vectors", "emb")
SPLIT_COLUMNS = ("split", "set", "fold", "partition")
PAIRS = {"anchor", "positive", "sentence1", "sentence2", "pos", "neg"}
USUAL = {"_id": "id", "query-id": "query_id", "corpus-id": "item_id"}
"""Names that ingest understands without data.columns."""
EXPECTED = (
    "a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/train.tsv), or three tables as Parquet, JSONL, CSV or TSV: "
    "items (id, text), queries (id, text) and labels (query_id, item_id, score)"
)


@dataclass(frozen=True)
class Roles:
    """The three tables, and [data] but for addresses."""

    items: FoundTable
    queries: FoundTable
    labels: FoundTable
    columns: Mapping[str, str]
    """Our column name -> the name it has in the data, where that is not understood by itself."""
    item_fields: Sequence[str]
    """Columns that hold an item's title and text; none: there is no text, only vectors."""
    query_fields: Sequence[str]
    unused: Sequence[str] = field(default=())
    """Other tables in the folder."""


def find_roles(folder: Folder) -> Roles:
    """What each table of the folder is.

    Raises:
        DataError: one is missing, or its columns cannot be named; says what is there and what was expected.
    """
    labels = _first(_labels(folder.tables), "labels")
    rest = [table for table in folder.tables if table is not labels]
    queries = _first([table for table in rest if _is_like("queries", table)] or _by_columns(rest, QUERY_IDS), "queries")
    items = _first([table for table in rest if table is not queries and _has_id(table) and _is_like("items", table)], "items")
    left = [table for table in rest if table not in (queries, items) and _has_id(table)]
    if items is None and len(left) == 1:
        items = left[0]
    elif queries is None and len(left) == 1:
        queries = left[0]
    if labels is None or queries is None or items is None:
        named = {"items": items, "queries": queries, "labels": labels}
        raise DataError(
            f"{folder.url}: expected {EXPECTED}; found {folder.described}; missing: "
            f"{', '.join(role for role, table in named.items() if table is None)}. {_hint(folder)}"
        )
    others = [table.name for table in folder.tables if table not in (items, queries, labels)]
    return Roles(
        items=items,
        queries=queries,
        labels=labels,
        columns=_columns(items, queries, labels),
        item_fields=_item_fields(items),
        query_fields=_named(queries, QUERY_TEXTS)[:1] or _longest(queries)[:1],
        unused=others,
    )


def _labels(tables: Iterable[FoundTable]) -> list[FoundTable]:
    """Tables that name a query and an item in each row, and hold no text of a query."""
    return [
        table
        for table in tables
        if _named(table, QUERY_IDS) and _named(table, ITEM_IDS) and not _named(table, ("query", "text", "question"))
    ]


def _is_like(role: str, table: FoundTable) -> bool:
    return bool(FILES[role].search(table.name.lower()))


def _by_columns(tables: Iterable[FoundTable], names: Sequence[str]) -> list[FoundTable]:
    return [table for table in tables if _named(table, names) and not _named(table, ITEM_IDS)]


def _has_id(table: FoundTable) -> bool:
    return bool(_named(table, (*OWN_IDS, *ITEM_IDS, *QUERY_IDS)))


def _first(tables: Sequence[FoundTable], role: str) -> FoundTable | None:
    """The one that is named best: as its role, else of the training split, else the first."""

    def order(table: FoundTable) -> tuple[bool, bool, bool, str]:
        name = table.name.lower()
        return not FILES[role].search(name), bool(re.search(r"dev|test|val", name)), "train" not in name, name

    return min(tables, key=order, default=None)


def _named(table: FoundTable, names: Sequence[str]) -> list[str]:
    """The table's columns of these names, in their order; upper and lower case are alike."""
    lower = {column.strip().lower(): column for column in reversed(table.columns)}
    return [lower[name] for name in names if name in lower]


def _hint(folder: Folder) -> str:
    columns = {column.lower() for table in folder.tables for column in table.columns}
    names = " ".join(folder.others)
    if folder.inner:
        return f"The tables seem to be in {folder.inner[0]}/: `hardmine init {folder.url}/{folder.inner[0]}`"
    if columns & PAIRS:
        return (
            "These look like pairs for sentence-transformers: write each text once, with an id, into the items or the queries, "
            "and each pair of ids into the labels (docs/data.md has the ten lines)"
        )
    if ".npy" in names or ".npz" in names:
        return "Vectors belong into a column `vector` of items and queries (docs/api-vectors.md)"
    if ".arrow" in names or any(".arrow" in other for other in folder.others):
        return "This looks like a folder of `datasets`: write it with `dataset.to_parquet`"
    if {"query", "query_id"} <= columns:
        return "If one table holds queries and labels, write each query once into a table of its own"
    return "Name the files after what they hold and the columns as above, or write the configuration by hand (docs/data.md)"


def _columns(items: FoundTable, queries: FoundTable, labels: FoundTable) -> dict[str, str]:
    """data.columns. Raises DataError: queries and items have ids of two other names, which it cannot say."""
    query_id, item_id = _named(labels, QUERY_IDS)[0], _named(labels, ITEM_IDS)[0]
    own_item = _id_of(items, ITEM_IDS, labels, item_id)
    own_query = _id_of(queries, QUERY_IDS, labels, query_id)
    columns = {
        ours: theirs for ours, theirs in (("query_id", query_id), ("item_id", item_id)) if USUAL.get(theirs, theirs) != ours
    }
    unlike = [own for own, known in ((own_item, item_id), (own_query, query_id)) if own not in (*OWN_IDS, known)]
    if len(set(unlike)) > 1:
        raise DataError(
            f"the ids are called {own_item!r} in {items.name} and {own_query!r} in {queries.name}, but {item_id!r} and "
            f"{query_id!r} in {labels.name}; call the columns of each table `id`, or as the labels do"
        )
    if unlike:
        columns["id"] = unlike[0]
    elif own_item == item_id and "id" in items.columns:  # another column than the one that the labels name
        columns["id"] = own_item
    score = _named(labels, ("score", *sorted(SCORE_NAMES)))[:1]
    vector = [name for name in _named(items, VECTORS) if name in _named(queries, VECTORS)][:1]
    split = _named(queries, SPLIT_COLUMNS)[:1] or _named(labels, SPLIT_COLUMNS)[:1]
    for ours, theirs in (("score", score), ("vector", vector), ("split", split)):
        if theirs and theirs[0] != ours:
            columns[ours] = theirs[0]
    for table in (items, queries):  # Title is refused: it would be ignored
        columns |= {name: column for name in ("title", "text", "group") for column in _named(table, (name,)) if column != name}
    return columns


def _id_of(table: FoundTable, names: Sequence[str], labels: FoundTable, named: str) -> str:
    """The table's id: of several columns the one that holds most of the ids that the labels name."""
    candidates = list(dict.fromkeys([*_named(table, (*OWN_IDS, *names)), *(name for name in table.columns if name == named)]))
    if not candidates:
        raise DataError(
            f"{table.described}: expected a column with the ids that {named!r} of {labels.name} names, called `id` or {named!r}; "
            f"found none; rename it"
        )
    wanted = _texts(labels.head, named)
    shared = [pc.sum(pc.is_in(_texts(table.head, column), value_set=wanted)).as_py() or 0 for column in candidates]
    return candidates[shared.index(max(shared))]


def _texts(table: pa.Table, column: str) -> pa.Array:
    values = one_array(table[column])
    return pa.nulls(len(values), pa.string()) if pa.types.is_nested(values.type) else as_texts(values)


def _item_fields(items: FoundTable) -> list[str]:
    """Title and text, whatever they are called; without such names the two columns of the longest texts."""
    titles, bodies = _named(items, TITLES)[:1], _named(items, BODIES)[:1]
    return titles + bodies or _longest(items)[:2]


def _longest(table: FoundTable) -> list[str]:
    """Columns of texts but for ids, links and categories, the longest on average first."""
    lengths = {}
    for name, column in zip(table.columns, table.head.columns, strict=True):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        if name.lower() in (*OWN_IDS, *ITEM_IDS, *QUERY_IDS, *SPLIT_COLUMNS, *VECTORS):
            continue
        length = pc.mean(pc.utf8_length(column)).as_py() or 0
        words = pc.any(pc.match_substring(column, " ")).as_py()
        if words:
            lengths[name] = length
    return sorted(lengths, key=lambda name: -lengths[name])
