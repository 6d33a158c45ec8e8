"""From hits to negatives: one block of queries at a time.

Q queries, K candidates, N negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.labels import Labels
from cluster.labels.read import read_labels
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, csr_to_lists, offsets_of, part_name, read_parts, stream_parts, write_part
from mining.candidates import SOURCES, Candidates, ExtraParts, first_query, judged_of, load_candidates, relevant_scores
from mining.choice.attributes import Attribute
from mining.choice.choose import Chosen, choose, popularity_log_weights
from mining.choice.filters import Cuts, Filtered, apply_filters
from mining.memory import NAMED_AT_ONCE
from mining.report.counts import Counts, count_block
from mining.settings import MiningSettings
from mining.sources.earlier import first_rounds, load_earlier
from mining.sources.near import Near, near_of_block, read_near
from mining.teacher.cut import attach, read_scored
from mining.teacher.verdicts import Verdicts, verdicts_of

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class MineTask:
    """What to choose from, and where to write it."""

    store: Store
    hits: list[Part]
    labels: list[Part]
    codes: list[Part]
    """What items have in common, as integers; and their ids."""
    corpus: list[Part]
    queries: list[Part]
    settings: MiningSettings
    folder: str
    seed: int
    round: int = 0
    extra: ExtraParts | None = None
    """What other sources gave; None: the hits are the only candidates."""
    earlier: list[Part] = field(default_factory=list)
    """The negatives of the round before; empty: there was none."""
    near: list[Part] = field(default_factory=list)
    """Near-duplicates of relevant items; empty: they were not looked for."""
    teacher: list[Part] = field(default_factory=list)
    """The teacher's scores for the hits' queries; empty: it has read nothing yet."""
    cuts: Cuts | None = None
    """Calibrated cuts; None: those of the settings."""


@dataclass(frozen=True)
class Side:
    """What choosing reads besides the hits: read once per node, where all tasks share it. It is arrays of numbers only;
    ids are read for what was chosen."""

    labels: Labels
    attributes: dict[str, Attribute]
    self_rows: I64
    near: Near | None = None
    log_weights: npt.NDArray[np.float64] | None = None
    """[items] for random choice by popularity; None: popularity plays no part."""


def load_side(task: MineTask) -> Side:
    """Labels, attribute columns and the items that queries are."""

    def parts_of(name: str) -> Iterator[pa.ChunkedArray]:
        return (table[name] for _, table in stream_parts(task.store, task.corpus, [name]))

    self_rows = read_parts(task.store, task.queries, ["item_row"])["item_row"].to_numpy()
    labels = read_labels(task.store, task.labels, task.codes, len(self_rows))
    attributes = {name: Attribute.from_parts(parts_of(name)) for name in sorted({rule.column for rule in task.settings.rules})}
    weights, popularity = None, task.settings.popularity
    if popularity is not None:
        numbers = [column.cast(pa.float64()).fill_null(np.nan).to_numpy() for column in parts_of(popularity)]
        weights = popularity_log_weights(np.concatenate(numbers), task.settings.popularity_power)
    return Side(labels, attributes, self_rows, read_near(task.store, task.near), weights)


@dataclass(frozen=True)
class Block:
    """The queries of one part of the hits, with all that calibrating, a teacher's pairs and choosing look at."""

    number: int
    """Of the hits part."""
    start: int
    """Number of its first query among all queries of the hits."""
    candidates: Candidates
    """Fused, if there are several sources; with the teacher's scores, if it has read them."""
    near: tuple[I64, I64] | None
    """Near-duplicates of relevant items, as the filters take them; None: they were not looked for."""
    judged: tuple[I64, I64, F32]
    """(owner, item row, score) of the items judged irrelevant, as `choose` takes them."""
    positive_scores: F32
    """[P] scores of the relevant items, in the order of `Labels.positives`."""


def read_block(task: MineTask, number: int, side: Side) -> Block:
    """Hits part `number`, fused with what other sources gave and joined with what the teacher said.

    Raises:
        ArtifactError: another stage's table is of other queries than the hits, or lacks a score.
    """
    table, candidates = load_candidates(task.store, task.hits, number, side.labels, side.self_rows, task.extra)
    query_rows, start = candidates.query_rows, first_query(task.hits, number)
    if task.teacher:
        assert task.settings.teacher is not None
        read = read_scored(task.store, task.teacher, task.settings.teacher.kind, start, query_rows)
        candidates = attach(candidates, read, side.labels, task.settings)
    near = None if side.near is None else near_of_block(side.near, side.labels, query_rows)
    return Block(number, start, candidates, near, judged_of(table, side.labels), relevant_scores(table, side.labels))


def filter_block(task: MineTask, block: Block, side: Side) -> Filtered:
    """What the filters leave of a block's candidates."""
    return apply_filters(block.candidates, side.labels, side.attributes, task.settings, near=block.near, cuts=task.cuts)


@dataclass(frozen=True)
class ChosenBlock:
    """The negatives of a block, before its ids are looked up."""

    number: int
    """Of the hits part."""
    query_rows: I64
    chosen: Chosen
    rounds: I64
    """[Q, N] round since which each has been a negative of its query."""
    positives: tuple[I64, I64]
    """Relevant items of each query as (offsets [Q+1], item rows)."""
    positive_scores: F32
    verdicts: Verdicts | None
    """None: there is no teacher."""
    positive_teacher: F32 | None
    """[P] the teacher's scores of `positives`."""

    @property
    def items(self) -> I64:
        """Rows of all its items, in ascending order."""
        rows = self.chosen.rows
        return np.unique(np.concatenate([rows[rows >= 0], self.positives[1]]))


