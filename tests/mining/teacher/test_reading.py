"""A teacher reads blocks of pairs: each pair once per run, whole blocks or none, errors as what they are."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError, DataError, unwrap
from cluster.session.resources import PoolSize
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, part_name, read_parts, write_part
from mining.teacher.cut import Pairs
from mining.teacher.reading import PairActor, PairReader, ReadDone, ReadTask, _rows_to_do, read_pairs

QUERIES, ITEMS, PART_ROWS = 9, 30, 4


def fit(query: int, item: int) -> float:
    return float(np.float32(query / 10 + item / 1000))


@dataclass
class FakeReader:
    """Scores by the numbers in the texts; leaves a note of every pair it reads."""

    store: Store

    def __call__(self, queries: Sequence[str], items: Sequence[str], on_progress: Callable[[int], None]) -> F32:
        pairs = [(int(query[1:]), int(item[1:])) for query, item in zip(queries, items, strict=True)]
        self.store.write_json(f"log/{time.monotonic_ns()}", pairs)
        on_progress(len(pairs))
        return np.array([np.nan if item == 29 else fit(query, item) for query, item in pairs], np.float32)


def no_reader(store: Store) -> FakeReader:
    store.read_bytes("model/weights")
    return FakeReader(store)


@pytest.fixture
def _by_value() -> None:
    """Workers do not import this file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def write_texts(store: Store, table: str, letter: str, count: int) -> list[Part]:
    texts = pa.table({"row": range(count), "text": [f"{letter}{row}" for row in range(count)]})
    return [
        write_part(store, f"{table}/{part_name(number)}", texts.slice(start, PART_ROWS), first_row=start)
        for number, start in enumerate(range(0, count, PART_ROWS))
    ]


def write_blocks(store: Store, folder: str, pairs: dict[int, list[int]], block: int, *, scored: bool = False) -> list[Part]:
    """Pairs of queries 0 … QUERIES - 1, in blocks of that many queries."""
    parts = []
    for number, start in enumerate(range(0, QUERIES, block)):
        rows = np.arange(start, min(start + block, QUERIES))
        some = [(int(row), item) for row in rows for item in pairs.get(int(row), [])]
        queries, items = np.array(some, np.int64).reshape(-1, 2).T
        scores = np.array([fit(*pair) for pair in some], np.float32)
        table = Pairs.ordered(queries, items, scores).to_table(rows, scored=scored)
        parts.append(write_part(store, f"{folder}/{part_name(number)}", table))
    return parts


def task_of(store: Store, pairs: list[Part], *earlier: list[Part]) -> ReadTask:
    return ReadTask(
        store,
        pairs,
        list(earlier),
        write_texts(store, "queries", "q", QUERIES),
        write_texts(store, "corpus", "i", ITEMS),
        "teacher",
    )


def run_here(task: ReadTask, make: Callable[[], PairReader] | None = None) -> list[int]:
    """Every block in one actor in this process: how many pairs each has read; raises what the actor hands back as a value."""
    actor = PairActor(task, make or partial(FakeReader, task.store), threads=1, mailbox=None, total_rows=QUERIES)
    read = []
    for row in _rows_to_do(task, set()):
        answer = actor({name: np.array([value]) for name, value in row.items()})
        if answer["error"][0]:
            raise pickle.loads(answer["error"][0])
        read += answer["pairs"]
    return read


def pairs_read(store: Store) -> list[tuple[int, int]]:
    """Pairs that were read since the last call."""
    pairs = [(query, item) for path in store.list("log") for query, item in store.read_json(path)]
    store.delete("log")
    return sorted(pairs)


def scores_in(store: Store, folder: str = "teacher") -> dict[tuple[int, int], float]:
    table = read_parts(store, [Part(path, 0, 0) for path in sorted(store.list(folder))])
    assert table["query_row"].to_pylist() == list(range(QUERIES))
    pairs = Pairs.from_table(table)
    return {
        (int(query), int(item)): float(score)
        for query, item, score in zip(pairs.query_rows, pairs.item_rows, pairs.scores, strict=True)
    }


