"""The pairs of every block that a teacher is to read, by the filters of choosing; and the same pairs cut otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, read_part, read_parts, write_part
from mining.negatives import MineTask, load_side, mine_block
from mining.passes import Passes
from mining.search.shards import plan_blocks
from mining.settings import MiningSettings, TeacherSettings
from mining.teacher.cut import Pairs
from mining.teacher.pairs import cut_as, pairs_of_block, write_pairs

if TYPE_CHECKING:
    from tests.mining.conftest import World

ROWS = np.array([0, 2, 3, 5, 8, 9, 11, 12, 20, 21, 22])


def write_hits(world: World, block: int, num_hits: int) -> list[Part]:
    """The nearest items of all queries, as a search writes them."""
    scores_QN = (world.query_matrix.astype(np.float64) @ world.item_matrix.T.astype(np.float64)).astype(np.float32)
    parts = []
    for number, start in enumerate(range(0, len(scores_QN), block)):
        rows = np.arange(start, min(start + block, len(scores_QN)))
        order = np.argsort(-scores_QN[rows], axis=1, kind="stable")[:, :num_hits]
        judged = [sorted(item for query, item in world.judged if query == row) for row in rows]
        table = pa.table(
            {
                "query_row": rows,
                "item_rows": pa.array(order.tolist(), pa.list_(pa.int64())),
                "scores": pa.array(
                    [scores_QN[row, items].tolist() for row, items in zip(rows, order, strict=True)], pa.list_(pa.float32())
                ),
                "label_rows": pa.array(judged, pa.list_(pa.int64())),
                "label_scores": pa.array(
                    [[float(scores_QN[row, item]) for item in items] for row, items in zip(rows, judged, strict=True)],
                    pa.list_(pa.float32()),
                ),
            }
        )
        parts.append(write_part(world.store, f"hits-{block}/{part_name(number)}", table))
    return parts


def task_of(world: World, hits: list[Part], **options: Any) -> MineTask:
    settings = MiningSettings(
        num_hits=30, num_negatives=5, teacher=TeacherSettings(model="m", depth=7, relative_margin=None, max_score=0.5), **options
    )
    return MineTask(world.store, hits, world.labels, world.corpus, world.corpus, world.queries, settings, "pairs", 0)


def pairs_in(store: Store, parts: list[Part]) -> list[tuple[int, int]]:
    pairs = Pairs.from_table(read_parts(store, parts))
    return list(zip(pairs.query_rows.tolist(), pairs.item_rows.tolist(), strict=True))


@pytest.mark.parametrize("block", [50, 20, 7])
def test_the_pairs_are_the_first_survivors_whatever_the_blocks(new_world: Callable[..., World], block: int) -> None:
    world = new_world()
    task = task_of(world, write_hits(world, block, 30), min_score=0.1, relative_margin=None)
    side = load_side(task)
    found = [pairs_of_block(task, number, side) for number in range(len(task.hits))]
    pairs = pairs_in(world.store, [part for part, _ in found])
    assert sum(count for _, count in found) == len(pairs)
    unread = task_of(world, task.hits, min_score=0.1, relative_margin=None)
    settings = unread.settings.model_copy(update={"teacher": None, "num_negatives": 7})
    for number in range(len(task.hits)):
        # what choosing takes without a teacher, judged items aside, is what the teacher reads
        part, _ = mine_block(
            MineTask(world.store, task.hits, world.labels, world.corpus, world.corpus, world.queries, settings, "chosen", 0),
            number,
        )
        for row in read_part(world.store, part.path).to_pylist():
            query = row["query_row"]
            own = int(side.self_rows[query])
            relevant = sorted(item for item in row["positive_rows"] if item != own)[:8]
            read = [item for owner, item in pairs if owner == query and item not in relevant]
            chosen = [item for item in row["negative_rows"] if world.judged.get((query, item)) != 0]
            assert set(chosen) <= set(read)
            assert len(read) <= 7
            assert len(chosen) < len(row["negative_rows"]) or set(chosen) == set(read), "judged items take places"
            assert all(item in [other for owner, other in pairs if owner == query] for item in relevant)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_cuts_that_must_be_found_first_are_the_same_as_when_choosing(new_world: Callable[..., World]) -> None:
    world = new_world()
    options = {"relative_margin": None, "positive_quantile": 0.4}
    parts, count = write_pairs(Passes(task_of(world, write_hits(world, 20, 30), **options), retries=0))
    in_parts = pairs_in(world.store, parts)  # before the next call writes to the same folder
    whole, same = write_pairs(Passes(task_of(world, write_hits(world, 50, 30), **options), retries=0))
    assert (len(parts), len(whole), count) == (3, 1, same)
    assert in_parts == pairs_in(world.store, whole)
    loose, more = write_pairs(Passes(task_of(world, write_hits(world, 20, 30), relative_margin=None), retries=0))
    assert (len(loose), more > count) == (3, True)


@pytest.mark.parametrize("before", [1, 3, 4, 11])
@pytest.mark.parametrize("after", [1, 2, 4, 20])
def test_pairs_cut_otherwise_are_the_same_pairs(tmp_path: Any, before: int, after: int) -> None:
    store = Store(str(tmp_path))
    wanted = [(int(row), item) for row in ROWS for item in range(row % 3)]
    pairs = Pairs.ordered(*np.array(wanted).T)
    parts = [
        write_part(store, f"pairs/{part_name(block.index)}", pairs.of(block.query_rows).to_table(block.query_rows, scored=False))
        for block in plan_blocks(ROWS, before)
    ]
    blocks = plan_blocks(ROWS, after)
    cut = cut_as(store, parts, blocks, "cut")
    assert (cut == parts) == (min(before, 11) == min(after, 11))
    assert [read_part(store, part.path)["query_row"].to_pylist() for part in cut] == [b.query_rows.tolist() for b in blocks]
    assert pairs_in(store, cut) == wanted
