"""Query blocks: loading them with the known items of their queries, merging the shards' hits, writing finished ones.

Q queries of a block, K hits, P pairs whose scores are computed whatever their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import ArtifactError, DamagedObject
from cluster.labels.labels import Labels
from cluster.labels.read import read_labels
from cluster.session.session import set_threads
from cluster.storage.store import Store
from cluster.tables.tables import (
    AHEAD_BYTES,
    F32,
    I64,
    IN_FLIGHT,
    Part,
    column_to_vectors,
    csr_to_lists,
    lists_to_csr,
    offsets_of,
    read_part,
    write_part,
)
from mining.search.kernels import sort_hits
from mining.search.known import known_items, read_lists, united
from mining.search.shards import QueryBlock
from mining.search.topk import Lists


@dataclass(frozen=True)
class SearchTask:
    """What to search where."""

    store: Store
    item_vectors: list[Part]
    query_vectors: list[Part]
    labels: list[Part]
    """Judged pairs, whose scores are computed too: a positive may be far outside the best K. Empty: none."""
    codes: list[Part]
    """What items have in common, as integers; read where known items are left out."""
    num_queries: int
    num_hits: int
    """0: score the pairs only."""
    folder: str
    exclude_known: bool = False
    """Leave relevant items and their group mates out of the hits; how many would have been hits is written."""
    also: tuple[Part, ...] = ()
    """For each block, in their order: more pairs to score (query_row, also_rows)."""
    histories: tuple[Part, ...] = ()
    """Query table with `history_rows`, what was met before: no hits of the query. Empty: there are no histories."""
    mailbox: Any = None
    """Where progress is posted; None: nowhere."""


@dataclass(frozen=True)
class LoadedBlock:
    """A query block with its vectors, the items that are no hits, and the pairs to score."""

    query_rows: I64
    vectors: F32
    labels: Lists
    also: Lists
    excluded: Lists

    @property
    def pairs(self) -> tuple[I64, I64]:
        """(query position [P], corpus row [P]) of labels, then also, then excluded."""
        parts = (self.labels, self.also, self.excluded)
        return np.concatenate([part.owners for part in parts]), np.concatenate([part.rows for part in parts])


@dataclass(frozen=True)
class BlockHits:
    """The hits of a block in one or several shards."""

    scores: F32
    """[Q, K]"""
    rows: I64
    """[Q, K] corpus rows, -1 padding."""
    pair_scores: F32
    """[P] scores of the block's pairs; -inf where no shard so far holds the item."""
    seconds: float


READ_AT_ONCE = 4
"""Parts that are fetched and decoded at the same time."""


def read_vectors(store: Store, parts: Sequence[Part], start: int, stop: int) -> F32:
    """Vectors of rows start … stop - 1, float32.

    Raises:
        ArtifactError: rows are missing.
    """
    return read_rows(store, parts, np.arange(start, stop))


