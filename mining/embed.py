"""Embedding: Ray Data hands parts of a feature table to a pool of encoder actors; each becomes one part of vectors.

The dataset's rows are the parts' addresses, not the texts: each actor reads its part, encodes it and writes its vectors
as one object, so a part is there whole or not at all, an interrupted stage goes on with the parts that are missing,
and neither the driver nor the object store ever holds the corpus.
"""

from __future__ import annotations

import pickle
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ArtifactError, DataError, HardmineError
from cluster.session.metrics import add_to
from cluster.session.progress import post
from cluster.session.resources import PoolSize
from cluster.session.session import set_threads
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, left_parts, vectors_to_column, write_part
from mining.part_pool import load_share, over_parts

OVERLAP = 3
"""Parts that an actor works on at a time: one is read, one is encoded, one is written."""


class PartEncoder(Protocol):
    """What mining needs of a model: the vectors of one part of a feature table.

    It is called by several threads at a time, and sees to it that the device works for one of them.
    """

    def __call__(self, store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
        """Vectors [N, D] float32 of unit length, in row order."""


@dataclass(frozen=True)
class EmbedJob:
    """One table to embed: source parts and where their vectors go."""

    table: str
    sources: Sequence[Part]
    folder: str

    def target(self, part: Part) -> str:
        """Address of the vectors of `part`."""
        return f"{self.folder}/{self.table}/{part.path.rsplit('/', 1)[-1]}"


class EncodeParts:
    """The actor: loads the model once, encodes one part per call. Several threads may call it."""

    def __init__(
        self, make_encoder: Callable[[], PartEncoder], store: Store, dtype: str, *, threads: int, mailbox: Any, total_rows: int
    ) -> None:
        self._make_encoder, self._threads = make_encoder, threads
        self._encoder: PartEncoder | None = None
        self._store, self._dtype = store, np.dtype(dtype)
        self._mailbox, self._total, self._done = mailbox, total_rows, 0
        self._lock = threading.Lock()
        self._name = f"embed-{uuid.uuid4().hex[:8]}"

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, list[Any]]:
        """Encode the one part of `batch`; returns what was written, or our error as a value."""
        source, target, table = (str(batch[name][0]) for name in ("source", "target", "table"))
        try:
            self._load()
            started = time.monotonic()
            part = self._encode(source, target, int(batch["first_row"][0]), int(batch["rows"][0]))
        except HardmineError as error:
            return _row(table, Part(target, 0, 0), self._name, error=pickle.dumps(error))
        return _row(table, part, self._name, started=started, ended=time.monotonic())

    def _load(self) -> None:
        with self._lock:
            if self._encoder is None:
                self._encoder = self._make_encoder()
                set_threads(self._threads)
                self._started = time.monotonic()

    def _encode(self, source: str, target: str, first_row: int, rows_wanted: int) -> Part:
        assert self._encoder is not None
        vectors = self._encoder(self._store, source, self._report)
        with self._lock:
            self._done += len(vectors)
        add_to("hardmine_texts_embedded", len(vectors))
        if len(vectors) != rows_wanted:
            raise ArtifactError(
                f"{self._store.url(source)} gives {len(vectors)} vectors, but holds {rows_wanted} rows "
                f"according to its commit; delete that commit and run again"
            )
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise DataError(
                f"the model gives NaN or infinite vectors for {int(bad.sum())} of {len(vectors)} texts, "
                f"the first at row {first_row + int(np.flatnonzero(bad)[0])}; the model diverged or its "
                f"input is damaged: lower training.learning_rate, or check that row's text or vector"
            )
        rows = np.arange(first_row, first_row + len(vectors), dtype=np.int64)
        table = pa.table({"row": rows, "vector": vectors_to_column(vectors.astype(self._dtype))})
        return write_part(self._store, target, table, first_row=first_row)

    def _report(self, rows: int) -> None:
        done = self._done + rows
        rate = done / max(1e-6, time.monotonic() - self._started)
        post(self._mailbox, self._name, f"{done:,} of {self._total:,} texts, {rate:,.0f} texts/s", done=done)


