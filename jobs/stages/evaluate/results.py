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
from cluster.tables.tables import F32, I64, Part, read_parts, read_schema
from eval.diversity import coverage, exposure, gini, intra_list_similarity, mean_by_owner, percentiles, popularity, top_share
from eval.metrics import Bool
from eval.score_histogram import score_figures
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


def popularity_percentiles(store: Store, corpus: Sequence[Part], learned: I64, column: str | None) -> Any:
    """float64 [N] in 0 … 1: by a number column of the corpus, else by the relevant labels of training queries.

    Args:
        learned: the item of each of these labels.
    """
    schema = read_schema(store, corpus[0])
    name = column or POPULARITY
    if name in schema.names and (pa.types.is_integer(schema.field(name).type) or pa.types.is_floating(schema.field(name).type)):
        return percentiles(read_parts(store, corpus, [name])[name].cast(pa.float64()).fill_null(np.nan).to_numpy())
    return percentiles(np.bincount(learned, minlength=sum(part.rows for part in corpus)))


def result_figures(
    store: Store, vectors: Sequence[Part], query_vectors: Sequence[Part], ranking: Ranking, percentile_N: Any
) -> dict[str, Any]:
    """ "results" and "scores" of evaluation.json; eval/diversity.py and eval/score_histogram.py define them.

    Args:
        vectors, query_vectors: of all items and queries under the model that made the hits; those of the sample's hits are
            read, part by part.
    """
    num_items = len(percentile_N)
    sample, random_SR = draw_sample(len(ranking.query_rows), num_items)
    first_SK = ranking.rows[sample, :DEPTH]
    rows = np.union1d(first_SK[first_SK >= 0], random_SR)
    vectors_MD = read_rows(store, vectors, rows)
    queries_SD = read_rows(store, query_vectors, ranking.query_rows[sample])
    similarity_S = intra_list_similarity(np.where(first_SK >= 0, np.searchsorted(rows, first_SK), -1), vectors_MD)
    top_QK = ranking.rows[:, :DEPTH]
    shown_N = exposure(top_QK, num_items)
    relevant = mean_by_owner(ranking.relevant.query, percentile_N[ranking.relevant.item])
    results = {
        "coverage": coverage(shown_N),
        "gini": gini(shown_N),
        "top_share": top_share(shown_N),
        "similarity": float(similarity_S[~np.isnan(similarity_S)].mean()) if (~np.isnan(similarity_S)).any() else math.nan,
        "popularity": popularity(top_QK, percentile_N),
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
