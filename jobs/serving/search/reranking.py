"""The re-ranker of an export: it puts the first hits of a query into another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cluster.errors import ConfigError, DamagedObject
from cluster.tables.tables import F32
from jobs.record.usage import RERANKER
from jobs.serving.export.marks import reranker_mark
from jobs.serving.export.stamp import Stamp

CANDIDATES = 100
"""Hits that are re-ranked; more where more are asked for."""
Rerank = Callable[[str, Sequence[str]], F32]
"""(a query, the texts of its hits) -> a score of each; higher is better."""


def open_reranker(model: Path | None, stamp: Stamp, path: str) -> Rerank:
    """The re-ranker in the folder of an export's model.

    Raises:
        ConfigError: the export has none, or its queries are no texts. DamagedObject: it is not the one that was exported.
    """
    mark = stamp.run.get("reranker")
    if mark is None or model is None or stamp.reads != "texts":
        raise ConfigError(
            f"--rerank: expected an export with a re-ranker, found none in {path}; export a run with [reranker], or leave "
            f"--rerank out"
        )
    if reranker_mark(model) != mark:
        raise DamagedObject.at(
            f"{path}/model/{RERANKER}",
            f"the re-ranker in {path} is not the one that was exported (by SHA-256); copy the export again as a whole, or run "
            f"the same `hardmine export` again",
        )
    from training.encoders.rerankers.late_encoder import is_late

    return _late(model / RERANKER) if is_late(model / RERANKER) else _cross_encoder(model / RERANKER)


def _cross_encoder(folder: Path) -> Rerank:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), local_files_only=True)

    def rerank(query: str, texts: Sequence[str]) -> F32:
        scores = encoder.predict([(query, text) for text in texts], show_progress_bar=False)
        return np.asarray(scores, np.float32)

    return rerank


def _late(folder: Path) -> Rerank:
    from sentence_transformers import MultiVectorEncoder

    encoder = MultiVectorEncoder(str(folder), local_files_only=True)

    def rerank(query: str, texts: Sequence[str]) -> F32:
        items = encoder.encode_document(list(texts), show_progress_bar=False)
        scores = encoder.similarity(encoder.encode_query([query], show_progress_bar=False), items)
        return np.asarray(scores[0].cpu(), np.float32)

    return rerank