def flat(pairs: dict[int, list[int]]) -> set[tuple[int, int]]:
    return {(query, item) for query, items in pairs.items() for item in items}


WANTED = {0: [3, 1], 2: [7], 3: [0, 28], 7: [3, 12, 13], 8: [1]}


def test_every_pair_is_read_with_its_own_texts(store: Store) -> None:
    assert run_here(task_of(store, write_blocks(store, "pairs", WANTED, 4))) == [5, 3, 1]
    assert pairs_read(store) == sorted(flat(WANTED))
    assert scores_in(store) == {pair: fit(*pair) for pair in flat(WANTED)}


@pytest.mark.parametrize("block", [1, 2, 4, 9])
def test_what_was_read_before_is_not_read_again_however_it_was_cut(store: Store, block: int) -> None:
    first, second = {0: [1, 5], 3: [0], 5: [9]}, {0: [2], 7: [12, 13]}
    earlier = [write_blocks(store, "one", first, block, scored=True), write_blocks(store, "two", second, 4, scored=True)]
    run_here(task_of(store, write_blocks(store, "pairs", WANTED, 4), *earlier))
    known = flat(first) | flat(second)
    assert pairs_read(store) == sorted(flat(WANTED) - known)
    assert scores_in(store) == {pair: fit(*pair) for pair in flat(WANTED) | known}, "what was known is handed on"


def test_a_block_without_a_new_pair_is_written_and_nothing_is_read(store: Store) -> None:
    earlier = write_blocks(store, "one", WANTED, 4, scored=True)
    assert run_here(task_of(store, write_blocks(store, "pairs", WANTED, 4), earlier)) == [0, 0, 0]
    assert pairs_read(store) == []
    assert set(scores_in(store)) == flat(WANTED)


def test_errors_are_handed_back_as_what_they_are_and_leave_no_block(store: Store) -> None:
    task = task_of(store, write_blocks(store, "pairs", {5: [29, 3], 6: [29]}, 4))
    with pytest.raises(
        DataError, match="NaN or infinite scores for 2 of 3 pairs, the first for the query at row 5 and the item at row 29"
    ):
        run_here(task)
    assert f"teacher/{part_name(1)}" not in store.list("teacher")
    with pytest.raises(ArtifactError, match="model/weights: there is no such object"):
        run_here(replace(task, folder="other"), partial(no_reader, store))
    with pytest.raises(ArtifactError, match="expected rows up to 9 in the table"):
        run_here(replace(task, folder="third", pairs=write_blocks(store, "pairs", {3: [9]}, 4), corpus=task.corpus[:2]))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local", "_by_value")
def test_over_ray_blocks_come_in_order_only_missing_ones_are_read_and_errors_come_back(store: Store) -> None:
    def run(task: ReadTask, *, actors: int = 1) -> ReadDone:
        return read_pairs(task, partial(FakeReader, store), PoolSize(actors, 1, 0), retries=0)

    bad = task_of(store, write_blocks(store, "bad", {5: [29, 3], 6: [29]}, 4))
    with pytest.raises(DataError) as error:
        run(replace(bad, folder="bad-scores"))
    assert "NaN or infinite scores for 2 of 3 pairs, the first for the query at row 5 and the item at row 29" in str(
        unwrap(error.value)
    )
    assert f"bad-scores/{part_name(1)}" not in store.list("bad-scores")
    pairs_read(store)

    task = task_of(store, write_blocks(store, "pairs", WANTED, 4))
    first = run(task, actors=2)
    assert (first.pairs, pairs_read(store)) == (9, sorted(flat(WANTED)))
    assert first.seconds > 0
    assert [part.path for part in first.parts] == [f"teacher/{part_name(number)}" for number in range(3)]
    assert [part.rows for part in first.parts] == [4, 4, 1]
    assert [part.bytes for part in first.parts] == [store.size(part.path) for part in first.parts]
    again = run(task)
    assert (again.pairs, again.parts, again.seconds) == (0, first.parts, 0.0)
    store.delete(first.parts[1].path)
    assert run(task).parts == first.parts
    assert pairs_read(store) == [(7, 3), (7, 12), (7, 13)]
