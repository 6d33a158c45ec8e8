"""Searches with their actors in this process: how corpus and queries are cut, and where a search stops, changes no hit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError
from cluster.session.resources import PoolSize
from cluster.storage.records import write_record
from cluster.tables.tables import Part, part_name, read_parts, write_part
from mining.search.block_actor import SearchTask
from mining.search.driver import Searched, search
from mining.search.shards import QueryBlock, plan_blocks, plan_shards
from mining.settings import SearchSettings

if TYPE_CHECKING:
    from tests.mining.conftest import HereRay, World

EXACT = SearchSettings(mode="exact")
NUM_HITS = 12


def grouped(world: World) -> World:
    """The same with groups of about ten items; a third of the items is in none."""
    rows = np.arange(len(world.item_matrix))
    table = pa.table({"row": rows, "group_code": np.where(rows % 3 == 0, -1, rows // 15), "text_code": rows})
    return replace(world, corpus=[write_part(world.store, "grouped.parquet", table)])


def blocks_of(world: World, size: int) -> list[QueryBlock]:
    return plan_blocks(np.arange(len(world.query_matrix)), size)


def also_parts(world: World, pairs: list[list[int]], size: int) -> tuple[Part, ...]:
    """`pairs` of every query, cut as the blocks are."""
    return tuple(
        write_part(
            world.store,
            f"also-{size}/{part_name(block.index)}",
            pa.table(
                {
                    "query_row": block.query_rows,
                    "also_rows": pa.array([pairs[row] for row in block.query_rows], pa.list_(pa.int64())),
                }
            ),
        )
        for block in blocks_of(world, size)
    )


def run(
    world: World, task: SearchTask, *, shards: int = 1, actors: int = 1, block: int = 64, how: SearchSettings = EXACT
) -> Searched:
    cuts = plan_shards(len(world.item_matrix), shards=shards, actors=actors, shard_rows=10**6)
    return search(task, cuts, blocks_of(world, block), PoolSize(actors, 1, 0), how, retries=0)


def choose_engine(world: World, folder: str, engine: str) -> None:
    """As if the search had begun with this engine."""
    write_record(
        world.store,
        f"{folder}/how.json",
        {"how": {"mode": "exact", "engine": engine, "oversample": 2.0}, "figures": {"mode": "exact", "engine": engine}},
    )


def states(world: World, folder: str) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every object."""
    root = Path(world.store.root)
    return {path: ((root / path).stat().st_mtime_ns, world.store.read_bytes(path)) for path in world.store.list(folder)}


@pytest.mark.parametrize(
    ("shards", "actors", "block", "engine", "exclude"),
    [
        (1, 1, 4096, "faiss", True),
        (1, 3, 64, "int8", True),
        (2, 1, 64, "faiss", True),
        (2, 2, 7, "torch", False),
        (3, 1, 130, "int8", True),
        (3, 3, 64, "faiss", False),
        (4, 3, 64, "half", True),
        (5, 3, 1, "faiss", True),
        (8, 1, 64, "faiss", True),
        (8, 3, 333, "int8", False),
        (8, 5, 64, "torch", True),
    ],
)
def test_hits_do_not_depend_on_shards_actors_blocks_and_engine(
    here: HereRay,
    new_world: Callable[..., World],
    slow_search: Callable[..., pa.Table],
    shards: int,
    actors: int,
    block: int,
    engine: str,
    exclude: bool,
) -> None:
    queries = 130 if block > 1 else 40  # every block is searched, kept and read in every wave
    world = grouped(new_world(items=180, queries=queries))
    pairs = np.random.default_rng(1).integers(0, 180, (queries, 3)).tolist()
    pairs[4] = []
    folder = f"hits-{exclude}"
    choose_engine(world, folder, engine)
    task = world.search_task(folder, NUM_HITS, exclude_known=exclude, also=also_parts(world, pairs, block))
    found = run(world, task, shards=shards, actors=actors, block=block)
    want = slow_search(world, NUM_HITS, exclude_known=exclude, also=pairs)
    assert read_parts(world.store, found.parts).cast(want.schema).equals(want)
    assert [part.rows for part in found.parts] == [len(some.query_rows) for some in blocks_of(world, block)]
    assert not world.store.list(f"{folder}/waves")
    assert found.seconds > 0
    if exclude:
        assert want["excluded"].to_numpy().sum() > 0.38 * queries


def test_files_are_byte_equal_for_any_number_of_shards(here: HereRay, new_world: Callable[..., World]) -> None:
    world, files = new_world(), []
    for number, (shards, actors) in enumerate([(1, 1), (3, 2), (7, 3)]):
        found = run(
            world, world.search_task(f"hits-{number}", NUM_HITS, exclude_known=True), shards=shards, actors=actors, block=16
        )
        files.append([world.store.read_bytes(part.path) for part in found.parts])
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize(("items", "queries", "shards"), [(1, 1, 1), (1, 9, 1), (9, 1, 4), (13, 9, 13), (7, 20, 3)])
def test_a_corpus_smaller_than_k_gives_all_it_has(
    here: HereRay, new_world: Callable[..., World], slow_search: Callable[..., pa.Table], items: int, queries: int, shards: int
) -> None:
    world = new_world(items=items, queries=queries)
    for exclude in (False, True):
        task = world.search_task(f"hits-{exclude}", 50, exclude_known=exclude)
        want = slow_search(world, 50, exclude_known=exclude)
        assert read_parts(world.store, run(world, task, shards=shards, actors=2, block=8).parts).cast(want.schema).equals(want)
        lengths = [
            len(rows) + left for rows, left in zip(want["item_rows"].to_pylist(), want["excluded"].to_pylist(), strict=True)
        ]
        assert lengths == [items] * queries


