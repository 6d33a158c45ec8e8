"""The candidates of a block of queries, with everything that filters and choice compare them to.

Q queries of a block, K candidates per query in their order (best first; of several sources, fused by rank).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ArtifactError
from cluster.labels.labels import Labels, gather_csr
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, lists_to_csr, parts_between, read_part
from mining.settings import SourceKind
from mining.sources.fuse import Fused, fuse, look_up

SOURCES = (*get_args(SourceKind), "judged")
"""What a source code stands for. "judged" is no source of candidates: a person judged the item irrelevant."""
JUDGED = SOURCES.index("judged")


@dataclass(frozen=True)
class Candidates:
    """The candidates of a block."""

    query_rows: I64
    """[Q]"""
    rows: I64
    """[Q, K] corpus rows, -1 padding."""
    scores: F32
    """[Q, K] cosines under the current model, whichever source the item comes from; -inf padding."""
    lowest_positive: F32
    """[Q] lowest score among the query's relevant items; NaN: it has none."""
    mean_positive: F32
    """[Q]"""
    highest_positive: F32
    """[Q]"""
    self_rows: I64
    """[Q] the item that the query is; -1: it is none."""
    excluded: I64
    """[Q] known positives that the search left out of the candidates though they were near enough."""
    source: npt.NDArray[np.uint8]
    """[Q, K] code in SOURCES of the source that places the item best."""
    position: I64
    """[Q, K] position in that source's list, from 0."""
    teacher: F32 | None = None
    """[Q, K] the teacher's scores; NaN: not read. None: no teacher."""
    teacher_positive: F32 | None = None
    """[Q] the teacher's score of the relevant item that counts (margin_reference); NaN: none."""
    teacher_positives: F32 | None = None
    """[P] its scores of all relevant items, in the order of `Labels.positives`; NaN: not read, or the query itself."""

    def is_self(self, owner: I64, rows: I64) -> npt.NDArray[np.bool_]:
        """Which items are the item that the query itself is; such an item is no negative, and no measure of one.

        Args:
            owner: position in the block of each item's query. rows: corpus rows, as many; or both broadcast to one shape.
        """
        same: npt.NDArray[np.bool_] = (rows == self.self_rows[owner]) & (rows >= 0)
        return same

    def positive(self, reference: str) -> F32:
        """[Q] the score that margins are taken from: "lowest", "mean" or "highest"."""
        return {"lowest": self.lowest_positive, "mean": self.mean_positive, "highest": self.highest_positive}[reference]


@dataclass(frozen=True)
class ExtraParts:
    """Candidates of other sources than the model's own search, for the same queries in the same order."""

    pairs: list[Part]
    """query_row, also_rows (items that are not among the model's hits), and a list of rows per source, e.g. bm25_rows."""
    scored: list[Part]
    """query_row, also_rows, also_scores: those of `pairs` with their cosines under the current model."""
    shares: Mapping[str, float]
    """Source -> its weight; with that of "model"."""


def load_candidates(
    store: Store, hits: Sequence[Part], number: int, labels: Labels, self_rows: I64, extra: ExtraParts | None = None
) -> tuple[pa.Table, Candidates]:
    """The candidates of the queries of hits part `number`.

    Args:
        self_rows: of every query of the run, the item that it is; -1: none.
        extra: other sources' candidates, fused by rank with the model's; their parts may be cut elsewhere than the hits.

    Returns:
        (the hits part's table, its candidates). Of one source they are its hits as they are.

    Raises:
        ArtifactError: the extra parts are of other queries, or a pair has no score.
    """
    table = read_part(store, hits[number])
    query_rows = table["query_row"].to_numpy()
    rows, scores = dense_hits(table)
    source = np.zeros(rows.shape, np.uint8)
    position = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int64), rows.shape)
    if extra is not None:
        fused, scores = _fuse_extra(store, extra, query_rows, first_query(hits, number), rows, scores)
        rows, source, position = fused.rows, fused.source, fused.position
    excluded = np.zeros(len(query_rows), np.int64)
    if "excluded" in table.column_names:
        excluded = table["excluded"].to_numpy().astype(np.int64)
    lowest, mean, highest = _positive_range(table, labels)
    return table, Candidates(query_rows, rows, scores, lowest, mean, highest, self_rows[query_rows], excluded, source, position)


def first_query(hits: Sequence[Part], number: int) -> int:
    """Where the queries of hits part `number` begin among all queries of the hits."""
    return sum(part.rows for part in hits[:number])


def _fuse_extra(store: Store, extra: ExtraParts, query_rows: I64, start: int, rows: I64, scores: F32) -> tuple[Fused, F32]:
    kinds = [kind for kind in SOURCES if kind in extra.shares]
    others = [kind for kind in kinds if kind != "model"]
    pairs = read_span(store, extra.pairs, start, query_rows, [f"{kind}_rows" for kind in others])
    scored = read_span(store, extra.scored, start, query_rows, ["also_rows", "also_scores"])
    lists = {0: rows} | {SOURCES.index(kind): dense(pairs[f"{kind}_rows"], -1) for kind in others}
    fused = fuse(lists, {SOURCES.index(kind): extra.shares[kind] for kind in kinds})
    known = np.concatenate([rows, dense(scored["also_rows"], -1)], axis=1)
    known_scores = np.concatenate([scores, dense(scored["also_scores"], -np.inf)], axis=1)
    fused_scores = look_up(fused.rows, known, known_scores, missing=np.nan)
    missing = np.argwhere(np.isnan(fused_scores) & (fused.rows >= 0))
    if len(missing):
        query, column = missing[0]
        raise ArtifactError(
            f"expected a score of every pair in {extra.scored[0].path.rsplit('/', 1)[0]}, found none of query "
            f"row {query_rows[query]} with item row {fused.rows[query, column]}, and {len(missing)} like it; "
            f"delete the commit of the stage that wrote it and run again"
        )
    return fused, np.where(fused.rows >= 0, fused_scores, np.float32(-np.inf))


