"""`retrieval_eval` events: one JSON line for each evaluated query, for a log system or a person with `jq`.

    events/<name>/<key>/retrieval_eval-00000.jsonl     lines of one evaluation (name: baseline, round-01, test-best …)
    events/index.json                                  files that are kept, oldest first

A file appears whole, with at most 64 MiB, and a run keeps its newest 20 files. Lines are the same whenever they are written:
their time is that of the search.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Outcome
from cluster.labels.labels import NO_NEGATIVE, contains
from cluster.storage.store import Store
from cluster.tables.rows import cut, group_blocks, has_texts, read_rows, rows_at_once
from cluster.tables.tables import F32, I64, Part, read_part, read_parts
from eval.copies import placed
from jobs.record.stages import Kind, Stage
from jobs.stages.chosen import evaluated_model
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.item_texts import ItemTexts
from jobs.stages.ingested import read_ingested
from mining.candidates import dense_hits, without_self

INDEX = "events/index.json"
RESULTS = 10
"""Results in each line."""
CUTOFFS = (1, 5, 10)
FILE_BYTES = 64 * 2**20
"""The next file is begun where a line would make one larger."""
KEPT_FILES = 20
KINDS = ("intent", "kind", "query_kind", "query_type")
"""Columns of the queries that may say what kind a query is; the first that there is."""
TITLE_LENGTH = 120
"""Most characters of a title; an item without one shows the start of its text."""
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EventTask:
    """What the worker needs."""

    store: Store
    folder: str
    hits: list[Part]
    codes: list[Part]
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    head: Mapping[str, Any]
    """What all lines say: event, time, run, stage, round, split, model."""


def write_events(context: Context, stage: Stage) -> Commit:
    """Write the lines of one evaluation."""
    ingested = read_ingested(context)
    hits, vectors = context.need(stage.sibling(Kind.HITS)), context.need(stage.sibling(Kind.EMBED))
    model = evaluated_model(context, stage)
    time = datetime.fromtimestamp(hits.created, UTC).isoformat(timespec="seconds")
    head = {
        "event": "retrieval_eval",
        "time": time,
        "run": context.config.name,
        "stage": stage.about,
        "round": model.round,
        "split": stage.split,
        "model": vectors.inputs["model"],
    }

    def work(folder: str) -> Outcome:
        outcome: Outcome = in_worker(
            _write,
            context,
            EventTask(
                context.store,
                folder,
                hits.parts("hits"),
                ingested.codes,
                ingested.corpus,
                ingested.queries,
                ingested.labels,
                head,
            ),
        )
        return outcome

    inputs = {"hits": hits.key, "tables": ingested.tables.key, "head": head}
    return context.commit(stage, inputs=inputs, work=work)


def _write(task: EventTask) -> Outcome:
    log = EventLog(task.store, task.folder)
    for record in _records(task):
        log.add(record)
    # the files are no part of the commit: the oldest are deleted as others come
    return Outcome(figures=log.close())


class EventLog:
    """JSON lines in files of bounded size and number."""

    def __init__(self, store: Store, folder: str, *, file_bytes: int = FILE_BYTES, kept_files: int = KEPT_FILES) -> None:
        self._store, self._folder, self._file_bytes, self._kept_files = store, folder, file_bytes, kept_files
        self._lines: list[bytes] = []
        self._size = self._count = self._files = self._bytes = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one line; a file is begun where it would make the open one too large."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if self._lines and self._size + len(line) > self._file_bytes:
            self._flush()
        self._lines.append(line)
        self._size += len(line)
        self._count += 1

    def close(self) -> dict[str, int]:
        """Write what is left; {"lines", "files", "bytes"}."""
        if self._lines:
            self._flush()
        return {"lines": self._count, "files": self._files, "bytes": self._bytes}

    def _flush(self) -> None:
        path = f"{self._folder}/retrieval_eval-{self._files:05d}.jsonl"
        data = b"".join(self._lines)
        self._store.write_bytes(path, data)
        self._lines, self._size = [], 0
        self._files += 1
        self._bytes += len(data)
        self._keep(path)

    def _keep(self, path: str) -> None:
        known = self._store.read_json(INDEX)["files"] if self._store.exists(INDEX) else []
        files = [*(name for name in known if name != path), path]  # an interrupted attempt may have written it before
        gone = len(files) - self._kept_files
        for name in files[: max(0, gone)]:
            self._store.delete(name)
        self._store.write_json(INDEX, {"files": files[max(0, gone) :]})


def _records(task: EventTask) -> Iterator[dict[str, Any]]:
    """All lines in the order of the queries, with the texts of some blocks' hits in memory at a time."""
    labels = read_parts(task.store, task.labels, ["query_row", "item_row", "score"])
    labels = labels.filter(pc.not_equal(labels["score"], NO_NEGATIVE))
    query_J, item_J, score_J = (labels[name].to_numpy() for name in ("query_row", "item_row", "score"))
    query_columns = ["id", "text", "item_row", *[name for name in KINDS if has_texts(task.store, task.queries[0], name)][:1]]
    depth = max(RESULTS, *CUTOFFS)
    for group in group_blocks(task.hits, rows_at_once(task.corpus), RESULTS, 1):
        found = pa.concat_tables(
            [read_part(task.store, task.hits[number], ["query_row", "item_rows", "scores"]) for number in group]
        )
        query_rows = found["query_row"].to_numpy()
        queries = read_rows(task.store, task.queries, query_rows, query_columns)
        hits = without_self(*dense_hits(found), queries["item_row"].to_numpy())
        query, label = placed(query_rows, query_J)
        item, relevant = item_J[label], score_J[label] > 0
        texts = ItemTexts.read(task.store, task.codes, [hits[0], item])
        rows_QK, scores_QK, _ = texts.without_copies(*hits, query, item, relevant)
        rows_QK, scores_QK = rows_QK[:, :depth], scores_QK[:, :depth]
        relevant_QK = contains(query[relevant], item[relevant], rows_QK)
        known_Q = np.isin(np.arange(len(query_rows)), query[relevant])
        shown_QK = rows_QK[:, :RESULTS]
        items = _items(task, np.unique(shown_QK[shown_QK >= 0]))
        yield from make_records(task.head, queries, rows_QK, scores_QK, relevant_QK, known_Q, items)


