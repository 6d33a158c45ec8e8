"""Loading the candidates of a block: worked by hand, against a slow reference, and from parts that are cut elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError
from cluster.labels.labels import Labels
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, read_part, write_part
from mining.candidates import (
    SOURCES,
    Candidates,
    ExtraParts,
    dense,
    dense_hits,
    judged_of,
    load_candidates,
    relevant_scores,
    without_self,
)

F32 = np.float32
ROWS, SCORES = pa.list_(pa.int64()), pa.list_(pa.float32())


def write(store: Store, folder: str, table: pa.Table, size: int) -> list[Part]:
    """A table in parts of `size` rows that do not say where they start, as searches write them."""
    return [
        write_part(store, f"{folder}/{part_name(number)}", table.slice(start, size))
        for number, start in enumerate(range(0, table.num_rows, size))
    ]


def labels_of(triples: Sequence[tuple[int, int, int]], queries: int, items: int) -> Labels:
    table = pa.table(
        {
            name: pa.array([triple[place] for triple in sorted(triples)], pa.int64())
            for place, name in enumerate(("query_row", "item_row", "score"))
        }
    )
    return Labels.from_tables(table, pa.table({"group_code": [-1] * items, "text_code": range(items)}), queries)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def hits_table(rows: list[list[int]], scores: list[list[float]], **more: Any) -> pa.Table:
    columns = {
        "query_row": pa.array(more.pop("query_row", range(len(rows))), pa.int64()),
        "item_rows": pa.array(rows, ROWS),
        "scores": pa.array(scores, SCORES),
        "label_rows": pa.array(more.pop("label_rows", [[]] * len(rows)), ROWS),
        "label_scores": pa.array(more.pop("label_scores", [[]] * len(rows)), SCORES),
    }
    return pa.table(columns | {name: pa.array(value, pa.int32()) for name, value in more.items()})


def test_the_hits_of_one_source_are_the_candidates_as_they_are(store: Store) -> None:
    hits = write(
        store,
        "hits",
        hits_table(
            [[4, 2], [7]],
            [[0.5, 0.25], [1.0]],
            excluded=[3, 0],
            label_rows=[[1, 5, 6], []],
            label_scores=[[0.125, 0.75, 0.5], []],
        ),
        2,
    )
    labels = labels_of([(0, 1, 2), (0, 5, 1), (0, 6, 0)], 2, 8)
    table, found = load_candidates(store, hits, 0, labels, np.array([6, -1]))
    assert found.query_rows.tolist() == [0, 1]
    assert found.rows.tolist() == [[4, 2], [7, -1]]
    assert found.scores.tolist() == [[0.5, 0.25], [1.0, -np.inf]]
    assert (found.source == 0).all()
    assert found.position.tolist() == [[0, 1], [0, 1]]
    assert found.excluded.tolist() == [3, 0]
    assert found.self_rows.tolist() == [6, -1]
    ranges = (found.lowest_positive, found.mean_positive, found.highest_positive)
    assert [float(values[0]) for values in ranges] == [0.125, 0.4375, 0.75]
    assert all(np.isnan(values[1]) for values in ranges)
    assert [part.tolist() for part in judged_of(table, labels)] == [[0], [6], [0.5]]
    assert relevant_scores(table, labels).tolist() == [0.125, 0.75]


def test_hits_of_uneven_length_become_dense() -> None:
    table = hits_table([[4, 2], [], [7]], [[0.5, 0.25], [], [1.0]])
    rows, scores = dense_hits(table)
    assert rows.tolist() == [[4, 2], [-1, -1], [7, -1]]
    assert scores.tolist() == [[0.5, 0.25], [-np.inf, -np.inf], [1.0, -np.inf]]
    assert dense_hits(table.slice(1, 1))[0].tolist() == [[-1]]
    assert dense(table.slice(2, 1)["scores"], np.nan).dtype == F32


def test_other_sources_are_fused_by_rank_and_scored_by_the_model(store: Store) -> None:
    hits = write(store, "hits", hits_table([[10, 11]], [[0.9, 0.8]]), 1)
    pairs = pa.table(
        {
            "query_row": [0],
            "also_rows": pa.array([[12, 13]], ROWS),
            "bm25_rows": pa.array([[12, 11]], ROWS),
            "earlier_rows": pa.array([[13, 12]], ROWS),
        }
    )
    scored = pa.table(
        {"query_row": [0], "also_rows": pa.array([[12, 13]], ROWS), "also_scores": pa.array([[-0.5, 0.25]], SCORES)}
    )
    extra = ExtraParts(
        write(store, "pairs", pairs, 1), write(store, "scored", scored, 1), {"model": 0.5, "bm25": 0.3, "earlier": 0.2}
    )
    _, found = load_candidates(store, hits, 0, labels_of([], 1, 20), np.array([-1]), extra)
    # 11: 0.5/62 + 0.3/62, 10: 0.5/61, 12: 0.3/61 + 0.2/62, 13: 0.2/61
    assert found.rows.tolist() == [[11, 10, 12, 13]]
    assert found.scores.tolist() == [[F32(0.8), F32(0.9), F32(-0.5), F32(0.25)]]
    assert [SOURCES[code] for code in found.source[0]] == ["model", "model", "bm25", "earlier"]
    assert found.position.tolist() == [[1, 0, 0, 0]]


KINDS = ("baseline", "bm25", "earlier")
SHARES = {"model": 0.4, "baseline": 0.3, "bm25": 0.2, "earlier": 0.1}


class World:
    """Random lists of 4 sources for 23 queries; a pair's score is a function of it."""

    def __init__(self, store: Store, size: int) -> None:
        generator = np.random.default_rng(5)
        self.query_rows = np.flatnonzero(np.arange(46) % 2)
        self.lists = {
            kind: [generator.permutation(30)[: generator.integers(0, 9)].tolist() for _ in self.query_rows]
            for kind in ("model", *KINDS)
        }
        self.table = hits_table(
            self.lists["model"],
            [[self.score(q, row) for row in rows] for q, rows in zip(self.query_rows, self.lists["model"], strict=True)],
            query_row=self.query_rows,
        )
        self.also = [
            sorted({row for kind in KINDS for row in self.lists[kind][place]} - set(self.lists["model"][place]))
            for place in range(len(self.query_rows))
        ]
        pairs = {"query_row": self.query_rows, "also_rows": pa.array(self.also, ROWS)}
        pairs |= {f"{kind}_rows": pa.array(self.lists[kind], ROWS) for kind in KINDS}
        self.scored = pa.table(
            {
                "query_row": self.query_rows,
                "also_rows": pairs["also_rows"],
                "also_scores": pa.array(
                    [[self.score(q, row) for row in rows] for q, rows in zip(self.query_rows, self.also, strict=True)], SCORES
                ),
            }
        )
        self.extra = ExtraParts(
            write(store, f"pairs-{size}", pa.table(pairs), size), write(store, f"scored-{size}", self.scored, size), SHARES
        )
        self.labels, self.self_rows = labels_of([], 46, 30), np.full(46, -1)

    @staticmethod
    def score(query: int, row: int) -> float:
        return float(F32(np.cos(query * 31 + row)))

    def load(self, store: Store, size: int) -> list[Candidates]:
        hits = write(store, f"hits-{size}", self.table, size)
        return [load_candidates(store, hits, number, self.labels, self.self_rows, self.extra)[1] for number in range(len(hits))]


