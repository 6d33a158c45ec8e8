"""Candidates by words: worked by hand, against the formula one text at a time, resumed, and in Ray."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from cluster.tables.tables import I64, Part, part_name, read_parts, write_part
from mining.search.shards import plan_blocks
from mining.sources.bm25 import Bm25Task, WordIndex, search_blocks, search_words
from mining.sources.words import words


def nothing_known(queries: int) -> tuple[I64, I64]:
    return np.zeros(queries + 1, np.int64), np.zeros(0, np.int64)


def best_rows(texts: list[str], queries: list[str], num_hits: int) -> list[list[int]]:
    offsets, _, rows = WordIndex(texts).best(queries, num_hits, nothing_known(len(queries)))
    return [part.tolist() for part in np.split(rows, offsets[1:-1])]


def slow_scores(texts: list[str], query: str) -> list[float]:
    """BM25 as it is written down, in float64."""
    documents = [Counter(words(text)) for text in texts]
    mean = sum(map(Counter.total, documents)) / len(documents)
    result = []
    for document in documents:
        total = 0.0
        for word in words(query):
            holders = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
            length = 1 - 0.75 + 0.75 * document.total() / (mean or 1.0)
            total += idf * document[word] / (document[word] + 1.5 * length) if document[word] else 0.0
        result.append(total)
    return result


def test_one_word_worked_by_hand() -> None:
    # 3 texts of 2 words, "cat" in one: idf = ln(1 + 2.5 / 1.5), tf part = 1 / (1 + 1.5)
    _, scores, rows = WordIndex(["a dog", "a cat", "the dog"]).best(["Cat!"], 3, nothing_known(1))
    assert rows.tolist() == [1]
    assert scores == pytest.approx([math.log(1 + 2.5 / 1.5) / 2.5])


def test_rare_words_count_more_and_equal_scores_go_by_row() -> None:
    texts = ["blue bird", "red bird", "green bird", "red whale", "red whale"]
    assert best_rows(texts, ["whale bird", "bird", "ant", ""], 4) == [[3, 4, 0, 1], [0, 1, 2], [], []]


def test_texts_without_any_word_are_found_by_nobody() -> None:
    assert best_rows(["!!!", "…"], ["!!!", "a"], 2) == [[], []]
    assert best_rows(["", "cat"], ["cat"], 2) == [[1]]


def test_items_of_other_scripts_are_found() -> None:
    texts = ["Красная кошка", "黒猫が好きです", "बिल्ली का बच्चा", "a red cat"]
    assert best_rows(texts, ["КОШКА", "黒猫", "बिल्ली", "cat"], 1) == [[0], [1], [2], [3]]


def test_known_items_take_no_place() -> None:
    index = WordIndex(["cat", "cat", "cat", "cat"])
    offsets, _, rows = index.best(["cat", "cat"], 2, (np.array([0, 2, 2]), np.array([0, 2])))
    assert [part.tolist() for part in np.split(rows, offsets[1:-1])] == [[1, 3], [0, 1]]


vocabulary = st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join)


@given(
    st.lists(vocabulary, min_size=1, max_size=12),
    st.lists(vocabulary, min_size=1, max_size=4),
    st.integers(1, 13),
    st.integers(1, 3),
)
def test_the_index_equals_the_formula(texts: list[str], queries: list[str], num_hits: int, threads: int) -> None:
    offsets, scores, rows = WordIndex(texts).best(queries, num_hits, nothing_known(len(queries)), threads)
    for number, query in enumerate(queries):
        want = slow_scores(texts, query)
        got = rows[offsets[number] : offsets[number + 1]]
        some = scores[offsets[number] : offsets[number + 1]]
        assert some == pytest.approx([want[row] for row in got], rel=1e-5)
        assert len(got) == min(num_hits, sum(score > 0 for score in want))
        assert [(-score, row) for score, row in zip(some, got, strict=True)] == sorted(
            (-score, row) for score, row in zip(some, got, strict=True)
        )
        rest = [score for row, score in enumerate(want) if row not in got]
        assert max(rest, default=0.0) <= min(some, default=np.inf) * (1 + 1e-5)


def test_scores_equal_those_of_the_library_bit_by_bit() -> None:
    import bm25s

    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in generator.zipf(1.4, 30) if word < 500) for _ in range(200)]
    library = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    library.index([words(text) for text in texts], show_progress=False)
    offsets, scores, rows = WordIndex(texts).best(texts[:20], 200, nothing_known(20), threads=2)
    for query in range(20):
        want = library.get_scores(words(texts[query]))
        got = slice(offsets[query], offsets[query + 1])
        assert np.array_equal(scores[got], want[rows[got]])
        assert rows[got].tolist() == sorted(np.flatnonzero(want > 0), key=lambda row: (-want[row], row))


ITEMS, QUERIES = 60, 25


def make_task(root: Path) -> Bm25Task:
    """60 items and 25 queries in parts of uneven size; item n is relevant to query n, item 0 and 50 share a group."""
    store, generator = Store(str(root)), np.random.default_rng(1)
    texts = [" ".join(f"w{word}" for word in generator.integers(0, 12, 4)) for _ in range(ITEMS)]
    corpus = pa.table(
        {
            "row": range(ITEMS),
            "text": texts,
            "text_code": range(ITEMS),
            "group_code": [2**62 + 7 if row in (0, 50) else -1 for row in range(ITEMS)],
        }
    )
    queries = pa.table({"row": range(QUERIES), "text": texts[:QUERIES]})
    labels = pa.table({"query_row": range(QUERIES), "item_row": range(QUERIES), "score": [1] * QUERIES})

    def parts(name: str, table: pa.Table, size: int) -> list[Part]:
        return [
            write_part(store, f"{name}/{part_name(number)}", table.slice(start, size), first_row=start)
            for number, start in enumerate(range(0, table.num_rows, size))
        ]

    items = parts("corpus", corpus, 17)
    return Bm25Task(store, items, items, parts("queries", queries, 11), parts("labels", labels, 60), QUERIES, 8, "words")


ROWS = np.array([row for row in range(QUERIES) if row % 4 != 3])
"""The training queries: not all rows, as in a run."""


def test_blocks_hold_the_queries_of_a_search_without_their_relevant_items(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    parts, _ = search_blocks(task, plan_blocks(ROWS, 6), threads=1)
    assert [part.path for part in parts] == [f"words/{part_name(number)}" for number in range(4)]
    table = read_parts(task.store, parts)
    assert table["query_row"].to_pylist() == ROWS.tolist()
    texts = read_parts(task.store, task.corpus)["text"].to_pylist()
    for query, rows in zip(ROWS.tolist(), table["item_rows"].to_pylist(), strict=True):
        known = {query} | ({0, 50} if query in (0, 50) else set())
        want = slow_scores(texts, texts[query])
        places = [row for row in range(ITEMS) if want[row] > 0 and row not in known]
        assert len(rows) == min(8, len(places))
        assert not known & set(rows)
        assert min(want[row] for row in rows) >= sorted((want[row] for row in places), reverse=True)[len(rows) - 1] - 1e-5


@pytest.mark.parametrize("block", [1, 5, 100])
def test_the_block_size_and_the_threads_change_nothing(tmp_path: Path, block: int) -> None:
    task = make_task(tmp_path)
    want = read_parts(task.store, search_blocks(task, plan_blocks(ROWS, 6), threads=1)[0])
    other = replace(task, folder=f"words-{block}")
    got = read_parts(task.store, search_blocks(other, plan_blocks(ROWS, block), threads=3)[0])
    assert got.combine_chunks().equals(want.combine_chunks())


def test_a_search_that_is_run_again_keeps_the_parts_that_are_there(tmp_path: Path) -> None:
    task, blocks = make_task(tmp_path), plan_blocks(ROWS, 6)
    search_blocks(task, blocks[1:3], threads=1)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in task.store.list("words")}
    parts, _ = search_blocks(task, blocks, threads=1)
    assert read_parts(task.store, parts)["query_row"].to_pylist() == ROWS.tolist()
    assert all((tmp_path / path).stat().st_mtime_ns == time for path, time in before.items())
    assert len(before) == 2


@pytest.mark.cluster
def test_a_ray_task_writes_the_same_and_keeps_what_is_there(tmp_path: Path, ray_local: ClusterSize) -> None:
    task, blocks = make_task(tmp_path), plan_blocks(ROWS, 6)
    want = read_parts(task.store, search_blocks(replace(task, folder="here"), blocks, threads=1)[0])
    search_blocks(task, blocks[2:3], threads=1)
    parts, seconds = search_words(task, blocks, threads=2, retries=0)
    assert seconds > 0
    assert [part.path for part in parts] == [f"words/{part_name(number)}" for number in range(4)]
    assert read_parts(task.store, parts).equals(want)
    assert search_words(task, blocks, threads=2, retries=0) == (parts, 0.0)