def _items(task: EventTask, rows: I64) -> dict[int, tuple[str, str]]:
    """Row -> (id, title) of some items."""
    column = "title" if has_texts(task.store, task.corpus[0], "title") else "text"
    table = read_rows(task.store, task.corpus, rows, ["id", column])
    titles = cut(table[column], TITLE_LENGTH)
    return dict(zip(rows.tolist(), zip(table["id"].to_pylist(), titles, strict=True), strict=True))


def make_records(
    head: Mapping[str, Any],
    queries: pa.Table,
    rows_QK: I64,
    scores_QK: F32,
    relevant_QK: Bool,
    known_Q: Bool,
    items: Mapping[int, tuple[str, str]],
) -> Iterator[dict[str, Any]]:
    """The lines of some queries.

    Args:
        head: what all of them say.
        queries: id, text, and perhaps one of KINDS.
        rows_QK: hits, best first, -1 padding; scores_QK: their cosines; relevant_QK: whether they are relevant.
        known_Q: whether the query has a relevant item; its hit flags are null where it has none.
        items: row -> (id, title), of the first RESULTS hits.
    """
    kind = next((name for name in KINDS if name in queries.column_names), None)
    columns = (
        queries["id"].to_pylist(),
        queries["text"].to_pylist(),
        queries[kind].to_pylist() if kind else [None] * queries.num_rows,
    )
    for place, (query_id, text, of_kind) in enumerate(zip(*columns, strict=True)):
        rows, relevant = rows_QK[place].tolist(), relevant_QK[place].tolist()
        top = [
            {"item_id": items[row][0], "title": items[row][1], "score": round(float(score), 6), "relevant": good}
            for row, score, good in zip(rows[:RESULTS], scores_QK[place, :RESULTS], relevant, strict=False)
            if row >= 0
        ]
        hits = {f"hit@{cutoff}": any(relevant[:cutoff]) if known_Q[place] else None for cutoff in CUTOFFS if cutoff <= len(rows)}
        yield {
            **head,
            "query_id": query_id,
            "query": text,
            "kind": of_kind,
            "top": top,
            "hits": hits,
            "latency_ms": None,
        }  # of one query alone: a search in blocks has none
