"""Search over Ray actors: the same hits for any number of shards, actors and blocks; finished blocks are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError, unwrap
from cluster.resources import ClusterSize, PoolSize
from cluster.tables import part_name, read_parts
from mining.block_actor import read_vectors
from mining.search import search
from mining.settings import SearchSettings
from mining.shards import ShardRange, plan_blocks, plan_shards

if TYPE_CHECKING:
    from tests.mining.conftest import World

NUM_HITS = 20


EXACT = SearchSettings(mode="exact")


def run(world: World, *, shards: int, actors: int = 1, block: int = 16, folder: str = "hits",
        how: SearchSettings = EXACT, **options: Any) -> pa.Table:
    blocks = plan_blocks(np.arange(len(world.query_matrix)), block)
    cuts = plan_shards(len(world.item_matrix), shards=shards, actors=actors, shard_rows=1000)
    task = world.search_task(folder, NUM_HITS, **options)
    found = search(task, cuts, blocks, PoolSize(actors, 1, 0), how, retries=0)
    names = [part_name(number) for number in range(len(blocks))]
    assert [part.path.rpartition("/")[2] for part in found.parts] == names
    assert sum(part.rows for part in found.parts) == len(world.query_matrix)
    return read_parts(world.store, found.parts)


def slow_search(world: World) -> pa.Table:
    """One query at a time in float64."""
    rows, scores, label_rows, label_scores = [], [], [], []
    for query, vector in enumerate(world.query_matrix):
        products = (vector.astype(np.float64) * world.item_matrix.astype(np.float64)).sum(axis=1).astype(np.float32)
        best = sorted(range(len(products)), key=lambda row: (-products[row], row))[:NUM_HITS]
        judged = [row for owner, row in world.judged if owner == query]
        rows.append(best)
        scores.append(products[best].tolist())
        label_rows.append(judged)
        label_scores.append(products[judged].tolist())
    return pa.table({
        "query_row": range(len(rows)), "item_rows": rows, "scores": pa.array(scores, pa.list_(pa.float32())),
        "label_rows": pa.array(label_rows, pa.list_(pa.int64())),
        "label_scores": pa.array(label_scores, pa.list_(pa.float32())),
        "excluded": pa.array([0] * len(rows), pa.int32()),
    })


def test_vectors_of_a_range_are_read_across_parts_and_gaps_are_told(new_world: Callable[..., World]) -> None:
    world = new_world()
    got = read_vectors(world.store, world.item_vectors, 25, 65)
    assert np.array_equal(got, world.item_matrix[25:65])
    for parts in (world.item_vectors[:1], world.item_vectors[1:], []):
        with pytest.raises(ArtifactError, match="expected the vectors of 40 rows from 25 to 64"):
            read_vectors(world.store, parts, 25, 65)


@pytest.mark.cluster
@pytest.mark.parametrize(("shards", "actors", "block"), [
    (1, 1, 16), (1, 2, 64), (2, 1, 64), (2, 2, 16), (3, 1, 16), (3, 2, 16), (3, 2, 64), (5, 1, 64), (5, 2, 16),
])
def test_hits_do_not_depend_on_shards_actors_and_blocks(
    new_world: Callable[..., World], ray_local: ClusterSize, shards: int, actors: int, block: int,
) -> None:
    world = new_world()
    want = slow_search(world)
    assert run(world, shards=shards, actors=actors, block=block).cast(want.schema).equals(want)


@pytest.mark.cluster
def test_shards_smaller_than_k_and_a_corpus_smaller_than_k_give_all_they_have(
    new_world: Callable[..., World], ray_local: ClusterSize,
) -> None:
    world = new_world(items=13, queries=9)
    want = slow_search(world)
    assert {len(rows) for rows in want["item_rows"].to_pylist()} == {13}
    assert run(world, shards=5, actors=2).cast(want.schema).equals(want)


@pytest.mark.cluster
def test_only_blocks_that_are_missing_are_searched(new_world: Callable[..., World], ray_local: ClusterSize) -> None:
    world = new_world()
    want = run(world, shards=2, block=16)
    kept = [f"hits/exact/{part_name(number)}" for number in (0, 2, 3)]
    before = {path: (world.store.root, world.store.read_bytes(path)) for path in kept}
    world.store.write_bytes(kept[0], b"left as it is")  # finished blocks are not read either
    world.store.delete(f"hits/exact/{part_name(1)}")
    blocks = plan_blocks(np.arange(len(world.query_matrix)), 16)
    cuts = plan_shards(70, shards=2, actors=1, shard_rows=1000)
    search(world.search_task("hits", NUM_HITS), cuts, blocks, PoolSize(1, 1, 0), EXACT, retries=0)
    assert world.store.read_bytes(kept[0]) == b"left as it is"
    world.store.write_bytes(kept[0], before[kept[0]][1])
    assert run(world, shards=2, block=16).equals(want)


def test_a_finished_search_starts_no_actor(new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    blocks = plan_blocks(np.arange(50), 50)
    world.store.write_bytes(f"hits/exact/{part_name(0)}", b"done")
    world.store.write_json("hits/how.json", {"how": {"mode": "exact", "engine": "faiss"}, "figures": {"mode": "exact"}})
    monkeypatch.setattr("mining.waves.ShardActor", None)
    found = search(world.search_task("hits", NUM_HITS), [ShardRange(0, 70)], blocks, PoolSize(1, 1, 0), EXACT, retries=0)
    assert (found.parts[0].rows, found.parts[0].bytes, found.seconds) == (50, 4, 0.0)


@pytest.mark.cluster
@pytest.mark.parametrize("table", ["items/part-00001.parquet", "labels/part-00000.parquet"])
def test_a_missing_table_comes_back_as_an_artifact_error(
    new_world: Callable[..., World], ray_local: ClusterSize, table: str,
) -> None:
    world = new_world()
    world.store.delete(table)
    with pytest.raises(Exception, match="no such object") as error:
        run(world, shards=2)
    got = unwrap(error.value)
    assert isinstance(got, ArtifactError)
    assert table in str(got)
    assert "\n" not in str(got)
