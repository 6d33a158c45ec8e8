"""A teacher reads pairs: Ray Data hands blocks of pairs to a pool of actors; each becomes one part of scores.

As in embedding, what travels are addresses; a block is there whole or not at all, and an interrupted stage goes on with
the blocks that are missing; within a block, with what a server has not answered yet. What was read in an earlier round is not
read again.
"""

from __future__ import annotations

import json
import pickle
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cluster.errors import DataError, HardmineError
from cluster.session.progress import post, post_often
from cluster.session.resources import PoolSize
from cluster.session.session import set_threads
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, left_parts, part_name, read_part, write_part
from mining.part_pool import load_share, over_parts
from mining.teacher.answers import Answers
from mining.teacher.cut import Pairs

PairReader = Callable[[Sequence[str], Sequence[str], Callable[[int], None]], F32]
"""(queries, items, on_progress) of equal length -> scores [P] float32."""


class Asking(Protocol):
    """A server that is asked for scores; each answer counts at once."""

    def answers(self, queries: Sequence[str], items: Sequence[str]) -> Iterator[tuple[I64, F32]]:
        """(places among the pairs, their scores; NaN: it has none for a pair), in any order."""


@dataclass(frozen=True)
class ReadTask:
    """What to read, and where its texts are."""

    store: Store
    pairs: list[Part]
    earlier: list[list[Part]]
    """Tables of scored pairs that are there already, of the same blocks or of others."""
    queries: list[Part]
    corpus: list[Part]
    folder: str
    setting: str = "mining.teacher.model"
    """The setting that names the model, for messages."""

    def target(self, number: int) -> str:
        """Address of the scores of `pairs[number]`."""
        return f"{self.folder}/{part_name(number)}"


@dataclass(frozen=True)
class ReadDone:
    """What reading left."""

    parts: list[Part]
    """Scored pairs, parallel to the task's `pairs`: all that were asked for, and all that earlier rounds have read."""
    pairs: int
    """Pairs that were read now; what an interrupted attempt read is not counted."""
    seconds: float
    """Time of the busiest actor, without start-up."""


def read_pairs(
    task: ReadTask, make_reader: Callable[[], PairReader | Asking], pool: PoolSize, *, retries: int, mailbox: Any = None
) -> ReadDone:
    """Score every block of pairs that is not there yet.

    Raises:
        DataError: the model gives NaN. ArtifactError: a text or a table is missing.
    """
    targets = [Part(task.target(number), part.rows, 0) for number, part in enumerate(task.pairs)]
    there = left_parts(task.store, targets)
    parts = {number: there[target.path] for number, target in enumerate(targets) if target.path in there}
    rows = _rows_to_do(task, set(parts))
    read, seconds = 0, {"": 0.0}
    if rows:
        keywords = {"threads": pool.cpus, "mailbox": mailbox, "total_rows": load_share(rows, pool)}
        post(mailbox, "teacher", "", of=sum(row["rows"] for row in rows))
        for row in over_parts(rows, PairActor, (task, make_reader), keywords, pool, retries=retries):
            parts[int(row["number"])] = Part(row["path"], int(row["rows"]), int(row["bytes"]), sha256=row["sha256"])
            read += int(row["pairs"])
            seconds[row["actor"]] = seconds.get(row["actor"], 0.0) + float(row["seconds"])
    return ReadDone([parts[number] for number in range(len(task.pairs))], read, max(seconds.values()))


def _rows_to_do(task: ReadTask, done: set[int]) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "source": part.path,
            "target": task.target(number),
            "rows": part.rows,
            "earlier": json.dumps([known.path for known in _like(task, number)]),
        }
        for number, part in enumerate(task.pairs)
        if number not in done
    ]


def _like(task: ReadTask, number: int) -> list[Part]:
    """The earlier parts that may hold pairs of this block."""
    sizes = [part.rows for part in task.pairs]
    # every round cuts the training queries into the same blocks, unless cluster.query_block was changed on the way
    return [part for table in task.earlier for part in ([table[number]] if [known.rows for known in table] == sizes else table)]


