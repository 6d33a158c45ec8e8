"""Search and figures of `benchmarks.illnesses`: the tables that a run's stages write, and the evaluate stage's own work on them.

N items, Q queries, T queries searched, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.illnesses.data import Written, write_parts
from cluster.labels.labels import Labels
from cluster.tables.tables import F32, I64, Part, csr_to_lists, offsets_of, read_parts, vectors_to_column, write_part
from eval.settings import EvaluationSettings
from jobs.stages.evaluate.measure import EvaluateTask, measure
from mining.search.known import known_items
from mining.search.topk import Lists, Shard, canonical_scores, exact_topk

SETTINGS = EvaluationSettings(primary="recall@10", resamples=2000)
"""Of the catalogue, the volumes of a series are too alike for recall@3; fewer resamples, as a bench has hundreds of intervals."""


@dataclass(frozen=True)
class Measured:
    """A model's figures on some queries, and what later models are compared with."""

    figures: Mapping[str, Any]
    """As evaluation.json has them."""
    hits: Part
    per_query: Part


class Searcher:
    """The labels and where to write."""

    def __init__(self, tables: Written) -> None:
        self.tables = tables
        corpus, judged, queries = (read_parts(tables.store, parts) for parts in (tables.corpus, tables.labels, tables.queries))
        self.labels = Labels.from_tables(judged, corpus, queries.num_rows)

    def measure(self, items: F32, queries: F32, rows: I64, name: str, others: Mapping[str, Measured]) -> Measured:
        """What the evaluate stage says of a model.

        Args:
            items: [N, D] of unit length. queries: [Q, D], of all queries.
            rows: [T] the evaluated queries, ascending.
            others: "baseline", "previous", "best" -> another model on the same queries.
        """
        tables, folder = self.tables, f"evaluate/{name}"
        hits = self.search(items, queries, rows, f"{folder}/hits.parquet", SETTINGS.num_hits + 1, exclude_known=False)
        vectors = {
            side: write_parts(
                tables.store, f"{folder}/{side}", pa.table({"row": np.arange(len(values)), "vector": vectors_to_column(values)})
            )
            for side, values in (("items", items), ("queries", queries))
        }
        task = EvaluateTask(
            tables.store,
            folder,
            [hits],
            tables.corpus,
            tables.corpus,
            tables.queries,
            tables.labels,
            vectors["items"],
            vectors["queries"],
            SETTINGS,
            None,
            None,
            {key: [other.per_query] for key, other in others.items()},
            first="baseline" not in others,
        )
        figures, per_query = measure(task)
        return Measured(figures, hits, per_query)

    def search(self, items: F32, queries: F32, rows: I64, path: str, num_hits: int, *, exclude_known: bool) -> Part:
        """The nearest items of some queries, as the search stage writes them.

        Args:
            exclude_known: relevant items and their group mates are no hits, but counted.
        """
        asked = np.ascontiguousarray(queries[rows])
        none = Lists(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int64))
        known = known_items(self.labels, rows) if exclude_known else none
        scores, places = exact_topk(asked, Shard(items, "faiss"), num_hits, known if exclude_known else None)
        judged = Lists(self.labels.offsets, self.labels.item_rows).take(rows)
        judged_scores, known_scores = (
            canonical_scores(asked[found.owners], items, found.rows[:, None])[:, 0] for found in (judged, known)
        )
        near = known_scores >= scores[known.owners, -1]
        real = places >= 0
        offsets = offsets_of(real.sum(axis=1))
        table = {
            "query_row": rows,
            "item_rows": csr_to_lists(offsets, places[real]),
            "scores": csr_to_lists(offsets, scores[real]),
            "label_rows": csr_to_lists(judged.offsets, judged.rows),
            "label_scores": csr_to_lists(judged.offsets, judged_scores),
            "excluded": np.bincount(known.owners[near], minlength=len(rows)).astype(np.int32),
        }
        return write_part(self.tables.store, path, pa.table(table))
