"""What a teacher makes of the labels, worked by hand, against a slow reference, and in the negatives table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables.tables import Part, part_name, read_part, write_part
from mining.choice.filters import apply_filters
from mining.negatives import load_side, mine_block
from mining.report.weak import Weak, show_weak, weak_of, worst
from mining.settings import MiningSettings, TeacherSettings
from mining.teacher.cut import attach
from mining.teacher.verdicts import MOST_RELABELLED, Verdicts, verdicts_of
from tests.mining.teacher.test_cut import candidates, labels_of, scored
from tests.mining.teacher.test_pairs import task_of, write_hits

if TYPE_CHECKING:
    from tests.mining.conftest import World


def judge(found: Any, labels: Any, told: dict[tuple[int, int], float], **options: Any) -> Verdicts:
    teacher = TeacherSettings(model="m", **options)
    settings = MiningSettings(num_hits=100, num_negatives=4, relative_margin=None, margin_reference="lowest", teacher=teacher)
    attached = attach(found, scored(told), labels, settings)
    return verdicts_of(attached, apply_filters(attached, labels, {}, settings), labels, teacher)


def lists(verdicts: Verdicts) -> list[list[tuple[int, float]]]:
    pairs = [(row, round(score, 4)) for row, score in zip(verdicts.relabelled.tolist(), verdicts.scores.tolist(), strict=True)]
    return [pairs[low:high] for low, high in zip(verdicts.offsets[:-1], verdicts.offsets[1:], strict=True)]


def test_what_the_teacher_drops_and_scores_high_enough_becomes_relevant_best_first() -> None:
    found = candidates([0, 1], [[5, 6, 7, 8], [5, 6, 7, -1]])
    labels = labels_of({(0, 1): 1, (0, 8): 0, (1, 2): 1}, 2, 10)
    told = {(0, 1): 0.5, (0, 5): 0.8, (0, 6): 0.9, (0, 7): 0.48, (0, 8): 0.99}
    told |= {(1, 2): 0.9, (1, 5): 0.85, (1, 6): 0.87}
    # the margin of 5 % drops 5 and 6 of query 0, 6 of query 1; 8 is judged irrelevant, 7 of query 1 is not read
    assert lists(judge(found, labels, told, relabel=0.8)) == [[(6, 0.9), (5, 0.8)], [(6, 0.87)]]
    assert lists(judge(found, labels, told, relabel=0.88)) == [[(6, 0.9)], []]
    assert lists(judge(found, labels, told)) == [[], []], "unless it is asked to"
    assert lists(judge(found, labels, told, relabel=0.0, relative_margin=None, max_score=0.86)) == [[(6, 0.9)], [(6, 0.87)]]


def test_a_query_gets_no_more_relevant_items_than_a_few() -> None:
    found = candidates([0], [list(range(1, 21))])
    told = {(0, 0): 0.5} | {(0, item): 0.9 if item % 2 else 0.95 for item in range(1, 21)}
    (items,) = lists(judge(found, labels_of({(0, 0): 1}, 1, 30), told, relabel=0.1))
    assert [item for item, _ in items] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert len(items) == MOST_RELABELLED


def test_a_query_is_left_out_if_enough_candidates_are_above_all_its_relevant_items() -> None:
    found = candidates([0, 1, 2], [[5, 6, 7], [5, 6, 7], [5, 6, -1]])
    labels = labels_of({(0, 1): 1, (0, 2): 1, (1, 3): 1}, 3, 10)
    told = {(0, 1): 0.1, (0, 2): 0.4, (0, 5): 0.5, (0, 6): 0.4, (0, 7): 0.45}
    told |= {(1, 3): 0.1, (1, 5): 0.2, (1, 6): 0.3, (1, 7): 0.05, (2, 5): 0.9, (2, 6): 0.9}
    two = judge(found, labels, told, weak_positive=2)
    assert two.better.tolist() == [2, 2, 0], "6 is as good as an item of query 0; the teacher has read none of query 2"
    assert two.left_out.tolist() == [True, True, False]
    assert judge(found, labels, told, weak_positive=3).left_out.tolist() == [False, False, False]
    assert judge(found, labels, told).left_out.tolist() == [False, False, False]


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([None, 0.4, 0.7]), st.integers(1, 5))
def test_verdicts_equal_a_slow_reference_whatever_the_blocks(seed: int, size: int, relabel: float | None, weak: int) -> None:
    rng = np.random.default_rng(seed)
    queries, items, width = 6, 20, 8
    rows = np.stack([rng.permutation(items)[:width] for _ in range(queries)])
    rows[rng.random(rows.shape) < 0.1] = -1
    judged = {(int(q), int(i)): int(s) for q, i, s in zip(*rng.integers(0, [[queries], [items], [3]], (3, 30)), strict=True)}
    told = {(q, i): float(np.float32(round(rng.random(), 1))) for q in range(queries) for i in range(items) if rng.random() < 0.7}
    labels, options = labels_of(judged, queries, items), {"relabel": relabel, "weak_positive": weak, "relative_margin": 0.2}
    got: list[list[tuple[int, float]]] = []
    better: list[int] = []
    for start in range(0, queries, size):
        block = list(range(queries))[start : start + size]
        part = judge(candidates(block, rows[start : start + size]), labels, told, **options)
        got += lists(part)
        better += part.better.tolist()
        assert part.left_out.tolist() == [count >= weak for count in part.better]
    for query in range(queries):
        relevant = [told[query, i] for (q, i), s in judged.items() if q == query and s > 0 and (query, i) in told]
        open_rows = [int(r) for r in rows[query] if r >= 0 and judged.get((query, int(r)), 0) <= 0]
        above = [r for r in open_rows if relevant and told.get((query, r), -1.0) > max(relevant)]
        assert better[query] == len(above)
        unjudged = [r for r in open_rows if (query, r) not in judged and (query, r) in told]
        limit = np.float32(min(relevant)) * np.float32(0.8) if relevant else np.inf
        dropped = [(-told[query, r], r) for r in unjudged if told[query, r] > limit]
        want = sorted(pair for pair in dropped if relabel is not None and -pair[0] >= np.float32(relabel))
        assert [item for item, _ in got[query]] == [row for _, row in want][:MOST_RELABELLED]


def test_the_negatives_table_tells_training_what_the_teacher_said(new_world: Callable[..., World]) -> None:
    world = new_world()
    hits = write_hits(world, 20, 30)
    rng = np.random.default_rng(5)
    told = {(query, item): float(np.float32(rng.random())) for query in range(50) for item in range(70) if rng.random() < 0.8}
    pairs = scored(told)
    parts = [
        write_part(world.store, f"scores/{part_name(n)}", pairs.of(rows).to_table(rows, scored=True))
        for n, rows in enumerate(np.array_split(np.arange(50), 3))
    ]
    base = task_of(world, hits, relative_margin=None)
    teacher = TeacherSettings(model="m", relative_margin=0.3, relabel=0.6, weak_positive=4)
    task = replace(base, teacher=parts, settings=base.settings.model_copy(update={"teacher": teacher}))
    side, rows, left_out, relabelled = load_side(task), [], 0, 0
    for number in range(len(hits)):
        part, counts = mine_block(task, number, side)
        rows += read_part(world.store, part).to_pylist()
        left_out += counts.weak_queries
        relabelled += counts.relabelled
    assert left_out == sum(row["left_out"] for row in rows) > 0
    assert relabelled == sum(len(row["relabelled_rows"]) for row in rows) > 0
    for row in rows:
        query = row["query_row"]
        for items, scores in (("negative_rows", "negative_teacher_scores"), ("relabelled_rows", "relabelled_scores")):
            assert len(row[items]) == len(row[scores])
            for item, score in zip(row[items], row[scores], strict=True):
                assert score is None or score == told[query, item]
        for item, score in zip(row["positive_rows"], row["positive_teacher_scores"], strict=True):
            own = query % 4 == 0 and item == query
            assert score == (None if own else told.get((query, item)))
        assert not set(row["relabelled_rows"]) & {*row["negative_rows"], *row["positive_rows"]}
        assert all(score >= np.float32(0.6) for score in row["relabelled_scores"])
        assert row["left_out"] == (row["better_candidates"] >= 4)
    table = read_part(world.store, f"{task.folder}/{part_name(0)}")
    better = sorted((row["better_candidates"] for row in table.to_pylist() if row["left_out"]), reverse=True)
    assert [-one.fewer for one in weak_of(table, 3)] == better[:3]


def test_weak_queries_are_shown_the_worst_first_with_their_best_item(new_world: Callable[..., World]) -> None:
    world = new_world()
    sides = {"corpus": 70, "queries": 50}
    for name, count in sides.items():
        texts = pa.table({"row": range(count), "id": [f"{name[0]}{n}" for n in range(count)]})
        table = texts.append_column("text", pa.array([f"{name} {n}" for n in range(count)]))
        write_part(world.store, f"texts/{name}", table)
    corpus, queries = ([Part(f"texts/{name}", count, 0)] for name, count in sides.items())
    found = worst([Weak(-3, 9, 4, 0.25), Weak(-8, 7, 6, 0.1), Weak(-1, 2, 6, 0.5)], 2)
    shown = show_weak(found, world.store, corpus, queries)
    assert [(one.query_id, one.query, one.item_id, one.item, one.teacher_score, one.better) for one in shown] == [
        ("q7", "queries 7", "c6", "corpus 6", 0.1, 8),
        ("q9", "queries 9", "c4", "corpus 4", 0.25, 3),
    ]
    assert weak_of(pa.table({"query_row": [1]}), 3) == [], "a mining without a teacher"


@pytest.mark.parametrize("kind", get_args(TeacherSettings.model_fields["kind"].annotation))
def test_the_scores_of_every_kind_of_teacher_are_read(new_world: Callable[..., World], kind: str) -> None:
    world = new_world()
    told = scored({(query, item): 0.25 for query in range(50) for item in range(70)})
    table = told.to_table(np.arange(50), scored=True)
    if kind == "encoder":
        table = table.rename_columns(["query_row", "also_rows", "also_scores"])
    part = write_part(world.store, "scores/all", table)
    teacher = TeacherSettings(model="m", kind=kind, url="http://host/x" if kind in ("http", "llm") else None)
    base = task_of(world, write_hits(world, 50, 30), relative_margin=None)
    task = replace(base, teacher=[part], settings=base.settings.model_copy(update={"teacher": teacher}))
    _, counts = mine_block(task, 0, load_side(task))
    assert counts.teacher_read > 0


@pytest.mark.parametrize("block", [50, 7])
def test_judged_items_are_never_relabelled(new_world: Callable[..., World], block: int) -> None:
    world = new_world()
    hits = write_hits(world, block, 30)
    told = scored({(query, item): 0.9 for query in range(50) for item in range(70)})
    part = write_part(world.store, "scores/all", told.to_table(np.arange(50), scored=True))
    base = task_of(world, hits, relative_margin=None)
    teacher = TeacherSettings(model="m", relative_margin=0.0, max_score=0.5, relabel=0.1)
    task = replace(base, teacher=[part], settings=base.settings.model_copy(update={"teacher": teacher}))
    side = load_side(task)
    for number in range(len(hits)):
        for row in read_part(world.store, mine_block(task, number, side)[0]).to_pylist():
            assert all((row["query_row"], item) not in world.judged for item in row["relabelled_rows"])