def test_pairs_alone_are_scored_over_all_waves(
    here: HereRay, new_world: Callable[..., World], slow_search: Callable[..., pa.Table]
) -> None:
    world = new_world()
    pairs = np.random.default_rng(2).integers(0, 70, (50, 4)).tolist()
    task = world.search_task("scores", 0, also=also_parts(world, pairs, 16))
    # how to find hits does not matter where none are asked for
    got = read_parts(world.store, run(world, task, shards=5, actors=2, block=16, how=SearchSettings(mode="ivf")).parts)
    want = slow_search(world, NUM_HITS, also=pairs).select(["query_row", "also_rows", "also_scores"])
    assert got.cast(want.schema).equals(want)


def test_pairs_of_other_queries_are_refused(here: HereRay, new_world: Callable[..., World]) -> None:
    world = new_world()
    parts = also_parts(world, [[1]] * 50, 16)
    task = world.search_task("hits", NUM_HITS, also=(parts[1], parts[0], *parts[2:]))
    with pytest.raises(ArtifactError, match="expected the pairs of query block 0 in also-16/part-00001"):
        run(world, task, block=16)


@pytest.mark.parametrize("after", [(6, 4), (3, 2), (2, 1), (5, 5)], ids=str)
@pytest.mark.parametrize("stop", [0, 1, 7, 11, 12, 13, 19, 23])
def test_a_search_stopped_anywhere_goes_on_where_it_was(
    here: HereRay, new_world: Callable[..., World], slow_search: Callable[..., pa.Table], stop: int, after: tuple[int, int]
) -> None:
    world = new_world()  # 4 blocks × (4 shards, which end at row 46, and 2 more in a second wave)
    task = world.search_task("hits", NUM_HITS, exclude_known=True)
    here.stop_before = stop
    with pytest.raises(here.Stopped):
        run(world, task, shards=6, actors=4, block=16)
    before, done = states(world, "hits"), list(here.searches)
    waiting = {path.rsplit("-", 1)[1]: path for path in before if "/waves/" in path}
    finished = {path.rsplit("-", 1)[1] for path in before if "/exact/" in path}
    assert (len(waiting), len(finished)) == (min(stop // 4, 4), max(0, stop - 16) // 2)

    here.stop_before, here.searches = None, []
    shards, actors = after
    found = run(world, task, shards=shards, actors=actors, block=16)
    want = slow_search(world, NUM_HITS, exclude_known=True)
    assert read_parts(world.store, found.parts).cast(want.schema).equals(want)
    now = states(world, "hits")
    assert all(now[path] == before[path] for path in before if "/exact/" in path)
    assert len(now) == len([*found.parts, "how.json"])
    # what waits of the first 46 rows is of use wherever a first wave ends there: of 6 shards the fourth, of 3 the second
    useful = len(waiting) - len(finished) if after in ((6, 4), (3, 2)) else 0
    assert len(here.searches) == (4 - len(finished)) * shards - actors * useful
    if after == (6, 4):
        kept = {(start, query) for start, query in done if f"{query // 16:05d}.parquet" in waiting and start < 46}
        assert not kept & set(here.searches)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "was changed or damaged"),
        (lambda data: b"", "was changed or damaged"),
        ("other block", r"expected 192 hits and \d+ pairs in .*waves/000000000052/exact-0-part-00001.parquet, found 24 and"),
    ],
)
def test_damaged_hits_between_waves_are_told_and_never_used(
    here: HereRay, new_world: Callable[..., World], slow_search: Callable[..., pa.Table], damage: Any, message: str
) -> None:
    world = new_world()
    task = world.search_task("hits", NUM_HITS)
    here.stop_before = 13
    with pytest.raises(here.Stopped):
        run(world, task, shards=4, actors=3, block=16)
    path = f"hits/waves/000000000052/exact-0-{part_name(1)}"
    last = f"hits/waves/000000000052/exact-0-{part_name(3)}"  # of the two queries that are left over
    other = damage == "other block"
    world.store.write_bytes(path, world.store.read_bytes(last) if other else damage(world.store.read_bytes(path)))
    here.stop_before = None
    with pytest.raises(ArtifactError, match=message) as error:
        run(world, task, shards=4, actors=3, block=16)
    assert path in str(error.value)
    assert "`hardmine run`" in str(error.value)
    world.store.delete(path)
    want = slow_search(world, NUM_HITS)
    found = run(world, task, shards=4, actors=3, block=16)
    assert read_parts(world.store, found.parts).cast(want.schema).equals(want)


def test_parts_come_in_the_order_of_the_blocks_however_they_are_named(
    here: HereRay, new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    monkeypatch.setattr("mining.search.driver.part_name", lambda number: f"part-{99_998 + number:05d}")  # 6 digits come first
    task = world.search_task("hits", NUM_HITS)
    want = [f"hits/exact/part-{number}" for number in (99_998, 99_999, 100_000, 100_001)]
    assert [part.path for part in run(world, task, block=16).parts] == want
    world.store.delete(want[1])
    assert [(part.path, part.rows) for part in run(world, task, block=16).parts] == list(zip(want, [16, 16, 16, 2], strict=True))
