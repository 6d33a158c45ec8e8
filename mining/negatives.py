"""From hits to negatives: one block of queries at a time.

Q queries, K candidates, N negatives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.labels.labels import Labels
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64, Part, csr_to_lists, offsets_of, part_name, read_parts, write_part
from mining.candidates import SOURCES, Candidates, ExtraParts, first_query, judged_of, load_candidates, relevant_scores
from mining.choice.attributes import Attribute
from mining.choice.choose import Chosen, choose, popularity_log_weights
from mining.choice.filters import Cuts, Filtered, apply_filters
from mining.report.counts import Counts, count_block
from mining.settings import MiningSettings
from mining.sources.earlier import first_rounds, load_earlier
from mining.sources.near import Near, near_of_block, read_near
from mining.teacher.cut import attach, read_scored

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class MineTask:
    """What to choose from, and where to write it."""

    store: Store
    hits: list[Part]
    labels: list[Part]
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
    """What choosing reads besides the hits; loaded once per worker."""

    labels: Labels
    attributes: dict[str, Attribute]
    item_ids: pa.ChunkedArray
    query_ids: pa.ChunkedArray
    self_rows: I64
    near: Near | None = None
    log_weights: npt.NDArray[np.float64] | None = None
    """[items] for random choice by popularity; None: popularity plays no part."""


def load_side(task: MineTask) -> Side:
    """Labels, attribute columns and ids."""
    columns = sorted({rule.column for rule in task.settings.rules})
    popularity = task.settings.popularity
    numbers = [popularity] if popularity is not None and popularity not in columns else []
    corpus = read_parts(task.store, task.corpus, ["row", "id", "group_code", "text_code", *columns, *numbers])
    queries = read_parts(task.store, task.queries, ["id", "item_row"])
    labels = Labels.from_tables(read_parts(task.store, task.labels), corpus, queries.num_rows)
    attributes = {name: Attribute.from_column(corpus[name]) for name in columns}
    weights = None
    if popularity is not None:
        column = corpus[popularity].cast(pa.float64()).fill_null(np.nan).to_numpy()
        weights = popularity_log_weights(column, task.settings.popularity_power)
    return Side(
        labels, attributes, corpus["id"], queries["id"], queries["item_row"].to_numpy(), read_near(task.store, task.near), weights
    )


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


def mine_block(task: MineTask, number: int, side: Side | None = None, uses: I32 | None = None) -> tuple[Part, Counts]:
    """Choose the negatives of hits part `number`; writes one part, returns it and its counts.

    Deterministic: the same hits, settings and seed give the same bytes, whatever the block size.

    Args:
        uses: with settings.max_uses, [items] the lists that each item is in so far; brought up to date.
    """
    side = side or load_side(task)
    block = read_block(task, number, side)
    query_rows, filtered = block.candidates.query_rows, filter_block(task, block, side)
    chosen = choose(
        block.candidates, filtered.alive, block.judged, task.settings, task.seed, log_weights=side.log_weights, uses=uses
    )
    earlier = load_earlier(task.store, task.earlier, block.start, query_rows) if task.earlier else None
    rounds = first_rounds(chosen.rows, earlier, task.round)
    part = write_part(task.store, f"{task.folder}/{part_name(number)}", _table(block, chosen, rounds, side))
    counts = count_block(block.candidates, filtered, chosen, task.settings)
    counts.new = int(((rounds == task.round) & (chosen.rows >= 0)).sum())
    return part, counts


def _table(block: Block, chosen: Chosen, rounds: I64, side: Side) -> pa.Table:
    """The negatives of a block as they are written: docs/mining.md has the columns."""
    query_rows = block.candidates.query_rows
    real = chosen.rows >= 0
    offsets = offsets_of(real.sum(axis=1))
    flat = chosen.rows[real]
    positive_offsets, positives = side.labels.positives(query_rows)
    sources = pa.array(SOURCES).take(pa.array(chosen.source[real]))
    teacher = pa.array(chosen.teacher[real], pa.float32(), from_pandas=True)  # NaN: null
    items = pa.StructArray.from_arrays(
        [
            side.item_ids.take(pa.array(flat)).combine_chunks(),
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
            "query_id": side.query_ids.take(pa.array(query_rows)),
            "positive_ids": csr_to_lists(positive_offsets, side.item_ids.take(pa.array(positives)).combine_chunks()),
            "positive_rows": csr_to_lists(positive_offsets, positives),
            "positive_scores": csr_to_lists(positive_offsets, block.positive_scores),
            "negative_rows": csr_to_lists(offsets, flat),
            "negatives": csr_to_lists(offsets, items),
        }
    )
