"""The confusion table: by hand, against a slow reference, and the same for every cut into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError
from cluster.labels.labels import Labels
from mining.report.confusion import Buckets, Confusion, Values, check_confusion, confusion_block, confusion_column
from mining.settings import MiningSettings, Rule

GENRES = [["crime", "drama"], ["crime"], ["sf"], [], None, ["drama", None, "drama"]]


def labels(pairs: list[tuple[int, int]], items: int, queries: int) -> Labels:
    table = pa.table({"query_row": [q for q, _ in pairs], "item_row": [i for _, i in pairs], "score": [1] * len(pairs)})
    codes = pa.table({"group_code": np.full(items, -1), "text_code": np.arange(items)})
    return Labels.from_tables(table, codes, queries)


def lists(column: pa.Array) -> list[list[str]]:
    values = Values.from_column(pa.chunked_array([column.slice(0, 2), column.slice(2)]))
    return [
        [values.names[code] for code in values.codes[values.offsets[row] : values.offsets[row + 1]]] for row in range(len(column))
    ]


@pytest.mark.parametrize(
    ("column", "want"),
    [
        (pa.array(GENRES), [["crime", "drama"], ["crime"], ["sf"], [], [], ["drama", "drama"]]),
        (pa.array(["a", None, "b", "a"]), [["a"], [], ["b"], ["a"]]),
        (pa.array([1990, 2000, None]), [["1990"], ["2000"], []]),
        (pa.array([0.5, 3.0, None]), [["0.5"], ["3"], []]),
        (pa.array([True, None, False]), [["true"], [], ["false"]]),
        (pa.array([["x", "y"], None, ["y", None]], pa.list_(pa.string(), 2)), [["x", "y"], [], ["y"]]),
        (pa.array([[1], [2, 3], None], pa.large_list(pa.int64())), [["1"], ["2", "3"], []]),
        (pa.array(["u", "v", "u"]).dictionary_encode(), [["u"], ["v"], ["u"]]),
        (pa.nulls(3), [[], [], []]),
    ],
)
def test_columns_of_every_kind_become_lists_of_texts(column: pa.Array, want: list[list[str]]) -> None:
    assert lists(column) == want


def test_a_block_by_hand() -> None:
    values = Values.from_column(pa.chunked_array([pa.array(GENRES)]))
    known = labels([(0, 0), (1, 1), (1, 2), (2, 4)], 6, 3)
    buckets = Buckets.most_frequent(values, known, shown=2)
    assert buckets.names == ("crime", "drama"), "crime has two relevant judgements; drama ties with sf and has more items"
    # query 0 (crime, drama) against sf and a drama item; query 1 (crime, sf) against one without; query 2 (none) against crime
    got = confusion_block(
        buckets, (np.array([0, 1, 1, 2]), np.array([0, 1, 2, 4])), (np.array([0, 0, 1, 2]), np.array([2, 5, 3, 1])), 3
    )
    #       crime drama other none
    want = [
        [0, 1, 1, 1],  # crime: of query 0 an sf and a drama item, of query 1 one without
        [0, 1, 1, 0],  # drama: of query 0
        [0, 0, 0, 1],  # other (sf): of query 1
        [1, 0, 0, 0],
    ]  # none: of query 2
    assert got.tolist() == want
    assert Confusion.of("genres", buckets.names, got) == Confusion("genres", ["crime", "drama", "(other)", "(none)"], want)


def test_values_that_occur_nowhere_are_left_out() -> None:
    counts = np.array([[2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert Confusion.of("g", ["a", "b"], counts) == Confusion("g", ["a"], [[2]])


def world(seed: int, width: int) -> tuple[list[list[str]], list[list[int]], list[list[int]]]:
    generator = np.random.default_rng(seed)
    genres = [[f"g{g}" for g in generator.integers(0, width, generator.integers(0, 4))] for _ in range(60)]
    relevant = [generator.choice(60, generator.integers(0, 4), replace=False).tolist() for _ in range(25)]
    negatives = [generator.choice(60, generator.integers(0, 7), replace=False).tolist() for _ in range(25)]
    return genres, relevant, negatives


def slow(genres: list[list[str]], relevant: list[list[int]], negatives: list[list[int]], shown: list[str]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for own, others in zip(relevant, negatives, strict=True):
        rows = {name if name in shown else "(other)" for item in own for name in genres[item]}
        if own and not rows:
            rows = {"(none)"}
        for item in others:
            columns = {name if name in shown else "(other)" for name in genres[item]} or {"(none)"}
            for row in rows:
                for column in columns:
                    counts[row, column] = counts.get((row, column), 0) + 1
    return counts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [3, 40])
def test_blocks_of_any_size_add_up_to_the_slow_reference(seed: int, width: int) -> None:
    genres, relevant, negatives = world(seed, width)
    known = labels([(q, item) for q, items in enumerate(relevant) for item in sorted(items)], 60, 25)
    buckets = Buckets.most_frequent(Values.from_column(pa.chunked_array([pa.array(genres, pa.list_(pa.string()))])), known)
    assert len(buckets.names) <= 20
    uses = {
        name: sum(item_genres.count(name) for items in relevant for item_genres in (genres[item] for item in items))
        for name in {name for item in genres for name in item}
    }
    assert min((uses[name] for name in buckets.names), default=0) >= max(
        (count for name, count in uses.items() if name not in buckets.names), default=0
    )

    def owned(some: list[list[int]]) -> tuple[Any, Any]:
        return (
            np.repeat(np.arange(len(some)), [len(items) for items in some]),
            np.array([item for items in some for item in items], np.int64),
        )

    want = slow(genres, relevant, negatives, list(buckets.names))
    for size in (1, 4, 25):
        total = sum(
            confusion_block(
                buckets,
                owned(relevant[start : start + size]),
                owned(negatives[start : start + size]),
                len(relevant[start : start + size]),
            )
            for start in range(0, 25, size)
        )
        found = Confusion.of("genres", buckets.names, np.asarray(total))
        got = {
            (row, column): count
            for row, counts in zip(found.values, found.counts, strict=True)
            for column, count in zip(found.values, counts, strict=True)
            if count
        }
        assert got == want


def test_the_column_is_the_one_that_is_set_else_the_first_rule_s() -> None:
    rule = Rule(column="genres", keep="disjoint")
    assert confusion_column(MiningSettings(confusion="author", rules=(rule,))) == "author"
    assert confusion_column(MiningSettings(rules=(rule,))) == "genres"
    assert confusion_column(MiningSettings()) is None


def test_a_column_that_cannot_be_tabled_is_refused() -> None:
    schema = pa.schema([("row", pa.int64()), ("genres", pa.list_(pa.string())), ("maker", pa.struct([("name", pa.string())]))])
    check_confusion(MiningSettings(), schema)
    check_confusion(MiningSettings(confusion="genres"), schema)
    with pytest.raises(ConfigError, match=r"mining\.confusion.*found 'genre'; it has genres, maker"):
        check_confusion(MiningSettings(confusion="genre"), schema)
    with pytest.raises(ConfigError, match="'maker' of type struct"):
        check_confusion(MiningSettings(confusion="maker"), schema)