def _row(
    table: str, part: Part, actor: str, *, started: float = 0.0, ended: float = 0.0, error: bytes = b""
) -> dict[str, list[Any]]:
    return {
        "table": [table],
        "path": [part.path],
        "rows": [part.rows],
        "bytes": [part.bytes],
        "first_row": [part.first_row],
        "sha256": [part.sha256],
        "actor": [actor],
        "started": [started],
        "ended": [ended],
        "error": [error],
    }


@dataclass(frozen=True)
class Embedded:
    """What an embed stage wrote."""

    tables: dict[str, list[Part]]
    seconds: float
    """Time of the busiest actor, without start-up."""


def embed(
    jobs: Sequence[EmbedJob],
    make_encoder: Callable[[], PartEncoder],
    store: Store,
    pool: PoolSize,
    *,
    dtype: str,
    retries: int,
    mailbox: Any = None,
) -> Embedded:
    """Embed every part of `jobs` that is not there yet. Parts come out in row order.

    Raises:
        DataError: the model gives NaN. ArtifactError: a source part is missing or has another number of rows.
    """
    finished, rows = _split(jobs, store)
    seconds = 0.0
    if rows:
        written, seconds = _run(rows, make_encoder, store, pool, dtype=dtype, retries=retries, mailbox=mailbox)
        for table, part in written:
            finished[table].append(part)
    return Embedded({name: sorted(parts, key=lambda part: part.first_row) for name, parts in finished.items()}, seconds)


def _split(jobs: Sequence[EmbedJob], store: Store) -> tuple[dict[str, list[Part]], list[dict[str, Any]]]:
    """(parts that an earlier attempt finished, addresses of those to do)."""
    finished: dict[str, list[Part]] = {job.table: [] for job in jobs}
    rows: list[dict[str, Any]] = []
    for job in jobs:
        there = left_parts(store, [replace(part, path=job.target(part)) for part in job.sources])
        for part in job.sources:
            target = job.target(part)
            if target in there:
                finished[job.table].append(there[target])
            else:
                rows.append(
                    {"table": job.table, "source": part.path, "target": target, "first_row": part.first_row, "rows": part.rows}
                )
    return finished, rows


def _run(
    rows: list[dict[str, Any]],
    make_encoder: Callable[[], PartEncoder],
    store: Store,
    pool: PoolSize,
    *,
    dtype: str,
    retries: int,
    mailbox: Any,
) -> tuple[list[tuple[str, Part]], float]:
    keywords = {"threads": pool.cpus, "mailbox": mailbox, "total_rows": load_share(rows, pool)}
    post(mailbox, "embed", "", of=sum(row["rows"] for row in rows))
    written: list[tuple[str, Part]] = []
    spans: dict[str, tuple[float, float]] = {}
    for row in over_parts(rows, EncodeParts, (make_encoder, store, dtype), keywords, pool, retries=retries, overlap=OVERLAP):
        part = Part(row["path"], int(row["rows"]), int(row["bytes"]), int(row["first_row"]), row["sha256"])
        written.append((row["table"], part))
        first, last = spans.get(row["actor"], (float(row["started"]), float(row["ended"])))
        spans[row["actor"]] = min(first, float(row["started"])), max(last, float(row["ended"]))
    return written, max(last - first for first, last in spans.values())


def check_counts(embedded: Embedded, jobs: Sequence[EmbedJob], store: Store) -> None:
    """Raises DataError: a table has not as many vectors as its source has rows."""
    for job in jobs:
        wanted, found = sum(part.rows for part in job.sources), sum(part.rows for part in embedded.tables[job.table])
        if wanted != found:
            raise DataError(
                f"expected {wanted} vectors of {job.table}, found {found} below {store.url(job.folder)}; "
                f"delete that folder and run again"
            )
