"""What the first hits look like taken together, and how scores are spread; vectors are read for a sample of the queries.

Q queries, K hits, S sampled queries, L relevant labels, N items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.labels.labels import contains
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, read_schema, stream_parts
from eval.metrics import F64, Bool
from eval.results.diversity import (
    coverage,
    exposure,
    gini,
    intra_list_similarity,
    mean_by_owner,
    percentiles,
    popularity,
    top_share,
)
from eval.results.score_histogram import score_figures
from jobs.stages.evaluate.slice_columns import Relevant
from mining.search.block_actor import read_rows

DEPTH = 10
"""Hits of a query that count as its first results; as many items that are not relevant are its hard ones."""
SAMPLE = 2000
"""Queries whose hits' vectors are read: at most 2 × DEPTH × SAMPLE vectors in memory."""
POPULARITY = "popularity"
"""Column of the corpus that says how popular an item is, if there is one and mining.popularity names no other."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The hits of the evaluated queries, without the item that a query itself is and unlabelled copies of relevant items."""

    query_rows: I64
    """[Q] ascending."""
    own: I64
    """[Q] row of the item that the query is; -1: it is none."""
    rows: I64
    """[Q, K] item rows, best first; -1 is padding."""
    scores: F32
    """[Q, K] cosines."""
    relevant: Relevant
    had_copies: Bool
    """[Q] unlabelled copies of relevant items were among the hits."""
    first_has_own_text: Bool
    """[Q] the first hit has the text of the query, or of the item that it is, and is not labelled relevant."""


@dataclass(frozen=True, eq=False)
class Popular:
    """How popular some items are among all."""

    rows: I64
    """[M] ascending."""
    percentile: F64
    """[M] 0 … 1."""

    def place(self, rows: I64) -> I64:
        """The place of items in `percentile`; -1 stays -1."""
        return np.where(rows >= 0, np.searchsorted(self.rows, rows), -1)


def popularity_percentiles(store: Store, corpus: Sequence[Part], rows: I64, learned: I64, column: str | None) -> Popular:
    """The percentiles of some items: by a number column of the corpus, else by the relevant labels of training queries.

    Memory: 8 bytes per item where there is such a column.

    Args:
        rows: items, in any order. learned: the item of each of these labels.
    """
    schema, rows = read_schema(store, corpus[0]), np.unique(rows)
    name = column or POPULARITY
    if name in schema.names and (pa.types.is_integer(schema.field(name).type) or pa.types.is_floating(schema.field(name).type)):
        numbers, first = np.empty(sum(part.rows for part in corpus), np.float64), 0
        for part, table in stream_parts(store, corpus, [name]):
            numbers[first : first + part.rows] = table[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
            first += part.rows
        return Popular(rows, percentiles(numbers[rows], numbers))
    items, counts = np.unique(learned, return_counts=True)
    own = np.zeros(len(rows), np.float64)
    known = np.isin(rows, items)
    own[known] = counts[np.searchsorted(items, rows[known])]
    zeros = sum(part.rows for part in corpus) - len(items)
    return Popular(rows, percentiles(own, counts.astype(np.float64), zeros))


def result_figures(
    store: Store, vectors: Sequence[Part], query_vectors: Sequence[Part], ranking: Ranking, popular: Popular
) -> dict[str, Any]:
    """ "results" and "scores" of evaluation.json; eval/results/diversity.py and eval/results/score_histogram.py define them.

    Args:
        vectors, query_vectors: of all items and queries under the model that made the hits; those of the sample's hits are
            read, part by part.
        popular: of the first hits and the relevant items.
    """
    num_items = sum(part.rows for part in vectors)
    sample, random_SR = draw_sample(len(ranking.query_rows), num_items)
    first_SK = ranking.rows[sample, :DEPTH]
    rows = np.union1d(first_SK[first_SK >= 0], random_SR)
    vectors_MD = read_rows(store, vectors, rows)
    queries_SD = read_rows(store, query_vectors, ranking.query_rows[sample])
    similarity_S = intra_list_similarity(np.where(first_SK >= 0, np.searchsorted(rows, first_SK), -1), vectors_MD)
    top_QK = ranking.rows[:, :DEPTH]
    shown_S = exposure(top_QK)
    relevant = mean_by_owner(ranking.relevant.query, popular.percentile[popular.place(ranking.relevant.item)])
    results = {
        "coverage": coverage(shown_S, num_items),
        "gini": gini(shown_S, num_items),
        "top_share": top_share(shown_S, num_items),
        "similarity": float(similarity_S[~np.isnan(similarity_S)].mean()) if (~np.isnan(similarity_S)).any() else math.nan,
        "popularity": popularity(popular.place(top_QK), popular.percentile),
        "relevant_popularity": relevant,
    }
    scores = {
        "positive": ranking.relevant.score,
        "hard": hard_scores(ranking),
        "random": random_scores(ranking, sample, random_SR, queries_SD, vectors_MD[np.searchsorted(rows, random_SR)]),
    }
    return {
        "results": {"depth": DEPTH} | {name: None if math.isnan(value) else value for name, value in results.items()},
        "scores": score_figures(scores),
    }


def draw_sample(num_queries: int, num_items: int) -> tuple[I64, I64]:
    """(places of the sampled queries [S], ascending; random item rows [S, DEPTH]): the same for every model of a run."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(num_queries)[:SAMPLE])
    return sample, rng.integers(num_items, size=(len(sample), DEPTH))


def hard_scores(ranking: Ranking) -> F32:
    """The cosines of each query's DEPTH nearest items that are not relevant, end to end; fewer where too few were found."""
    counts = np.bincount(ranking.relevant.query, minlength=1)
    width = DEPTH + int(counts.max())
    rows = ranking.rows[:, :width]
    other = (rows >= 0) & ~contains(ranking.relevant.query, ranking.relevant.item, rows)
    found: F32 = ranking.scores[:, :width][other & (np.cumsum(other, axis=1) <= DEPTH)]
    return found


def random_scores(ranking: Ranking, sample: I64, random_SR: I64, queries_SD: F32, items_SRD: F32) -> F32:
    """The cosines of sampled queries with random items, but for those that are relevant or the query itself."""
    num_items = max(int(random_SR.max(initial=0)), int(ranking.relevant.item.max(initial=0))) + 1
    known = ranking.relevant.query * num_items + ranking.relevant.item
    other = ~np.isin(sample[:, None] * num_items + random_SR, known) & (random_SR != ranking.own[sample][:, None])
    lengths = np.linalg.norm(queries_SD, axis=1)[:, None] * np.linalg.norm(items_SRD, axis=2)
    found: F32 = (np.einsum("sd,srd->sr", queries_SD, items_SRD) / lengths)[other]
    return found
