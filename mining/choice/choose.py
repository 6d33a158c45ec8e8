"""Which of the surviving candidates are taken: judged items first, then the strategy's.

Q queries, K candidates per query, N negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import contains
from cluster.tables.tables import F32, I64
from mining.candidates import JUDGED, SOURCES, Candidates
from mining.choice.taking import take
from mining.settings import MiningSettings, Source

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Chosen:
    """The negatives of a block: judged items first, highest score first; then candidates in their order, best first."""

    rows: I64
    """[Q, N] corpus rows, -1 padding."""
    scores: F32
    """[Q, N] -inf padding."""
    positions: I64
    """[Q, N] position in its source's list, from 0; -1: judged irrelevant, chosen wherever it stands."""
    source: npt.NDArray[np.uint8]
    """[Q, N] code in SOURCES; 0 in padding."""
    teacher: F32
    """[Q, N] the teacher's score; NaN: it has not read the pair."""

    @property
    def judged(self) -> Bool:
        """[Q, N] a person judged it irrelevant."""
        judged: Bool = self.source == JUDGED
        return judged


def choose(
    candidates: Candidates,
    alive: Bool,
    judged: tuple[I64, I64, F32],
    settings: MiningSettings,
    seed: int,
    *,
    log_weights: F64 | None = None,
    uses: I32 | None = None,
) -> Chosen:
    """The N negatives of each query: items judged irrelevant first, then surviving candidates by the strategy.

    Of several sources each gives its share of what is left after judged items: its best survivors by its own list, or its
    random ones. What it cannot give is filled up from all the others: in the fused order, or by their random numbers.
    A random number depends on (seed, query, item) only, so the choice does not depend on the size of blocks, nor on that
    of Ray's tasks; with `uses` it does not as long as blocks come in the order of their queries.

    Args:
        judged: (query position in ascending order, item row, score) of items judged irrelevant, best first in a query.
        log_weights: [items] of `popularity_log_weights`; needed if and only if settings.popularity is set.
        uses: [items] in how many queries' lists an item is already; brought up to date, in ascending query row. Needed if
            settings.max_uses is set: candidates that have been used so often are passed over. Judged items count as uses,
            but no limit holds for them.
    """
    assert (log_weights is None) == (settings.popularity is None)
    assert uses is not None or settings.max_uses is None
    marked, marked_scores, eligible = _judged_first(candidates, alive, judged, settings.num_negatives)
    slots, quotas = _shares(candidates.source, settings.sources, settings.num_negatives)
    in_order = np.arange(candidates.rows.shape[1], dtype=np.int64)[None, :]
    if settings.choose == "top":
        overall = in_order
        within = in_order if not quotas.shape[1] else np.argsort(candidates.position, axis=1, kind="stable")
    elif settings.choose == "stratified":
        within = overall = stratified_order(candidates, eligible, settings.num_negatives)
    else:
        keys = np.where(eligible, _random_keys(candidates, settings, seed, log_weights), np.inf)
        within = overall = np.argsort(keys, axis=1, kind="stable")
    columns = np.empty((len(candidates.rows), settings.num_negatives), np.int64)
    take(
        np.argsort(candidates.query_rows, kind="stable"),
        eligible,
        np.ascontiguousarray(candidates.rows),
        slots,
        quotas,
        within,
        overall,
        marked,
        np.zeros(0, np.int32) if uses is None else uses,
        settings.max_uses or np.iinfo(np.int32).max,
        columns,
    )
    return _chosen(candidates, marked, marked_scores, columns)


def stratified_order(candidates: Candidates, eligible: Bool, strata: int) -> I64:
    """[Q, K] columns in an order whose first N are spread evenly over the range of the teacher's scores of a query.

    The range from the highest to the lowest score is cut into as many strata of equal width as there are negatives. First comes
    the nearest candidate of each stratum, then the second nearest of each, and so on; the strata in the order of their scores,
    highest first. What the teacher has not read comes last.

    Source: a student sees the teacher's whole preference, not only that among the hardest (arXiv 2604.04734).
    """
    assert candidates.teacher is not None
    read = eligible & ~np.isnan(candidates.teacher)
    highest = np.where(read, candidates.teacher, -np.inf).max(axis=1, keepdims=True)
    lowest = np.where(read, candidates.teacher, np.inf).min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (highest.astype(np.float64) - candidates.teacher) / (highest.astype(np.float64) - lowest)
    share = np.where(read & np.isfinite(share), share, 0.0)  # all scores are the same: one stratum
    stratum = np.where(read, np.minimum((share * strata).astype(np.int64), strata - 1), strata)
    order = np.argsort(stratum, axis=1, kind="stable")  # in a stratum as the candidates come, nearest first
    sorted_stratum = np.take_along_axis(stratum, order, axis=1)
    column = np.arange(order.shape[1])
    starts = np.where(np.diff(sorted_stratum, axis=1, prepend=-1) > 0, column, 0)
    turn = column - np.maximum.accumulate(starts, axis=1)
    keys = np.empty_like(stratum)
    turn = np.where(sorted_stratum < strata, turn, len(column))
    np.put_along_axis(keys, order, turn * (strata + 1) + sorted_stratum, axis=1)
    return np.argsort(keys, axis=1, kind="stable")