def read_span(store: Store, parts: Sequence[Part], start: int, query_rows: I64, columns: Sequence[str]) -> pa.Table:
    """The rows of some queries of a table that has the hits' queries in the hits' order, however it is cut.

    Args:
        start: place of the first of them in the table.

    Raises:
        ArtifactError: other queries are there.
    """
    firsts = np.cumsum([0, *(part.rows for part in parts)])
    placed = [replace(part, first_row=int(first)) for part, first in zip(parts, firsts, strict=False)]
    tables = [
        read_part(store, part, ["query_row", *columns]).slice(low, high - low)
        for part, low, high in parts_between(placed, start, start + len(query_rows))
    ]
    table = pa.concat_tables(tables) if tables else None
    if table is None or not np.array_equal(table["query_row"].to_numpy(), query_rows):
        raise ArtifactError(
            f"expected query rows {query_rows[0]} to {query_rows[-1]} from row {start} on in "
            f"{parts[0].path.rsplit('/', 1)[0]}, found others; delete the commit of the stage that wrote it "
            f"and run again"
        )
    return table


def dense(column: pa.ChunkedArray, padding: float) -> npt.NDArray[Any]:
    """A list column as [Q, longest list], at least one column wide."""
    offsets, values = lists_to_csr(column)
    lengths = np.diff(offsets)
    mask = np.arange(max(1, int(lengths.max(initial=1))))[None, :] < lengths[:, None]
    result = np.full(mask.shape, padding, values.dtype)
    result[mask] = values
    return result


def without_self(rows_QK: I64, scores_QK: F32, own_Q: I64) -> tuple[I64, F32]:
    """The hits of queries that may be items themselves, without the item that a query is.

    Args:
        rows_QK: best first, -1 padding, one more than is wanted. scores_QK: of the same hits.
        own_Q: the item that the query is; -1: it is none, then its last hit goes.

    Returns:
        (rows, scores), [Q, K - 1].
    """
    keep = rows_QK != np.where(own_Q < 0, -2, own_Q)[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(rows_QK), rows_QK.shape[1] - 1)
    return rows_QK[keep].reshape(shape), scores_QK[keep].reshape(shape)


def dense_hits(table: pa.Table) -> tuple[I64, F32]:
    """(item rows [Q, K] with -1, scores [Q, K] with -inf) of a hits table."""
    return dense(table["item_rows"], -1), dense(table["scores"], -np.inf)


def _positive_range(table: pa.Table, labels: Labels) -> tuple[F32, F32, F32]:
    """(lowest, mean, highest) score among each query's relevant items, NaN where it has none."""
    offsets, _ = lists_to_csr(table["label_rows"])
    scores = lists_to_csr(table["label_scores"])[1].astype(np.float32)
    query_rows = table["query_row"].to_numpy()
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    start = labels.offsets[query_rows]
    grade = labels.scores[start[owner] + np.arange(len(owner)) - offsets[owner]]
    relevant = grade > 0
    lowest, highest = np.full(len(query_rows), np.inf, np.float32), np.full(len(query_rows), -np.inf, np.float32)
    np.minimum.at(lowest, owner[relevant], scores[relevant])
    np.maximum.at(highest, owner[relevant], scores[relevant])
    count = np.bincount(owner[relevant], minlength=len(query_rows))
    total = np.bincount(owner[relevant], scores[relevant].astype(np.float64), minlength=len(query_rows))
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0).astype(np.float32)
    lowest[count == 0], highest[count == 0] = np.nan, np.nan
    return lowest, mean, highest


def judged_of(table: pa.Table, labels: Labels) -> tuple[I64, I64, F32]:
    """(owner, item row, score) of the items of a hits table judged irrelevant, highest score first within a query."""
    offsets, rows = lists_to_csr(table["label_rows"])
    scores = lists_to_csr(table["label_scores"])[1].astype(np.float32)
    query_rows = table["query_row"].to_numpy()
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    grade = labels.scores[labels.offsets[query_rows][owner] + np.arange(len(owner)) - offsets[owner]]
    bad = np.flatnonzero(grade == 0)
    order = bad[np.lexsort((rows[bad], -scores[bad], owner[bad]))]
    return owner[order], rows[order].astype(np.int64), scores[order]


def relevant_scores(table: pa.Table, labels: Labels) -> F32:
    """[P] scores of a hits table's relevant items, in the order of `Labels.positives`."""
    _, index = gather_csr(labels.offsets, table["query_row"].to_numpy())
    scores: F32 = lists_to_csr(table["label_scores"])[1].astype(np.float32)[labels.scores[index] > 0]
    return scores
