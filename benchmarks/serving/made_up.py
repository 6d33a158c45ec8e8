"""An export of a generated catalogue under a new static model, without a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.tables.tables import F32, Part
from jobs.demo.catalogue import Catalogue, generate_catalogue
from jobs.record.usage import Reads
from jobs.serving.search.query_encoder import item_encoder, query_encoder
from training.encoders.prepare.new_static import new_static_folder
from training.settings import EncoderSettings

DIMENSION = 256
PART_ROWS = 10_000


@dataclass
class MadeUp:
    """A `Source` of an export."""

    model: Path
    """Where the model is written."""
    items: int
    stem: str = "made-up"
    label: str = "untrained"
    key: str = "0"
    texts: str = "0"
    dtype: str = "float32"
    query_text: str = "{text}"
    reads: Reads = "texts"
    about: dict[str, Any] = field(
        default_factory=lambda: {"name": "made-up", "round": -1, "label": "untrained", "primary": "recall@3", "figure": None}
    )

    @cached_property
    def catalogue(self) -> Catalogue:
        """Its items and queries; writes the model."""
        catalogue = generate_catalogue(self.items, 400)
        texts = catalogue.corpus["text"].to_pylist()
        settings = EncoderSettings(kind="static", dimension=DIMENSION)
        new_static_folder(self.model, texts[:2_000], settings, seed=0)
        return catalogue

    @property
    def asked(self) -> list[str]:
        """Texts of queries."""
        texts: list[str] = self.catalogue.queries["text"].to_pylist()
        return texts

    @property
    def corpus(self) -> list[Part]:
        """The items, in parts."""
        starts = range(0, self.items, PART_ROWS)
        return [Part(f"part-{start}", min(PART_ROWS, self.items - start), 0, start) for start in starts]

    def folder(self, scratch: Path) -> Path | None:
        """The model."""
        del scratch
        assert self.catalogue
        return self.model

    def blocks(self) -> Iterator[tuple[Part, pa.Table, F32]]:
        """Items and their vectors."""
        table, encode = self.catalogue.corpus, item_encoder(self.model)
        for part in self.corpus:
            some = table.slice(part.first_row, part.rows)
            yield part, some, encode(some["text"].to_pylist())

    def queries(self) -> F32:
        """Their vectors."""
        return np.asarray(query_encoder(self.model, "texts", DIMENSION)(self.asked))
