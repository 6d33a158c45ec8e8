"""How many relevant pairs agree in metadata, against random ones: reads a sample of the run's pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, Part, read_schema
from eval.results.leakage import Tags, agreement, leakage_row, tags_in_texts
from jobs.stages.evaluate.slice_columns import columns_of

PAIRS = 2000
"""Queries that are looked at, each with one of its relevant items and with a random item."""
NAMES = {"group"}
"""Columns that name the thing itself, as a title does: to ask for it by name leaks nothing."""
TAG_LENGTH = 40
"""Characters that the values of a column of tags have at most, on average."""


def leakage_figures(store: Store, corpus: Sequence[Part], queries: Sequence[Part], judged: pa.Table) -> dict[str, Any]:
    """ "leakage" of evaluation.json: a row for each column that queries and items both have, for "text" (all of an item's
    tags of some column stand in the query's text) and for each such column alone, as "text:COLUMN".

    Args:
        judged: all labels of the run (query_row, item_row, score).
    """
    rng = np.random.default_rng(0)
    pairs = one_of_each(judged["query_row"].to_numpy(), judged["score"].to_numpy() > 0, rng)
    query_rows, positives = (judged[name].to_numpy()[pairs] for name in ("query_row", "item_row"))
    random = rng.integers(sum(part.rows for part in corpus), size=len(pairs))
    query_schema, item_schema = read_schema(store, queries[0]), read_schema(store, corpus[0])
    of_queries = {column.name for column in columns_of(query_schema, pa.schema([])).values() if column.table == "queries"}
    of_items = {column.name: column for column in columns_of(pa.schema([]), item_schema).values() if column.table == "items"}
    shared = [name for name in of_items if name in of_queries]
    wanted = [name for name, column in of_items.items() if column.plain or name in shared]
    asked = read_rows(store, queries, query_rows, ["text", *shared])
    found = read_rows(store, corpus, np.concatenate([positives, random]), wanted) if wanted else pa.table({})
    values = {name: tags_of(found[name]) for name in wanted}
    half = len(pairs)
    rows: dict[str, Mapping[str, float]] = {}
    for name in shared:
        own = tags_of(asked[name])
        rows[name] = leakage_row(agreement(own, values[name][:half]), agreement(own, values[name][half:]))
    texts = [text or "" for text in asked["text"].to_pylist()]
    tags = {name: values[name] for name in wanted if of_items[name].plain and name not in NAMES and are_tags(values[name])}
    for key, columns in {"text": list(tags.values()), **{f"text:{name}": [column] for name, column in tags.items()}}.items():
        rows[key] = leakage_row(
            tags_in_texts(texts, [column[:half] for column in columns]),
            tags_in_texts(texts, [column[half:] for column in columns]),
        )
    return {
        key: {name: None if math.isnan(value) else value for name, value in row.items()}
        for key, row in rows.items()
        if row["pairs"]
    }


def one_of_each(query_rows: I64, relevant: npt.NDArray[np.bool_], rng: np.random.Generator) -> I64:
    """Places of at most PAIRS relevant labels, ascending, of different queries: a query with many labels counts once.

    Args:
        query_rows: [L] of all labels. relevant: [L] which of them say so.
    """
    drawn = rng.permutation(np.flatnonzero(relevant))
    _, first = np.unique(query_rows[drawn], return_index=True)
    return np.sort(rng.permutation(drawn[first])[:PAIRS])


def tags_of(column: pa.ChunkedArray) -> list[Tags]:
    """A column of scalars or lists as texts: one list per row, empty where there is no value."""
    rows = column.to_pylist()
    return [
        [] if value is None else [str(one) for one in value if one is not None] if isinstance(value, list) else [str(value)]
        for value in rows
    ]


def are_tags(rows: Sequence[Tags]) -> bool:
    """Whether values are short and shared by items: not identifiers, links or descriptions."""
    every = [tag for row in rows for tag in row]
    filled = sum(bool(row) for row in rows)
    return bool(every) and sum(map(len, every)) <= TAG_LENGTH * len(every) and len(set(every)) <= filled / 2