@pytest.mark.parametrize(("hits_size", "extra_size"), [(23, 23), (4, 4), (4, 7), (7, 4), (1, 23), (23, 1)])
def test_every_cut_into_parts_gives_the_slow_reference(store: Store, hits_size: int, extra_size: int) -> None:
    world = World(store, extra_size)
    blocks = world.load(store, hits_size)
    got = [
        (query, row, score, SOURCES[code], position)
        for found in blocks
        for query, *columns in zip(found.query_rows, found.rows, found.scores, found.source, found.position, strict=True)
        for row, score, code, position in zip(*columns, strict=True)
        if row >= 0
    ]
    want = []
    for place, query in enumerate(world.query_rows):
        weight: dict[int, float] = {}
        best: dict[int, tuple[int, int]] = {}
        for code, kind in enumerate(("model", *KINDS)):
            for position, row in enumerate(world.lists[kind][place]):
                weight[row] = weight.get(row, 0.0) + SHARES[kind] / (61 + position)
                best[row] = min(best.get(row, (position, code)), (position, code))
        for row in sorted(weight, key=lambda row: (-round(weight[row], 12), row)):
            want.append((query, row, world.score(query, row), SOURCES[best[row][1]], best[row][0]))
    assert got == want


def test_parts_of_other_queries_are_refused(store: Store) -> None:
    world = World(store, 23)
    hits = write(store, "hits", world.table.slice(1), 30)
    with pytest.raises(ArtifactError, match=r"expected query rows 3 to 45 from row 0 on in pairs-23, found others; delete"):
        load_candidates(store, hits, 0, world.labels, world.self_rows, world.extra)


def test_a_pair_without_a_score_is_refused(store: Store) -> None:
    world = World(store, 23)
    also = [rows[1:] for rows in world.also]
    scored = world.scored.set_column(1, "also_rows", pa.array(also, ROWS)).set_column(
        2, "also_scores", pa.array([[0.5] * len(rows) for rows in also], SCORES)
    )
    extra = ExtraParts(world.extra.pairs, write(store, "fewer", scored, 23), SHARES)
    hits = write(store, "hits", world.table, 23)
    with pytest.raises(ArtifactError, match=r"expected a score of every pair in fewer, found none of query row \d+ with item"):
        load_candidates(store, hits, 0, world.labels, world.self_rows, extra)
    assert read_part(store, extra.scored[0].path).num_rows == 23


def test_a_query_that_is_an_item_does_not_find_itself() -> None:
    rows = np.array([[7, 3, 5], [3, 7, 5], [4, 6, 8], [4, 6, -1]])
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.6, 0.5, -np.inf]], F32)
    got, kept = without_self(rows, scores, np.array([7, 7, -1, -1]))
    assert got.tolist() == [[3, 5], [3, 5], [4, 6], [4, 6]], "the own item goes, and of others only what is one too many"
    assert kept.tolist() == np.array([[0.8, 0.7], [0.9, 0.7], [0.6, 0.5], [0.6, 0.5]], F32).tolist()


def test_padding_is_kept_where_a_query_is_no_item() -> None:
    rows, scores = without_self(np.array([[2, -1, -1]]), np.array([[0.5, -np.inf, -np.inf]], F32), np.array([-1]))
    assert rows.tolist() == [[2, -1]]
    assert scores.tolist() == [[0.5, -np.inf]]