class PairActor:
    """Loads the model once, scores one block of pairs per call."""

    def __init__(
        self, task: ReadTask, make_reader: Callable[[], PairReader | Asking], *, threads: int, mailbox: Any, total_rows: int
    ) -> None:
        self._task, self._make_reader, self._threads = task, make_reader, threads
        self._reader: PairReader | Asking | None = None
        self._mailbox, self._blocks, self._total, self._read = mailbox, 0, total_rows, 0
        self._name = f"teacher-{uuid.uuid4().hex[:8]}"
        self._started = 0.0

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, list[Any]]:
        """Score the one block of `batch`; returns what was written, or our error as a value."""
        number, target = int(batch["number"][0]), str(batch["target"][0])
        try:
            self._load()
            started = time.monotonic()
            part, count = self._score_block(str(batch["source"][0]), json.loads(str(batch["earlier"][0])), target)
        except HardmineError as error:
            return _answer(number, Part(target, 0, 0), self._name, error=pickle.dumps(error))
        return _answer(number, part, self._name, pairs=count, seconds=time.monotonic() - started)

    def _load(self) -> None:
        if self._reader is None:
            self._reader = self._make_reader()
            set_threads(self._threads)
            self._started = time.monotonic()

    def _score_block(self, source: str, earlier: list[str], target: str) -> tuple[Part, int]:
        store = self._task.store
        table = read_part(store, source)
        query_rows, wanted = table["query_row"].to_numpy(), Pairs.from_table(table)
        known = Pairs.ordered(np.empty(0, np.int64), np.empty(0, np.int64))
        for path in earlier:
            known = known.joined(Pairs.from_table(read_part(store, path)).of(query_rows))
        asks, answers = not callable(self._reader), Answers(store, target)
        if asks:
            known = known.joined(answers.earlier())
        new = wanted.without(known)
        scored = Pairs(new.query_rows, new.item_rows, self._scores(new, answers))
        self._blocks += table.num_rows
        self._read += len(new)
        part = write_part(store, target, scored.joined(known).to_table(query_rows, scored=True))
        if asks:
            answers.delete()
        return part, len(new)

    def _scores(self, pairs: Pairs, answers: Answers) -> F32:
        assert self._reader is not None
        if not len(pairs):
            return np.empty(0, np.float32)
        queries = self._texts(self._task.queries, pairs.query_rows)
        items = self._texts(self._task.corpus, pairs.item_rows)
        if not callable(self._reader):
            return self._asked(self._reader, pairs, queries, items, answers)
        scores = np.asarray(self._reader(queries, items, self._report), np.float32)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            first = bad[0]
            raise DataError(
                f"the model of {self._task.setting} gives NaN or infinite scores for {len(bad)} of {len(pairs)} pairs, the "
                f"first for the query at row {int(pairs.query_rows[first])} and the item at row "
                f"{int(pairs.item_rows[first])}; check those texts, or give another {self._task.setting}"
            )
        return scores

    def _asked(self, server: Asking, pairs: Pairs, queries: Sequence[str], items: Sequence[str], answers: Answers) -> F32:
        scores, done = np.full(len(pairs), np.nan, np.float32), 0
        try:
            for places, some in server.answers(queries, items):
                scores[places] = some
                answers.add(pairs.query_rows[places], pairs.item_rows[places], some)
                done += len(places)
                self._report(done)
        finally:
            answers.keep()
        return scores

    def _texts(self, parts: list[Part], rows: I64) -> list[str]:
        distinct, place = np.unique(rows, return_inverse=True)
        texts = read_rows(self._task.store, parts, distinct, ["text"])["text"].to_pylist()
        return [texts[index] for index in place]  # one string per distinct text, however many pairs it is in

    def _report(self, pairs: int) -> None:
        rate = (self._read + pairs) / max(1e-6, time.monotonic() - self._started)
        post_often(
            self._mailbox,
            self._name,
            f"{self._read + pairs:,} pairs, {self._blocks:,} of {self._total:,} queries done, {rate:,.0f} pairs/s",
            done=self._blocks,
        )


def _answer(
    number: int, part: Part, actor: str, *, pairs: int = 0, seconds: float = 0.0, error: bytes = b""
) -> dict[str, list[Any]]:
    return {
        "number": [number],
        "path": [part.path],
        "rows": [part.rows],
        "bytes": [part.bytes],
        "sha256": [part.sha256],
        "pairs": [pairs],
        "actor": [actor],
        "seconds": [seconds],
        "error": [error],
    }