def popularity_log_weights(popularity_N: npt.NDArray[np.floating] | I64, power: float) -> F64:
    """[items] log of popularity ^ -power; zero, negative and missing popularity counts as the smallest positive one."""
    popularity = popularity_N.astype(np.float64)
    real = np.isfinite(popularity) & (popularity > 0)
    smallest = popularity[real].min(initial=np.inf)
    filled = np.where(real, popularity, smallest if real.any() else 1.0)
    result: F64 = -power * np.log(filled)
    return result


def quotas_of(shares: Sequence[float], most: int) -> I64:
    """[most + 1, S]: how many each of S sources gives of 0 … most, by the largest remainder, ties to the earlier source."""
    exact = np.arange(most + 1)[:, None] * np.asarray(shares, np.float64) / sum(shares)
    quotas = np.floor(exact).astype(np.int64)
    order = np.argsort(quotas - exact, axis=1, kind="stable")
    missing = np.arange(most + 1) - quotas.sum(axis=1)
    extra = (np.arange(len(shares)) < missing[:, None]).astype(np.int64)
    np.put_along_axis(quotas, order, np.take_along_axis(quotas, order, axis=1) + extra, axis=1)
    return quotas


def _shares(source: npt.NDArray[np.uint8], sources: Sequence[Source], num_negatives: int) -> tuple[I32, I64]:
    """(slot of each candidate [Q, K] in `sources`, -1: none; quotas [N + 1, S]); one source needs no shares: S = 0."""
    slot_of = np.full(len(SOURCES), -1, np.int32)
    for slot, setting in enumerate(sources):
        slot_of[SOURCES.index(setting.kind)] = slot
    if len(sources) == 1:
        return slot_of[source], np.zeros((num_negatives + 1, 0), np.int64)
    return slot_of[source], quotas_of([setting.share for setting in sources], num_negatives)


def _judged_first(candidates: Candidates, alive: Bool, judged: tuple[I64, I64, F32], num_negatives: int) -> tuple[I64, F32, Bool]:
    """(rows [Q, N], scores [Q, N] of the judged items that are listed, best first; candidates [Q, K] that may follow)."""
    owner, rows, scores = judged
    other = ~candidates.is_self(owner, rows)  # whatever was judged
    owner, rows, scores = owner[other], rows[other], scores[other]
    # a judged item that is also a candidate is listed once, among the judged
    eligible = alive & ~contains(owner, rows, candidates.rows)
    spot = np.arange(len(owner)) - np.searchsorted(owner, owner)
    fits = spot < num_negatives
    shape = (len(candidates.query_rows), num_negatives)
    marked, marked_scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    marked[owner[fits], spot[fits]], marked_scores[owner[fits], spot[fits]] = rows[fits], scores[fits]
    return marked, marked_scores, eligible


def _random_keys(candidates: Candidates, settings: MiningSettings, seed: int, log_weights: F64 | None) -> F64:
    """[Q, K] numbers whose smallest N are a random choice without replacement, with the strategy's weights.

    Source: Efraimidis and Spirakis 2006 (exponential keys, in logarithms so that no weight over- or underflows).
    """
    keys = _uniform(candidates, seed)
    if settings.choose == "uniform" and log_weights is None:
        return keys  # the same order, without logarithms
    keys = np.log(-np.log1p(-keys))
    if settings.choose == "softmax":
        keys -= candidates.scores.astype(np.float64) / settings.choice_temperature
    if log_weights is not None:
        keys -= log_weights[np.maximum(candidates.rows, 0)]
    result: F64 = keys
    return result


def _uniform(candidates: Candidates, seed: int) -> F64:
    """A number between 0 and 1, neither included, for each candidate; it depends on (seed, query, item) only."""
    with np.errstate(over="ignore"):
        x = candidates.query_rows.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15) + candidates.rows.astype(np.uint64)
        x = (x ^ np.uint64(seed)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(32))
    result: F64 = ((x >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return result


def _chosen(candidates: Candidates, marked: I64, marked_scores: F32, columns: I64) -> Chosen:
    """Judged items, and behind them the candidates at `columns`."""
    owner, spot = np.nonzero(columns >= 0)
    column = columns[owner, spot]
    behind = (owner, spot + (marked >= 0).sum(axis=1)[owner])
    rows, scores = marked.copy(), marked_scores.copy()
    rows[behind], scores[behind] = candidates.rows[owner, column], candidates.scores[owner, column]
    positions = np.full(rows.shape, -1, np.int64)
    positions[behind] = candidates.position[owner, column]
    source = np.where(marked >= 0, np.uint8(JUDGED), np.uint8(0))
    source[behind] = candidates.source[owner, column]
    teacher = np.full(rows.shape, np.nan, np.float32)
    if candidates.teacher is not None:
        teacher[behind] = candidates.teacher[owner, column]
    return Chosen(rows, scores, positions, source, teacher)
