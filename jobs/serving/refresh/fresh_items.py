"""The live model on new items: vectors of unchanged texts are taken from the live export, the others are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.commits import Commit, digest
from cluster.storage.digests import record_digest
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, Part, column_to_vectors, read_part
from jobs.record.usage import Reads
from jobs.serving.export.parts_of_run import MOST_QUERIES, OURS
from jobs.serving.export.stamp import ITEMS
from jobs.serving.refresh.changes import known_rows
from jobs.serving.search.opened import Opened
from jobs.serving.search.query_encoder import item_encoder


@dataclass
class FreshItems:
    """The items of a newly ingested data set under the model of an export. A `Source` of an export."""

    live: Opened
    store: Store
    """Of the run that ingested the data."""
    ingest: Commit
    data: dict[str, Any]
    """Fingerprints of the data."""
    embedded: int = 0
    """Items whose vectors were computed; counted by `blocks`."""
    say: Callable[[str], None] = field(default=lambda _: None)

    @property
    def stem(self) -> str:
        """That of the live export."""
        return self.live.name.rpartition("-")[0]

    @property
    def label(self) -> str:
        """The model for a person."""
        return str(self.live.stamp.run["label"])

    @property
    def key(self) -> str:
        """What the vectors depend on: the model, the items, and which of their vectors were there."""
        return digest({"live": self.live.name, "texts": self.texts})

    @property
    def texts(self) -> str:
        """Digest of the items: their ids, texts and metadata, in order."""
        return record_digest([part.sha256 for part in self.corpus])

    @property
    def corpus(self) -> list[Part]:
        """The items, in parts."""
        return self.ingest.parts("corpus")

    @property
    def items(self) -> int:
        """How many there are."""
        return sum(part.rows for part in self.corpus)

    @property
    def reads(self) -> Reads:
        """Texts: no other model is refreshed."""
        return self.live.stamp.reads

    @property
    def dtype(self) -> str:
        """In which the vectors of the live export are stored."""
        return self.live.stamp.dtype

    @property
    def query_text(self) -> str:
        """Template of the queries that the model was trained on."""
        return self.live.stamp.query_text

    @property
    def about(self) -> dict[str, Any]:
        """The model's run, with the data that the items are of."""
        return self.live.stamp.run | {"data": self.data}

    def folder(self, scratch: Path) -> Path | None:
        """The live export's own model."""
        del scratch
        return self.live.model

    @cached_property
    def _encode(self) -> Callable[[list[str]], F32]:
        assert self.live.model is not None
        return item_encoder(self.live.model)

    def blocks(self) -> Iterator[tuple[Part, pa.Table, F32]]:
        """(part of the corpus, its ids and metadata, its vectors) one after another; unchanged vectors are taken over."""
        old = self._old_vectors()
        old_ids, old_texts = (self.live.items[name].combine_chunks() for name in ("id", "text"))
        for part in sorted(self.corpus, key=lambda part: part.first_row):
            table = read_part(self.store, part)
            rows, same = known_rows(table["id"].combine_chunks(), table["text"].combine_chunks(), old_ids, old_texts)
            vectors = np.empty((part.rows, self.live.stamp.dimension), np.float32)
            vectors[same] = old[rows[same]]
            other = np.flatnonzero(~same)
            if len(other):
                vectors[other] = self._encode(table["text"].take(pa.array(other)).to_pylist())
            self.embedded += len(other)
            yield part, table.select([name for name in table.column_names if name not in OURS]), vectors
        self.say(f"  {self.embedded:,} of {self.items:,} items embedded; the others are as they were")

    def _old_vectors(self) -> F32:
        """[N, D] of the live export."""
        paths = sorted(path for path in self.live.stamp.files if path.startswith(f"{ITEMS}/"))
        blocks = [column_to_vectors(pq.read_table(self.live.folder / path, columns=["vector"])["vector"]) for path in paths]
        return np.concatenate(blocks)

    def queries(self) -> F32:
        """Vectors of some of the data's queries."""
        return self.live.encode(self.query_texts())

    def query_texts(self) -> list[str]:
        """Texts of some of the data's queries."""
        parts = self.ingest.parts("queries")
        total = sum(part.rows for part in parts)
        drawn = np.sort(np.random.default_rng(0).permutation(total)[:MOST_QUERIES])
        return [text for text in read_rows(self.store, parts, drawn, ["text"])["text"].to_pylist() if text and text.strip()]