def mine_block(task: MineTask, number: int, side: Side | None = None, uses: I32 | None = None) -> tuple[Part, Counts]:
    """Choose the negatives of hits part `number`; writes one part, returns it and its counts."""
    ((part, counts),) = mine_blocks(task, [number], side or load_side(task), uses)
    return part, counts


def mine_blocks(task: MineTask, numbers: Sequence[int], side: Side, uses: I32 | None = None) -> Iterator[tuple[Part, Counts]]:
    """Choose the negatives of some hits parts; writes a part for each.

    Deterministic: the same hits, settings and seed give the same bytes, whatever the block size.

    Args:
        uses: with settings.max_uses, [items] the lists that each item is in so far; brought up to date.
    """
    waiting: list[tuple[ChosenBlock, Counts]] = []
    items = 0
    for number in numbers:
        block, counts = choose_block(task, number, side, uses)
        waiting.append((block, counts))
        items += len(block.items)
        if items >= NAMED_AT_ONCE:
            yield from _write_blocks(task, waiting)
            waiting, items = [], 0
    yield from _write_blocks(task, waiting)


def choose_block(task: MineTask, number: int, side: Side, uses: I32 | None = None) -> tuple[ChosenBlock, Counts]:
    """The negatives of hits part `number`, and their counts."""
    block = read_block(task, number, side)
    query_rows, filtered = block.candidates.query_rows, filter_block(task, block, side)
    chosen = choose(
        block.candidates, filtered.alive, block.judged, task.settings, task.seed, log_weights=side.log_weights, uses=uses
    )
    earlier = load_earlier(task.store, task.earlier, block.start, query_rows) if task.earlier else None
    rounds = first_rounds(chosen.rows, earlier, task.round)
    counts = count_block(block.candidates, filtered, chosen, task.settings)
    counts.judged_left_out = int((~block.candidates.is_self(*block.judged[:2])).sum()) - counts.judged
    counts.new = int(((rounds == task.round) & (chosen.rows >= 0)).sum())
    positives, teacher = side.labels.positives(query_rows), task.settings.teacher
    verdicts = None
    if teacher is not None and block.candidates.teacher is not None:
        verdicts = verdicts_of(block.candidates, filtered, side.labels, teacher)
        counts.relabelled, counts.weak_queries = len(verdicts.relabelled), int(verdicts.left_out.sum())
    told = block.candidates.teacher_positives
    return ChosenBlock(number, query_rows, chosen, rounds, positives, block.positive_scores, verdicts, told), counts


def _write_blocks(task: MineTask, blocks: Sequence[tuple[ChosenBlock, Counts]]) -> Iterator[tuple[Part, Counts]]:
    """Write blocks; the ids of their items are looked up together."""
    items = np.unique(np.concatenate([np.zeros(0, np.int64), *(block.items for block, _ in blocks)]))
    names = read_rows(task.store, task.codes, items, ["id"])["id"] if len(items) else pa.chunked_array([[]], pa.string())
    for block, counts in blocks:
        table = _table(block, items, names, read_rows(task.store, task.queries, block.query_rows, ["id"])["id"])
        yield write_part(task.store, f"{task.folder}/{part_name(block.number)}", table), counts


def _table(block: ChosenBlock, named: I64, names: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> pa.Table:
    """The negatives of a block as they are written: docs/mining.md has the columns.

    Args:
        named, names: ascending item rows, the block's among them, and their ids. query_ids: of the block's queries.
    """

    def ids(rows: I64) -> pa.Array:
        return names.take(pa.array(np.searchsorted(named, rows))).combine_chunks()

    chosen, rounds, query_rows = block.chosen, block.rounds, block.query_rows
    real = chosen.rows >= 0
    offsets = offsets_of(real.sum(axis=1))
    flat = chosen.rows[real]
    positive_offsets, positives = block.positives
    sources = pa.array(SOURCES).take(pa.array(chosen.source[real]))
    teacher = pa.array(chosen.teacher[real], pa.float32(), from_pandas=True)  # NaN: null
    items = pa.StructArray.from_arrays(
        [
            ids(flat),
            pa.array(chosen.scores[real], pa.float32()),
            pa.array(chosen.positions[real], pa.int64()),
            sources,
            teacher,
            pa.array(rounds[real], pa.int32()),
        ],
        names=["item_id", "score", "position", "source", "teacher_score", "round"],
    )
    return pa.table(
        {
            "query_row": query_rows,
            "query_id": query_ids,
            "positive_ids": csr_to_lists(positive_offsets, ids(positives)),
            "positive_rows": csr_to_lists(positive_offsets, positives),
            "positive_scores": csr_to_lists(positive_offsets, block.positive_scores),
            "negative_rows": csr_to_lists(offsets, flat),
            "negatives": csr_to_lists(offsets, items),
        }
        | ({} if block.verdicts is None else _taught(block, block.verdicts, teacher, offsets))
    )


def _taught(block: ChosenBlock, verdicts: Verdicts, scores: pa.Array, offsets: I64) -> dict[str, pa.Array]:
    """What training reads of a teacher. Args: scores: its scores of the flat negatives, whose lists begin at `offsets`."""
    positive_scores = pa.array(block.positive_teacher, pa.float32(), from_pandas=True)
    return {
        "positive_teacher_scores": csr_to_lists(block.positives[0], positive_scores),
        "negative_teacher_scores": csr_to_lists(offsets, scores),
        "relabelled_rows": csr_to_lists(verdicts.offsets, verdicts.relabelled),
        "relabelled_scores": csr_to_lists(verdicts.offsets, verdicts.scores),
        "better_candidates": pa.array(verdicts.better),
        "left_out": pa.array(verdicts.left_out),
    }
