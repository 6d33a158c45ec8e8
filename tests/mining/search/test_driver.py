"""Search over Ray actors; and, with the actors in this process, how a search is done: its mode, its recall, its rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError, ConfigError, unwrap
from cluster.session.resources import ClusterSize, PoolSize
from cluster.storage.records import write_record
from cluster.tables.tables import F32, part_name, read_parts, vectors_to_column, write_part
from mining.search.block_actor import SearchTask, read_vectors
from mining.search.driver import Searched, search
from mining.search.recall import sample_blocks
from mining.search.shards import QueryBlock, ShardRange, plan_blocks, plan_shards
from mining.settings import SearchSettings

if TYPE_CHECKING:
    from tests.mining.conftest import HereRay, World

EXACT = SearchSettings(mode="exact")
NUM_HITS = 20


@pytest.fixture(autouse=True)
def recall_is_measured_on_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mining.search.driver.RECALL_QUERIES", 64)


def blocks_of(world: World, size: int) -> list[QueryBlock]:
    return plan_blocks(np.arange(len(world.query_matrix)), size)


def run(
    world: World, task: SearchTask, *, shards: int = 1, actors: int = 1, block: int = 64, how: SearchSettings = EXACT
) -> Searched:
    cuts = plan_shards(len(world.item_matrix), shards=shards, actors=actors, shard_rows=10**6)
    return search(task, cuts, blocks_of(world, block), PoolSize(actors, 1, 0), how, retries=0)


def clustered(count: int, dimension: int, seed: int) -> F32:
    generator, centers = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((40, dimension))
    vectors = centers[generator.integers(0, 40, count)] + generator.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def alike() -> tuple[F32, F32]:
    """(items, queries) that 8 bits cannot tell apart, in the one direction that counts: an outlier makes the steps wide."""
    generator = np.random.default_rng(3)
    along = generator.choice([-1, 1], 255) / 255**0.5
    items = np.zeros((3000, 256))
    items[:, 0], items[:, 1:] = 1.0, 0.05 * generator.uniform(-1, 1, (3000, 1)) * along
    items[0] = -items[0]
    queries = np.concatenate([np.zeros((40, 1)), along * np.where(generator.random((40, 255)) < 0.1, -1, 1)], axis=1)
    return (items / np.linalg.norm(items, axis=1, keepdims=True)).astype(np.float32), queries.astype(np.float32)


def with_vectors(world: World, items_ND: Any, queries_QD: Any) -> World:
    parts = [
        [
            write_part(
                world.store,
                f"{name}/{part_name(place)}",
                pa.table(
                    {
                        "row": np.arange(start, min(start + 700, len(vectors))),
                        "vector": vectors_to_column(vectors[start : start + 700]),
                    }
                ),
                first_row=start,
            )
            for place, start in enumerate(range(0, len(vectors), 700))
        ]
        for name, vectors in (("new-items", items_ND), ("new-queries", queries_QD))
    ]
    return replace(world, item_vectors=parts[0], query_vectors=parts[1], item_matrix=items_ND, query_matrix=queries_QD)


def plain_task(world: World, folder: str, num_hits: int = 30) -> SearchTask:
    return replace(world.search_task(folder, num_hits), labels=[])


def true_hits(world: World, num_hits: int = 30) -> list[list[int]]:
    scores_QN = (world.query_matrix.astype(np.float64) @ world.item_matrix.T.astype(np.float64)).astype(np.float32)
    order: list[list[int]] = np.lexsort((np.broadcast_to(np.arange(scores_QN.shape[1]), scores_QN.shape), -scores_QN))[
        :, :num_hits
    ].tolist()
    return order


def recall_by_hand(found: Sequence[Sequence[int]], true: Sequence[Sequence[int]], rows: Sequence[int]) -> float:
    return sum(len(set(found[row]) & set(true[row])) for row in rows) / sum(len(true[row]) for row in rows)


@pytest.fixture
def crowd(new_world: Callable[..., World]) -> World:
    """3,000 items and 400 queries in clusters."""
    return with_vectors(new_world(), clustered(3000, 32, 1), clustered(400, 32, 2))


def test_vectors_of_a_range_are_read_across_parts_and_gaps_are_told(new_world: Callable[..., World]) -> None:
    world = new_world()
    got = read_vectors(world.store, world.item_vectors, 25, 65)
    assert np.array_equal(got, world.item_matrix[25:65])
    for parts in (world.item_vectors[:1], world.item_vectors[1:], []):
        with pytest.raises(ArtifactError, match="expected the vectors of 40 rows from 25 to 64"):
            read_vectors(world.store, parts, 25, 65)


def test_a_finished_search_starts_no_actor(new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    blocks = plan_blocks(np.arange(50), 50)
    left = write_part(world.store, f"hits/exact/{part_name(0)}", pa.table({"query_row": np.arange(50)}))
    write_record(world.store, "hits/how.json", {"how": {"mode": "exact", "engine": "faiss"}, "figures": {"mode": "exact"}})
    monkeypatch.setattr("mining.search.waves.ShardActor", None)
    found = search(world.search_task("hits", NUM_HITS), [ShardRange(0, 70)], blocks, PoolSize(1, 1, 0), EXACT, retries=0)
    assert (found.parts, found.seconds) == ([left], 0.0)


@pytest.mark.cluster
@pytest.mark.parametrize(("items", "queries", "shards", "actors", "block"), [(300, 200, 5, 2, 64), (9, 1, 4, 1, 64)])
def test_hits_over_ray_do_not_depend_on_shards_actors_and_blocks(
    new_world: Callable[..., World],
    slow_search: Callable[..., pa.Table],
    ray_local: ClusterSize,
    items: int,
    queries: int,
    shards: int,
    actors: int,
    block: int,
) -> None:
    world = new_world(items=items, queries=queries)
    pairs = np.random.default_rng(1).integers(0, items, (queries, 3)).tolist()
    also = tuple(
        write_part(
            world.store,
            f"also/{part_name(some.index)}",
            pa.table({"query_row": some.query_rows, "also_rows": [pairs[row] for row in some.query_rows]}),
        )
        for some in blocks_of(world, block)
    )
    task = world.search_task("hits", NUM_HITS, exclude_known=True, also=also)
    want = slow_search(world, NUM_HITS, exclude_known=True, also=pairs)
    found = run(world, task, shards=shards, actors=actors, block=block)
    assert read_parts(world.store, found.parts).cast(want.schema).equals(want)
    assert sorted(world.store.list("hits")) == sorted(["hits/how.json", *(part.path for part in found.parts)])


@pytest.mark.cluster
def test_lists_over_ray_report_a_recall_that_is_true(crowd: World, ray_local: ClusterSize) -> None:
    settings = SearchSettings(mode="ivf", lists=64, min_recall=0.9)
    searched = run(crowd, plain_task(crowd, "hits"), shards=3, actors=2, how=settings)
    found, verified = read_parts(crowd.store, searched.parts)["item_rows"].to_pylist(), sample_blocks(blocks_of(crowd, 64), 64)[1]
    assert searched.figures["recall"] == pytest.approx(recall_by_hand(found, true_hits(crowd), verified.query_rows))
    assert searched.figures["recall"] >= 0.9


@pytest.mark.cluster
@pytest.mark.parametrize("table", ["items/part-00001.parquet", "labels/part-00000.parquet"])
def test_a_missing_table_comes_back_as_an_artifact_error(
    new_world: Callable[..., World], ray_local: ClusterSize, table: str
) -> None:
    world = new_world()
    world.store.delete(table)
    with pytest.raises(Exception, match="no such object") as error:
        run(world, world.search_task("hits", NUM_HITS), shards=2)
    got = unwrap(error.value)
    assert isinstance(got, ArtifactError)
    assert table in str(got)
    assert "\n" not in str(got)


@pytest.mark.parametrize("shards", [1, 5])
def test_lists_are_searched_until_the_recall_is_reached_and_the_recall_is_true(here: HereRay, crowd: World, shards: int) -> None:
    settings = SearchSettings(mode="ivf", lists=64, min_recall=0.9)
    searched = run(crowd, plain_task(crowd, "hits"), shards=shards, actors=2, how=settings)
    found = read_parts(crowd.store, searched.parts)["item_rows"].to_pylist()
    assert all(len(rows) == 30 for rows in found)
    true = true_hits(crowd)
    verified = sample_blocks(blocks_of(crowd, 64), 64)[1].query_rows
    assert searched.figures["recall"] == pytest.approx(recall_by_hand(found, true, verified))
    assert searched.figures["recall_queries"] == len(verified)
    assert searched.figures["recall"] >= 0.9
    assert recall_by_hand(found, true, range(400)) == pytest.approx(searched.figures["recall"], abs=0.05)
    assert (searched.figures["mode"], searched.figures["lists"]) == ("ivf", 64)
    assert searched.figures["probes"] < 64
    assert all(f"/probes-{searched.figures['probes']}/" in part.path for part in searched.parts)
    # asked again, it takes what is there
    here.searches.clear()
    assert run(crowd, plain_task(crowd, "hits"), shards=shards, actors=2, how=settings).figures == searched.figures
    assert not here.searches


def test_a_recall_of_one_reads_more_and_more_lists(here: HereRay, crowd: World) -> None:
    settings = SearchSettings(mode="ivf", lists=32, min_recall=1.0)
    searched = run(crowd, plain_task(crowd, "hits"), shards=3, actors=2, how=settings)
    tried = searched.figures["recall_by_probes"]
    assert list(tried)[:2] == ["4", "8"]
    assert list(tried.values()) == sorted(tried.values())
    assert tried["4"] < 1.0
    found, verified = read_parts(crowd.store, searched.parts)["item_rows"].to_pylist(), sample_blocks(blocks_of(crowd, 64), 64)[1]
    assert searched.figures["recall"] == recall_by_hand(found, true_hits(crowd), verified.query_rows) == 1.0


def test_a_recall_found_too_low_after_all_searches_again_more_widely(
    here: HereRay, crowd: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mining.search.driver.aimed_recall", lambda least: 0.1)  # tuned far too low
    settings = SearchSettings(mode="ivf", lists=64, min_recall=0.99)
    searched = run(crowd, plain_task(crowd, "hits"), shards=2, how=settings)
    assert searched.figures["recall"] >= 0.99 > searched.figures["widened_at_recall"]
    assert searched.figures["probes"] > 4
    assert all(f"/probes-{searched.figures['probes']}/" in part.path for part in searched.parts)
    assert len(crowd.store.list("hits/probes-4")) == len(searched.parts)  # the first attempt was whole, too


def test_a_two_stage_search_finds_what_an_exact_one_does(here: HereRay, crowd: World) -> None:
    searched = run(crowd, plain_task(crowd, "hits"), shards=3, actors=2, how=SearchSettings(mode="two_stage"))
    assert (searched.figures["mode"], searched.figures["engine"]) == ("two_stage", "int8")
    assert searched.figures["recall"] >= searched.figures["two_stage_recall"] - 0.001 >= 0.998
    assert recall_by_hand(read_parts(crowd.store, searched.parts)["item_rows"].to_pylist(), true_hits(crowd), range(400)) > 0.999


@pytest.mark.parametrize("accepted", [False, True])
def test_a_two_stage_search_that_misses_too_much_is_done_exactly(
    here: HereRay, new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    world = with_vectors(new_world(), *alike())
    if accepted:  # the sample says that it is good; the check at the end does not
        monkeypatch.setattr("mining.search.driver.TWO_STAGE_RECALL", 0.0)
    searched = run(world, plain_task(world, "hits", 20), how=SearchSettings(mode="two_stage"), block=16)
    assert searched.figures["mode"] == "exact"
    assert searched.figures["two_stage_recall"] < 0.9
    assert "recall" not in searched.figures
    assert read_parts(world.store, searched.parts)["item_rows"].to_pylist() == true_hits(world, 20)
    assert bool(world.store.list("hits/two_stage")) is accepted


def test_a_recall_that_cannot_be_reached_stops_with_what_to_do(here: HereRay, new_world: Callable[..., World]) -> None:
    world = with_vectors(new_world(), *alike())
    settings = SearchSettings(mode="ivf", lists=2, min_recall=0.97)
    with pytest.raises(
        ConfigError,
        match=r"mining\.search\.min_recall = 0\.97 .* though all 2 lists were read; set "
        r"mining\.search\.mode = \"exact\"",
    ) as error:
        run(world, plain_task(world, "hits", 20), how=settings, block=16)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="though all 2 lists were read"):  # and again
        run(world, plain_task(world, "hits", 20), how=settings, block=16)


def test_the_rates_of_the_engines_are_measured_where_there_is_a_choice(
    here: HereRay, crowd: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mining.search.driver.SMALL_PRODUCTS", 1)
    monkeypatch.setattr("mining.search.how.SHORT_S", float("inf"))  # however slow this machine is now
    searched = run(crowd, plain_task(crowd, "hits"), how=SearchSettings(), actors=2, shards=3)
    rates, seconds = searched.figures["probe"], searched.figures["estimated_seconds"]
    assert {"faiss", "int8", "int8:likely"} >= set(rates) >= {"faiss"}
    assert all(rate > 0 for rate in rates.values())
    assert searched.figures["mode"] == "exact"  # it is short
    assert searched.figures["engine"] == max((name for name in rates if ":" not in name), key=lambda name: rates[name])
    billions = 400 * 3000 / 1e9
    assert seconds["exact"] == pytest.approx(billions / rates[searched.figures["engine"]] / 2, rel=0.01, abs=0.06)  # two actors
    assert json.loads(crowd.store.read_bytes("hits/how.json"))["figures"] == searched.figures
    assert "probe" not in run(crowd, plain_task(crowd, "again"), how=SearchSettings(mode="exact", engine="torch")).figures
    monkeypatch.setattr("mining.search.how.SHORT_S", 0.0)
    other = run(crowd, plain_task(crowd, "other"), how=SearchSettings()).figures
    assert other["mode"] in ("exact", *other["estimated_seconds"])
