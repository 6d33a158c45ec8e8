"""Several sources' finds side by side: worked by hand, against sets, and from tables that are cut differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ArtifactError
from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, part_name, read_parts, write_part
from mining.search.shards import plan_blocks
from mining.sources.pairs import PairsTask, new_pairs, write_block, write_pairs

Lists = list[list[int]]
ROWS = pa.list_(pa.int64())


def csr(lists: Lists) -> tuple[I64, I64]:
    return np.cumsum([0, *map(len, lists)]), np.array([row for some in lists for row in some], np.int64)


def test_new_pairs_worked_by_hand() -> None:
    offsets, rows = new_pairs(10, csr([[3, 1], [], [9]]), [csr([[1, 9, 2], [4], [9]]), csr([[2, 0], [4, 3], []])])
    assert rows.tolist() == [0, 2, 9, 3, 4]
    assert offsets.tolist() == [0, 3, 5, 5]


queries = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), min_size=count, max_size=count), min_size=2, max_size=4
    )
)


@given(queries)
def test_new_pairs_equal_sets(tables: list[Lists]) -> None:
    found, *others = tables
    offsets, rows = new_pairs(10, csr(found), [csr(other) for other in others])
    for query, known in enumerate(found):
        want = {row for other in others for row in other[query]} - set(known)
        assert rows[offsets[query] : offsets[query + 1]].tolist() == sorted(want)


QUERY_ROWS = np.arange(3, 40, 3)


def make_task(root: Path, sizes: tuple[int, int, int] = (5, 5, 5)) -> tuple[PairsTask, dict[str, Lists]]:
    """Lists of 13 queries in parts of these sizes."""
    store, generator = Store(str(root)), np.random.default_rng(2)
    lists = {
        name: [generator.permutation(20)[: generator.integers(0, 7)].tolist() for _ in QUERY_ROWS]
        for name in ("hits", "bm25", "earlier")
    }

    def parts(name: str, column: str, size: int) -> list[Part]:
        table = pa.table({"query_row": QUERY_ROWS, column: pa.array(lists[name], ROWS)})
        return [
            write_part(store, f"{name}/{part_name(number)}", table.slice(start, size))
            for number, start in enumerate(range(0, len(QUERY_ROWS), size))
        ]

    found = {"bm25": parts("bm25", "item_rows", sizes[1]), "earlier": parts("earlier", "negative_rows", sizes[2])}
    return PairsTask(store, parts("hits", "item_rows", sizes[0]), found, "pairs"), lists


@pytest.mark.parametrize(("sizes", "block"), [((5, 5, 5), 5), ((13, 2, 4), 5), ((3, 13, 1), 1), ((1, 1, 1), 13)])
def test_every_cut_gives_the_same_pairs(tmp_path: Path, sizes: tuple[int, int, int], block: int) -> None:
    task, lists = make_task(tmp_path, sizes)
    blocks = plan_blocks(QUERY_ROWS, block)
    written = [write_block(task, some, sum(len(other.query_rows) for other in blocks[: some.index])) for some in blocks]
    assert [part.path for part, _ in written] == [f"pairs/{part_name(number)}" for number in range(len(blocks))]
    table = read_parts(task.store, [part for part, _ in written])
    assert table["query_row"].to_pylist() == QUERY_ROWS.tolist()
    want = [
        sorted((set(bm25) | set(earlier)) - set(hits))
        for hits, bm25, earlier in zip(lists["hits"], lists["bm25"], lists["earlier"], strict=True)
    ]
    assert table["also_rows"].to_pylist() == want
    assert table["bm25_rows"].to_pylist() == lists["bm25"]
    assert table["earlier_rows"].to_pylist() == lists["earlier"]
    assert sum(count for _, count in written) == sum(map(len, want))


def test_a_table_of_other_queries_is_refused(tmp_path: Path) -> None:
    task, _ = make_task(tmp_path)
    with pytest.raises(ArtifactError, match=r"found others; delete the commit"):
        write_block(task, plan_blocks(QUERY_ROWS[1:], 5)[0], 0)


@pytest.mark.cluster
def test_ray_tasks_write_the_same(tmp_path: Path, ray_local: ClusterSize) -> None:
    task, _ = make_task(tmp_path)
    want = write_block(task, plan_blocks(QUERY_ROWS, 13)[0], 0)
    table = read_parts(task.store, [want[0]])
    parts, count = write_pairs(task, plan_blocks(QUERY_ROWS, 4), retries=0)
    assert [part.path for part in parts] == [f"pairs/{part_name(number)}" for number in range(4)]
    assert count == want[1]
    assert read_parts(task.store, parts).combine_chunks().equals(table.combine_chunks())
