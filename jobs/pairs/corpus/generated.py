"""Queries that a language model writes for items, kept where they lead back to their item. Each answer is committed.

    answers/<part>/<item>.json   what the model wrote for one item; an item that has one is not asked for again
    generated-*                  text u64, raw str, item str, cut by text: what is left after the round trip

Items are chosen by the hashes of their ids: the same ones in every run.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import DamagedObject
from cluster.http import Client, Refused, Server
from cluster.storage.records import read_record, write_record
from cluster.storage.store import Store
from cluster.tables.tables import read_part
from jobs.pairs.corpus.round_trip import Pool, item_texts, leads_back
from jobs.pairs.corpus.synthetic import in_bins
from jobs.pairs.labels.texts import text_keys
from jobs.pairs.partitions import hashes, partition_of, write_partitions
from jobs.pairs.reading.clean import with_text
from jobs.pairs.reading.notes import Notes
from jobs.pairs.sessions.together import ITEM_SALT

EACH = 3
"""Queries that are asked for, for each item."""
MOST_REFUSED = 20
"""Items that the server may refuse one after another; then the request is wrong, not the item."""
KEY = "HARDMINE_GENERATOR_KEY"
"""Environment variable with the server's key."""
SYSTEM = "You write queries that people type into a search field. Answer with a JSON list of texts, and nothing else."


@dataclass(frozen=True)
class GenerateTask:
    """A part of the corpus, and what all tasks need."""

    part: str
    share: float
    """Of the items, those that are asked for."""
    examples: tuple[str, ...]
    """How users write."""
    server: str
    model: str
    pool: Pool
    partitions: int


def generate(store: Store, folder: str, number: int, task: GenerateTask) -> dict[str, Any]:
    """Ask for queries of the chosen items of one part of the corpus, and keep those that lead back to their item."""
    table = read_part(store, task.part)
    keys = hashes(table["id"], ITEM_SALT)
    table = table.filter(pa.array((keys >> np.uint64(11)).astype(np.float64) / 2.0**53 < task.share))
    ids, texts = table["id"].to_pylist(), item_texts(table)
    counts: Counter[str] = Counter()
    answers = _answers(store, f"{folder}/answers/{number:05d}", task, dict(zip(ids, texts, strict=True)), counts)
    rows = [(row, query) for row, item in enumerate(ids) for query in answers.get(item, ())]
    written = pa.table(
        {"owner": pa.array([row for row, _ in rows], pa.int64()), "raw": pa.array([raw for _, raw in rows], pa.string())}
    )
    notes = Notes()
    usable = with_text(written, notes, "raw")
    back = leads_back(store, task.pool, usable["raw"].to_pylist(), usable["owner"].to_numpy(), ids, texts)
    kept = usable.filter(pa.array(back))
    counts["written"] = written.num_rows
    counts["not usable as a query"] = written.num_rows - usable.num_rows
    counts["does not lead back to its item"] = usable.num_rows - kept.num_rows
    text = text_keys(kept["raw"])[1]
    items = pa.array(ids, pa.string()).take(kept["owner"].combine_chunks())
    result = pa.table({"text": text, "raw": kept["raw"], "item": items})
    path = f"{folder}/generated-{number:05d}"
    objects = write_partitions(store, path, result, partition_of(text, task.partitions), task.partitions)
    return {"objects": objects, "items": len(ids), "bins": in_bins(np.unique(text)), "counts": dict(counts)}


def _answers(
    store: Store, folder: str, task: GenerateTask, items: Mapping[str, str], counts: Counter[str]
) -> dict[str, list[str]]:
    """Item -> the queries that the model wrote; those that are there are read, the others are asked for and written."""
    answers: dict[str, list[str]] = {}
    for path in store.list(folder):
        try:
            record = read_record(store, path)
        except DamagedObject:
            continue  # asked for again
        answers[record["item"]] = record["queries"]
    waiting = [item for item in items if item not in answers and items[item]]
    refused = 0
    with Client(Server(task.server, "generate.url", KEY)) as client:

        def ask(item: str) -> list[str] | Refused:
            try:
                return client.ask(_request(task, items[item]), _queries)
            except Refused as error:
                return error

        for item, answer in client.over(waiting, ask):
            if isinstance(answer, Refused):
                refused += 1
                counts["items that the server refused"] += 1
                if refused > MOST_REFUSED:
                    raise answer
                continue
            refused = 0
            write_record(store, f"{folder}/{hashes(pa.array([item]), ITEM_SALT)[0]:016x}.json", {"item": item, "queries": answer})
            answers[item] = answer
        counts["requests made again"] = client.retries
    counts["answers without a list of queries"] = sum(not queries for queries in answers.values())
    return answers


def _request(task: GenerateTask, text: str) -> dict[str, Any]:
    examples = "".join(f"\n- {query}" for query in task.examples)
    style = f"Users write like this:{examples}\n\n" if examples else ""
    content = f"{style}Write {EACH} different queries that this is the best answer to:\n\n{text}"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    return {"model": task.model, "messages": messages, "temperature": 0.7, "seed": 0}


def _queries(answer: Any) -> list[str]:
    """The texts in an answer; none where the model wrote no list. Raises ValueError: it is no chat completion."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("has no choices[0].message.content") from error
    listed = re.search(r"\[.*\]", content or "", re.DOTALL)
    try:
        texts = json.loads(listed[0]) if listed else []
    except ValueError:
        return []
    return list(dict.fromkeys(text for text in texts if isinstance(text, str)))[:EACH]