def read_rows(store: Store, parts: Sequence[Part], rows: I64) -> F32:
    """Vectors of some ascending rows, float32; only the parts that hold any are read.

    Raises:
        ArtifactError: rows are missing.
    """
    result, filled = np.zeros((len(rows), 0), np.float32), 0
    edges = [(part, *np.searchsorted(rows, [part.first_row, part.first_row + part.rows])) for part in parts]
    wanted = [(part, int(low), int(high)) for part, low, high in edges if low < high]
    largest = max([1, *(part.bytes for part, _, _ in wanted)])
    at_once = max(READ_AT_ONCE, min(IN_FLIGHT, AHEAD_BYTES // largest))
    with ThreadPoolExecutor(at_once) as pool:
        for start in range(0, len(wanted), at_once):  # no more in memory than are read at once
            group = wanted[start : start + at_once]
            spans = [(int(rows[low]), int(rows[high - 1]) + 1) for _, low, high in group]
            tables = pool.map(lambda part, span: _read_span(store, part, *span), [part for part, _, _ in group], spans)
            for (_, low, high), (first, last), table in zip(group, spans, tables, strict=True):
                vectors = column_to_vectors(table["vector"])
                if not filled:
                    result = np.empty((len(rows), vectors.shape[1]), np.float32)
                whole = high - low == last - first
                result[low:high] = vectors if whole else vectors[rows[low:high] - first]
                filled += high - low
    if filled != len(rows):
        raise ArtifactError(
            f"expected the vectors of {len(rows)} rows from {rows[0]} to {rows[-1]}, found {filled} of them "
            f"below {store.root}; delete the commit of this embed stage and run again"
        )
    return result


def _read_span(store: Store, part: Part, first: int, last: int) -> pa.Table:
    return read_part(store, part, ["vector"], (first - part.first_row, last - part.first_row))


def merge_hits(found: Sequence[BlockHits], num_hits: int) -> BlockHits:
    """Merge the hits of disjoint shards: equals searching one shard that holds all of them."""
    if len(found) == 1:
        return found[0]
    scores, rows = found[0].scores, found[0].rows
    if num_hits:
        scores, rows = sort_hits(
            np.concatenate([hits.scores for hits in found], axis=1),
            np.concatenate([hits.rows for hits in found], axis=1),
            num_hits,
        )
    pairs = np.max(np.stack([hits.pair_scores for hits in found]), axis=0)
    return BlockHits(scores, rows, pairs, max(hits.seconds for hits in found))


def known_labels(task: SearchTask) -> Labels | None:
    """What all loaders of a search share: its labels, and the groups of relevant items where they are left out; None: there
    are no labels."""
    if not task.labels:
        return None
    labels = read_labels(task.store, task.labels, task.codes if task.exclude_known else [], task.num_queries)
    _ = labels.groups  # looked up once, not by every loader
    return labels


class BlockActor:
    """Loads query blocks, merges what the shards found, writes finished blocks. Serves one search after another."""

    def __init__(self) -> None:
        set_threads(1)  # beside the shard holders, which have the processors

    def load(self, task: SearchTask, block: QueryBlock, known: Labels | None) -> LoadedBlock:
        """The vectors of a block, and the lists of its queries.

        Args:
            known: of `known_labels`.
        """
        rows = block.query_rows
        vectors = read_rows(task.store, task.query_vectors, rows)
        none = Lists(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int64))
        labels, excluded, also = none, none, none
        if known is not None:
            labels = Lists(known.offsets, known.item_rows).take(rows)
            if task.exclude_known:
                excluded = known_items(known, rows)
        if task.histories:
            excluded = united(excluded, read_lists(task.store, task.histories, "history_rows", rows))
        if task.also and block.index >= 0:  # samples have none
            table = read_part(task.store, task.also[block.index], ["query_row", "also_rows"])
            if not np.array_equal(table["query_row"].to_numpy(), rows):
                raise ArtifactError(
                    f"expected the pairs of query block {block.index} in "
                    f"{task.also[block.index].path}, found other queries; delete the commit of the "
                    f"stage that wrote it and run again"
                )
            also = Lists(*lists_to_csr(table["also_rows"]))
        return LoadedBlock(rows, np.ascontiguousarray(vectors), labels, also, excluded)

    def merge(self, task: SearchTask, *found: BlockHits) -> BlockHits:
        """The best K over several shards."""
        return merge_hits(found, task.num_hits)

    def keep(self, task: SearchTask, path: str, before: str | None, *found: BlockHits) -> float:
        """Merge with what the waves before left at `before`, and keep the result at `path` for the next one.

        Returns the seconds that the slowest shard took.
        """
        merged = self._with_kept(task, before, found)
        queries, num_hits = merged.scores.shape
        offsets = np.arange(queries + 1) * num_hits
        pairs = np.minimum(np.arange(queries + 1), 1) * len(merged.pair_scores)  # all of them in the first row
        write_part(
            task.store,
            path,
            pa.table(
                {  # one object: either all of it is there or nothing
                    "scores": csr_to_lists(offsets, merged.scores.ravel()),
                    "rows": csr_to_lists(offsets, merged.rows.ravel()),
                    "pair_scores": csr_to_lists(pairs, merged.pair_scores),
                }
            ),
        )
        return merged.seconds

    def _with_kept(self, task: SearchTask, path: str | None, found: Sequence[BlockHits]) -> BlockHits:
        """`found` merged, with what the waves before kept at `path`."""
        if path is None:
            return self.merge(task, *found)
        like, table = found[0], read_part(task.store, path, ["scores", "rows", "pair_scores"])
        scores, rows, pairs = (lists_to_csr(table[name])[1] for name in ("scores", "rows", "pair_scores"))
        if (scores.size, rows.size, pairs.size) != (like.scores.size, like.rows.size, like.pair_scores.size):
            raise DamagedObject.at(
                task.store.url(path),
                f"expected {like.scores.size} hits and {like.pair_scores.size} pairs in "
                f"{task.store.url(path)}, found {rows.size} and {pairs.size}; `hardmine run` searches for "
                f"them anew",
            )
        return self.merge(task, *found, BlockHits(scores.reshape(like.scores.shape), rows.reshape(like.rows.shape), pairs, 0.0))

    def write(
        self, task: SearchTask, path: str, loaded: LoadedBlock, before: str | None, *found: BlockHits
    ) -> tuple[Part, float]:
        """Merge for the last time and write the block; (its part, seconds the slowest shard took)."""
        hits = self._with_kept(task, before, found)
        table = hits_table(loaded, hits, with_also=bool(task.also))
        return write_part(task.store, path, table), hits.seconds


def hits_table(loaded: LoadedBlock, hits: BlockHits, *, with_also: bool) -> pa.Table:
    """A block as it is written: see docs/mining.md for the columns."""
    labels, also = len(loaded.labels.rows), len(loaded.labels.rows) + len(loaded.also.rows)
    columns = {"query_row": loaded.query_rows}
    num_hits = hits.rows.shape[1]
    if with_also or not num_hits:
        columns |= {
            "also_rows": csr_to_lists(loaded.also.offsets, loaded.also.rows),
            "also_scores": csr_to_lists(loaded.also.offsets, hits.pair_scores[labels:also]),
        }
    if not num_hits:
        return pa.table(columns)
    real = hits.rows >= 0
    offsets = offsets_of(real.sum(axis=1))
    # a known item counts as left out if it comes before the K-th hit, or anywhere where there are fewer hits
    owners = loaded.excluded.owners
    last_score, last_row = np.where(real[:, -1], hits.scores[:, -1], -np.inf)[owners], hits.rows[owners, -1]
    score = hits.pair_scores[also:]
    near = (score > last_score) | ((score == last_score) & (loaded.excluded.rows < last_row))
    return pa.table(
        columns
        | {
            "item_rows": csr_to_lists(offsets, hits.rows[real]),
            "scores": csr_to_lists(offsets, hits.scores[real]),
            "label_rows": csr_to_lists(loaded.labels.offsets, loaded.labels.rows),
            "label_scores": csr_to_lists(loaded.labels.offsets, hits.pair_scores[:labels]),
            "excluded": np.bincount(owners[near], minlength=len(real)).astype(np.int32),
        }
    )
