"""Mining against sentence_transformers.util.mine_hard_negatives: the same vectors, filters and counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.mining.ours import EXACT, TWO_STAGE, pipeline, product, temporary_catalogue
from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import paired
from cluster.tables.rows import load_vectors
from cluster.tables.tables import F32
from mining.settings import MiningSettings

NUM_HITS, NUM_NEGATIVES = 100, 10


class GivenVectors:
    """What mine_hard_negatives asks of a model, answered from a table: no encoder takes part."""

    def __init__(self, vectors: dict[str, F32]) -> None:
        import torch

        self._vectors = vectors
        self.device = torch.device("cpu")
        self.model_card_data = SimpleNamespace(base_model=None)

    def encode_document(self, texts: Sequence[str], **_: Any) -> F32:
        """Vectors of texts."""
        return np.stack([self._vectors[text] for text in texts])

    encode_query = encode_document

    def get_embedding_dimension(self) -> int:
        """D"""
        return len(next(iter(self._vectors.values())))

    def similarity(self, left: Any, right: Any) -> Any:
        """Cosines, as SentenceTransformer.similarity."""
        from sentence_transformers.util import cos_sim

        return cos_sim(left, right)

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        """Cosines of pairs."""
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(left, right)


def case_peer(runs: int, items: int, queries: int) -> list[Row]:
    """See benchmarks.mining."""
    with temporary_catalogue(items=items, queries=queries) as data:
        peer = _peer(data)
        settings = MiningSettings(num_hits=NUM_HITS, num_negatives=NUM_NEGATIVES, relative_margin=0.05)

        def ours(how: Any) -> Callable[[], Any]:
            return lambda: pipeline(data, NUM_HITS, how, f"out-{how.mode}-{how.engine}", shards=1, settings=settings)

        items_ND = load_vectors(data.store, data.item_vectors).copy()  # torch takes no read-only array
        queries_QD = load_vectors(data.store, data.query_vectors).copy()
        works = {
            "floor": lambda: product(queries_QD, items_ND),
            "sentence-transformers": lambda: peer(use_faiss=False),
            "sentence-transformers with FAISS": lambda: peer(use_faiss=True),
            **{f"ours exact ({name})": ours(how) for name, how in EXACT.items()},
            "ours two-stage": ours(TWO_STAGE),
        }
        took = paired(works, runs)
    return [
        compared(f"peer {name}", took[name], other, took[other], took["floor"])
        for name in works
        if name.startswith("ours")
        for other in works
        if other.startswith("sentence")
    ]


def _peer(data: Any) -> Callable[..., Any]:
    os.environ["TQDM_DISABLE"] = "1"
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    from cluster.tables.tables import read_parts

    items = read_parts(data.store, data.corpus, ["text"])["text"].to_pylist()
    queries = read_parts(data.store, data.queries, ["text"])["text"].to_pylist()
    labels = read_parts(data.store, data.labels)
    vectors = dict(zip(items, load_vectors(data.store, data.item_vectors), strict=True))
    vectors |= dict(zip(queries, load_vectors(data.store, data.query_vectors), strict=True))
    dataset = Dataset.from_dict(
        {
            "anchor": [queries[row] for row in labels["query_row"].to_pylist()],
            "positive": [items[row] for row in labels["item_row"].to_pylist()],
        }
    )
    model = GivenVectors(vectors)

    def work(*, use_faiss: bool) -> Any:
        return mine_hard_negatives(
            dataset,
            model,
            corpus=items,
            range_max=NUM_HITS,
            relative_margin=0.05,
            num_negatives=NUM_NEGATIVES,
            sampling_strategy="top",
            output_format="triplet",
            use_faiss=use_faiss,
            verbose=False,
        )

    return work
