"""Choosing negatives: worked by hand, against a slow reference, and the same for every block size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.labels.labels import Labels
from cluster.session.resources import ClusterSize
from cluster.tables.tables import Part, part_name, read_part, read_parts
from mining.candidates import dense_hits
from mining.negatives import MineTask, load_side, mine_block, mine_blocks
from mining.passes import Passes
from mining.report.counts import Counts
from mining.search.block_actor import BlockActor, BlockHits, known_labels
from mining.search.shards import plan_blocks
from mining.search.topk import Shard, canonical_scores, exact_topk
from mining.settings import MiningSettings, Rule

if TYPE_CHECKING:
    from tests.mining.conftest import World


def test_hits_of_uneven_length_become_dense() -> None:
    table = pa.table(
        {
            "item_rows": pa.array([[4, 2], [], [7]], pa.list_(pa.int64())),
            "scores": pa.array([[0.5, 0.25], [], [1.0]], pa.list_(pa.float32())),
        }
    )
    rows, scores = dense_hits(table)
    assert rows.tolist() == [[4, 2], [-1, -1], [7, -1]]
    assert scores.tolist() == [[0.5, 0.25], [-np.inf, -np.inf], [1.0, -np.inf]]
    assert dense_hits(table.slice(1, 1))[0].tolist() == [[-1]]


def test_counts_add_up() -> None:
    total = Counts()
    for _ in range(2):
        total.add(Counts(queries=2, chosen=3, dropped={"self": 1}, hardness=np.ones(400, np.int64)))
    assert (total.queries, total.chosen, total.dropped, int(total.hardness.sum())) == (4, 6, {"self": 2}, 800)


def write_hits(world: World, folder: str, block: int, num_hits: int) -> list[Part]:
    """What a search leaves, without Ray."""
    task, writer = world.search_task(folder, num_hits), BlockActor()
    parts = []
    for number in plan_blocks(np.arange(len(world.query_matrix)), block):
        loaded = writer.load(task, number, known_labels(task))
        scores, rows = exact_topk(loaded.vectors, Shard(world.item_matrix, "faiss"), num_hits)
        owner, items = loaded.pairs
        pairs = canonical_scores(loaded.vectors[owner], world.item_matrix, items[:, None])[:, 0]
        path = f"{folder}/{part_name(number.index)}"
        parts.append(writer.write(task, path, loaded, None, BlockHits(scores, rows, pairs, 0.0))[0])
    return parts


def mine_task(world: World, hits: list[Part], folder: str, settings: MiningSettings, seed: int = 1) -> MineTask:
    return MineTask(world.store, hits, world.labels, world.corpus, world.corpus, world.queries, settings, folder, seed)


def mine_all(task: MineTask) -> tuple[pa.Table, Counts]:
    total, tables, side = Counts(), [], load_side(task)
    for number in range(len(task.hits)):
        part, counts = mine_block(task, number, side)
        assert part.path == f"{task.folder}/{part_name(number)}"
        tables.append(read_part(task.store, part.path))
        total.add(counts)
    return pa.concat_tables(tables), total


def slow_negatives(world: World, settings: MiningSettings) -> list[list[dict[str, Any]]]:
    """Strategy "top" straight from the rules, one candidate at a time."""
    corpus = read_parts(world.store, world.corpus).to_pylist()
    self_rows = read_parts(world.store, world.queries)["item_row"].to_pylist()
    result = []
    for query, vector in enumerate(world.query_matrix):
        products = [float(np.float32((vector.astype(np.float64) * item).sum())) for item in world.item_matrix]
        hits = sorted(range(len(products)), key=lambda row: (-products[row], row))[: settings.num_hits]
        positives = [row for (owner, row), score in world.judged.items() if owner == query and score > 0]
        bad = [row for (owner, row), score in world.judged.items() if owner == query and score == 0]
        groups = {corpus[row]["group_code"] for row in positives} - {-1}
        texts = {corpus[row]["text_code"] for row in positives}
        genres = {genre for row in positives for genre in corpus[row]["genres"]}
        unread = {"teacher_score": None, "round": 0}
        best = [
            {"item_id": f"i{row}", "score": products[row], "position": -1, "source": "judged"} | unread
            for row in sorted(bad, key=lambda row: (-products[row], row))
            if row != self_rows[query]
        ]
        for place, row in enumerate(hits):
            lowest = np.float32(min((products[item] for item in positives), default=np.inf))
            assert settings.margin_reference == "lowest"
            limit = lowest - abs(lowest) * np.float32(settings.relative_margin or 0) if positives else np.inf
            first = corpus[row]["text_code"] not in [corpus[other]["text_code"] for other in hits[:place]]
            if (
                row not in positives
                and row not in bad
                and corpus[row]["group_code"] not in groups
                and corpus[row]["text_code"] not in texts
                and first
                and row != self_rows[query]
                and not genres & set(corpus[row]["genres"])
                and products[row] <= limit
            ):
                best.append({"item_id": f"i{row}", "score": products[row], "position": place, "source": "model"} | unread)
        result.append(best[: settings.num_negatives])
    return result


SETTINGS = MiningSettings(
    num_hits=40, num_negatives=6, margin_reference="lowest", rules=(Rule(column="genres", keep="disjoint"),)
)


def test_mining_equals_the_slow_reference(new_world: Callable[..., World]) -> None:
    world = new_world()
    table, counts = mine_all(mine_task(world, write_hits(world, "hits", 16, 40), "negatives", SETTINGS))
    want = slow_negatives(world, SETTINGS)
    assert table["negatives"].to_pylist() == want
    assert table["query_id"].to_pylist() == [f"q{row}" for row in range(50)]
    assert table["query_row"].to_pylist() == list(range(50))
    assert [[f"i{row}" for row in rows] for rows in table["negative_rows"].to_pylist()] == [
        [item["item_id"] for item in items] for items in want
    ]
    assert table["positive_ids"].to_pylist() == [
        [f"i{row}" for (owner, row), score in world.judged.items() if owner == query and score > 0] for query in range(50)
    ]
    sizes = [len(items) for items in want]
    assert (counts.queries, counts.chosen) == (50, sum(sizes))
    assert counts.queries_short == sum(size < 6 for size in sizes)
    assert counts.queries_empty == sum(size == 0 for size in sizes)
    assert counts.judged == sum(item["source"] == "judged" for items in want for item in items)
    assert counts.candidates == 50 * 40 == counts.survivors + sum(counts.dropped.values())


def test_judged_items_beyond_the_list_are_counted(new_world: Callable[..., World]) -> None:
    """Of every query but the item that it is itself; each is either in the list or counted."""
    world = new_world()
    bad = [query for (query, item), score in world.judged.items() if score == 0 and (query % 4 or query != item)]
    hits, one = write_hits(world, "hits", 16, 40), SETTINGS.model_copy(update={"num_negatives": 1})
    _, counts = mine_all(mine_task(world, hits, "one", one))
    assert counts.judged == len(set(bad))
    assert counts.judged_left_out == len(bad) - len(set(bad)) > 0
    _, counts = mine_all(mine_task(world, hits, "six", SETTINGS))
    assert (counts.judged, counts.judged_left_out) == (len(bad), 0)


@pytest.mark.parametrize("strategy", ["top", "uniform"])
def test_negatives_do_not_depend_on_the_block_size(new_world: Callable[..., World], strategy: str) -> None:
    world = new_world()
    settings = SETTINGS.model_copy(update={"choose": strategy})
    tables, totals = [], []
    for block in (1, 7, 50):
        hits = write_hits(world, f"hits-{block}", block, 40)
        table, total = mine_all(mine_task(world, hits, f"negatives-{block}", settings))
        tables.append(table)
        totals.append({**vars(total), "hardness": total.hardness.tolist()})
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert totals[0] == totals[1] == totals[2]


def test_mining_again_gives_the_same_bytes_and_another_seed_others(new_world: Callable[..., World]) -> None:
    world = new_world()
    hits = write_hits(world, "hits", 50, 40)
    settings = SETTINGS.model_copy(update={"choose": "uniform", "num_negatives": 3})
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        mine_all(mine_task(world, hits, folder, settings, seed))
    first, again, other = (world.store.read_bytes(f"{folder}/{part_name(0)}") for folder in "abc")
    assert first == again
    assert first != other


def test_queries_without_labels_and_a_corpus_smaller_than_k_are_mined(new_world: Callable[..., World]) -> None:
    world = new_world(items=5, queries=3)
    hits = write_hits(world, "hits", 2, 40)
    empty = pa.table({name: pa.array([], pa.int64()) for name in ("query_row", "item_row", "score")})
    side = load_side(mine_task(world, hits, "n", MiningSettings(num_hits=40)))
    unlabelled = Labels.from_tables(empty, pa.table({"group_code": [-1] * 5, "text_code": range(5)}), 3)
    assert not unlabelled.positives(np.arange(3))[1].size
    table, counts = mine_all(mine_task(world, hits, "n", MiningSettings(num_hits=40, relative_margin=None)))
    assert table.num_rows == 3
    assert counts.candidates == 15
    assert side.labels.num_items == 5


def test_how_many_items_are_named_at_once_changes_no_byte(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    hits = write_hits(world, "hits", 7, 40)
    written = []
    for number, at_once in enumerate((1, 100, 2**22)):
        monkeypatch.setattr("mining.negatives.NAMED_AT_ONCE", at_once)
        task = mine_task(world, hits, f"named-{number}", SETTINGS)
        parts = [part for part, _ in mine_blocks(task, range(len(hits)), load_side(task))]
        written.append([world.store.read_bytes(part.path) for part in parts])
    assert len(written[0]) == len(hits)
    assert written[0] == written[1] == written[2]


@pytest.mark.cluster
def test_mining_in_ray_tasks_equals_mining_here(new_world: Callable[..., World], ray_local: ClusterSize) -> None:
    world = new_world()
    hits = write_hits(world, "hits", 7, 40)
    want, total = mine_all(mine_task(world, hits, "here", SETTINGS))
    parts, counts = Passes(mine_task(world, hits, "there", SETTINGS), retries=0).mine()
    assert read_parts(world.store, parts).equals(want)
    assert {**vars(counts), "hardness": 0} == {**vars(total), "hardness": 0}
    assert np.array_equal(counts.hardness, total.hardness)
