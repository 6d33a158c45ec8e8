"""Candidates by words: the items whose texts share rare words with a query's (BM25), whatever any model thinks of them.

One Ray task builds the index from the run's texts and searches query block after block. Each finished block is one object
in storage, so an interrupted search repeats only the blocks that are missing.

Q queries of a block, N items, K hits, W words of all queries, P postings: (word, item) pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.compiled import compiled
from cluster.labels.read import read_labels
from cluster.session.progress import post
from cluster.session.session import memory_to_ask, set_threads
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, csr_to_lists, left_parts, part_name, parts_between, read_part, write_part
from mining.memory import PROCESS_BYTES, word_index_bytes
from mining.search.known import known_items
from mining.search.shards import QueryBlock
from mining.sources.words import words

LOWEST = np.int64(0x7FFFFFFF)


@dataclass(frozen=True)
class Bm25Task:
    """What to search where."""

    store: Store
    corpus: list[Part]
    codes: list[Part]
    queries: list[Part]
    labels: list[Part]
    num_queries: int
    num_hits: int
    folder: str


class WordIndex:
    """BM25 weights of every word in every text: k1 = 1.5, b = 0.75, idf as in Lucene (never negative).

    Source: Robertson and Zaragoza 2009; Lù 2024 (bm25s), which computes the weights ahead of any query.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Args: texts: of the items in the order of their rows; may be of any script. Memory: 8 bytes a word while it is
        built, 12 bytes a posting afterwards."""
        self.vocabulary: dict[str, int] = {}
        found = [[self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words(text)] for text in texts]
        self.num_items = len(found)
        self._starts, self._items, self._weights = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
        if self.vocabulary:  # bm25s fails on an empty one
            import bm25s

            index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
            index.index((found, self.vocabulary), create_empty_token=False, show_progress=False)
            self._starts = index.scores["indptr"].astype(np.int64)
            self._items, self._weights = index.scores["indices"], index.scores["data"]

    def best(self, texts: Sequence[str], num_hits: int, known: tuple[I64, I64], threads: int = 1) -> tuple[I64, F32, I64]:
        """The items that share words with each text.

        A word counts as often as the text has it. bm25s would search as well, but among equal scores it leaves to chance
        which items are hits.

        Args:
            known: (offsets [Q+1], rows) of items that are no hits.

        Returns:
            (offsets [Q+1], scores, item rows): at most `num_hits` for each text, highest score first, equal ones by
            smaller row; an item without a common word is none. The same for any number of threads.
        """
        found = [[self.vocabulary[word] for word in words(text) if word in self.vocabulary] for text in texts]
        word_offsets = np.cumsum([0, *map(len, found)])
        flat = np.array([word for some in found for word in some], np.int64)
        keep = min(num_hits, self.num_items)
        rows, scores = np.full((len(texts), keep), -1, np.int64), np.zeros((len(texts), keep), np.float32)
        _best(word_offsets, flat, self._starts, self._items, self._weights, *known, self.num_items, threads, rows, scores)
        real = rows >= 0
        return np.cumsum([0, *real.sum(axis=1)]), scores[real], rows[real]


@compiled(parallel=True)
def _best(
    word_offsets: I64,
    words_W: I64,
    starts: I64,
    items_P: npt.NDArray[np.int32],
    weights_P: F32,
    known_offsets: I64,
    known: I64,
    num_items: int,
    threads: int,
    out_rows: I64,
    out_scores: F32,
) -> None:
    keep = out_rows.shape[1]
    for thread in numba.prange(threads):
        scores = np.zeros(num_items, np.float32)  # all zero again after each query
        bits = scores.view(np.int32)
        touched = np.empty(num_items, np.int32)
        for query in range(thread, len(out_rows), threads):
            count = 0
            for place in range(word_offsets[query], word_offsets[query + 1]):
                word = words_W[place]
                for posting in range(starts[word], starts[word + 1]):
                    item = items_P[posting]
                    if scores[item] == 0.0:
                        touched[count] = item
                        count += 1
                    scores[item] += weights_P[posting]
            for place in range(known_offsets[query], known_offsets[query + 1]):
                scores[known[place]] = 0.0
            keys = np.empty(count, np.uint64)  # (score, row) as one number, smaller is better: scores are positive
            real = 0
            for place in range(count):
                item = touched[place]
                if scores[item] > 0.0:
                    keys[real] = (np.uint64(LOWEST - bits[item]) << np.uint64(32)) | np.uint64(item)
                    real += 1
            best = np.partition(keys[:real], keep - 1)[:keep] if real > keep else keys[:real]
            best.sort()
            for place in range(len(best)):
                item = np.int64(best[place] & np.uint64(0xFFFFFFFF))
                out_rows[query, place], out_scores[query, place] = item, scores[item]
            for place in range(count):
                scores[touched[place]] = 0.0


def search_words(
    task: Bm25Task, blocks: Sequence[QueryBlock], *, threads: int, retries: int, mailbox: Any = None
) -> tuple[list[Part], float]:
    """Search every block that is not there yet, in one task with `threads` CPUs.

    Returns:
        (a part for each block: query_row, item_rows, scores; seconds of work). Relevant items of a query and their group
        mates take no place in its list, as in a search of vectors for mining.
    """
    import ray

    there = left_parts(task.store, _targets(task, blocks))
    parts = list(there.values())
    todo = [block for block, target in zip(blocks, _targets(task, blocks), strict=True) if target.path not in there]
    seconds = 0.0
    if todo:
        asked = memory_to_ask(PROCESS_BYTES + word_index_bytes(sum(part.bytes for part in task.corpus)))
        remote = ray.remote(search_blocks).options(num_cpus=threads, max_retries=retries, memory=asked)
        written, seconds = ray.get(remote.remote(task, todo, threads, mailbox))
        parts += written
    return sorted(parts, key=lambda part: part.path), seconds


def _targets(task: Bm25Task, blocks: Sequence[QueryBlock]) -> list[Part]:
    return [Part(f"{task.folder}/{part_name(block.index)}", len(block.query_rows), 0) for block in blocks]


def search_blocks(task: Bm25Task, blocks: Sequence[QueryBlock], threads: int, mailbox: Any = None) -> tuple[list[Part], float]:
    """What `search_words` does in its task; a task that is started again leaves out what it wrote before."""
    started = time.monotonic()
    set_threads(threads)
    there = left_parts(task.store, _targets(task, blocks))
    index = WordIndex(_texts(task, mailbox))
    labels = read_labels(task.store, task.labels, task.codes, task.num_queries)
    parts, done = [], 0
    for block in blocks:
        path, done = f"{task.folder}/{part_name(block.index)}", done + len(block.query_rows)
        if path in there:
            parts.append(there[path])
            continue
        excluded = known_items(labels, block.query_rows)
        offsets, scores, rows = index.best(_query_texts(task, block), task.num_hits, (excluded.offsets, excluded.rows), threads)
        table = pa.table(
            {"query_row": block.query_rows, "item_rows": csr_to_lists(offsets, rows), "scores": csr_to_lists(offsets, scores)}
        )
        parts.append(write_part(task.store, path, table))
        post(mailbox, "bm25", f"{done:,} queries × {index.num_items:,} texts")
    return parts, time.monotonic() - started


def _texts(task: Bm25Task, mailbox: Any) -> Iterator[str]:
    done = 0
    for part in sorted(task.corpus, key=lambda part: part.first_row):
        yield from read_part(task.store, part, ["text"])["text"].to_pylist()
        done += part.rows
        post(mailbox, "bm25", f"{done:,} texts indexed")


def _query_texts(task: Bm25Task, block: QueryBlock) -> list[str]:
    rows = block.query_rows
    tables = [
        (part.first_row + low, read_part(task.store, part, ["text"]).slice(low, high - low))
        for part, low, high in parts_between(task.queries, int(rows[0]), int(rows[-1]) + 1)
    ]
    first = tables[0][0]
    texts: list[str] = pa.concat_tables([table for _, table in tables])["text"].take(pa.array(rows - first)).to_pylist()
    return texts
