"""The re-ranker's training as a value: everything a worker must know, and nothing it cannot be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.tables.tables import Part
from training.feed.memory import loaded_bytes, loaded_items
from training.reranker.settings import RerankerSettings
from training.task import LabelData, Task


@dataclass(frozen=True, kw_only=True)
class RerankData(LabelData):
    """The tables that the re-ranker trains on: as the retriever, but from texts.

    `labels` have grades (`gain`), `negatives` are mined for the retriever, and `near_misses` are the hits of dev queries, which
    validation re-ranks; without them nothing is validated.
    """

    corpus: list[Part]
    """Items with their `text`; `queries` have theirs as well."""


@dataclass(frozen=True, kw_only=True)
class RerankTask(Task):
    """The training of a re-ranker. `settings` are `settings_for(training, reranker)`."""

    data: RerankData
    reranker: RerankerSettings

    def tracked(self) -> dict[str, Any]:
        """As `Task`."""
        return super().tracked() | self.reranker.model_dump(mode="json") | {"encoder": "reranker"}

    def predicted_bytes(self, world: int) -> int:
        """As `Task`."""
        data, reranker = self.data, self.reranker
        items, queries = (sum(part.rows for part in parts) for parts in (data.codes, data.queries))
        labelled = -(-sum(part.rows for part in data.labels) // max(1, queries))
        random = reranker.random_negatives + (0 if data.negatives else reranker.hard_negatives)
        loaded = loaded_items(items, queries, labelled, reranker.hard_negatives, random, self.schedule.epochs)
        # texts are compressed to about a quarter; their tokens take as much again
        row_bytes = 8 * sum(part.bytes for part in data.corpus) // max(1, items)
        return loaded_bytes(loaded, queries, row_bytes)
