"""Attribute rules against sets, and their refusals."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.labels.labels import Labels
from mining.choice.attributes import Attribute, check_rules, rule_mask
from mining.settings import Rule

ITEMS = 6


def _parts(column: pa.ChunkedArray, cut: int) -> list[pa.ChunkedArray]:
    """As the parts of a table have it; a part without a value may have another type."""
    parts = [column[:cut], column[cut:]]
    return [pa.chunked_array([pa.nulls(len(part))]) if part.null_count == len(part) else part for part in parts]


def labels_of(positives: list[list[int]]) -> Labels:
    pairs = [(query, item) for query, items in enumerate(positives) for item in sorted(items)]
    labels = pa.table(
        {
            "query_row": pa.array([q for q, _ in pairs], pa.int64()),
            "item_row": pa.array([i for _, i in pairs], pa.int64()),
            "score": pa.array([1] * len(pairs), pa.int64()),
        }
    )
    items = pa.table({"group_code": [-1] * ITEMS, "text_code": range(ITEMS)})
    return Labels.from_tables(labels, items, len(positives))


def values_of(column: list[Any], item: int) -> set[Any]:
    value = column[item] if item >= 0 else None
    return {part for part in (value if isinstance(value, list) else [value]) if part is not None}


GENRES = [["drama", "war"], ["drama"], [], None, ["comedy", None], ["war", "comedy"]]


@pytest.mark.parametrize(
    ("keep", "want"),
    [
        ("disjoint", [[0, 1, 0, 0, 0, 1, 0]]),  # broken where a value is shared
        ("overlap", [[1, 0, 1, 1, 1, 0, 1]]),
    ],
)
def test_list_rules_worked_by_hand(keep: Literal["disjoint", "overlap"], want: list[list[int]]) -> None:
    attribute = Attribute.from_column(pa.chunked_array([pa.array(GENRES[:2]), pa.array(GENRES[2:])]))
    items = np.array([[-1, 1, 2, 3, 4, 5, -1]])
    got = rule_mask(Rule(column="genres", keep=keep), attribute, labels_of([[0]]), np.array([0]), items)
    assert got.astype(int).tolist() == want


@pytest.mark.parametrize(("keep", "want"), [("different", [[1, 0, 1, 0], [0, 0, 0, 0]]), ("equal", [[0, 1, 0, 1], [1, 1, 1, 1]])])
def test_scalar_rules_worked_by_hand(keep: Literal["equal", "different"], want: list[list[int]]) -> None:
    attribute = Attribute.from_column(pa.chunked_array([pa.array([2019, 2020, 2019, None, 2021, 2020])]))
    items = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    labels = labels_of([[2], [3]])  # the relevant item of query 1 has no year
    got = rule_mask(Rule(column="year", keep=keep), attribute, labels, np.array([0, 1]), items)
    assert got.astype(int).tolist() == want


texts = st.sampled_from(["a", "b", "c", "None", "nan"])
columns = st.one_of(
    st.tuples(
        st.just(pa.list_(pa.string())),
        st.lists(st.none() | st.lists(st.none() | texts, max_size=3), min_size=ITEMS, max_size=ITEMS),
    ),
    st.tuples(st.just(pa.string()), st.lists(st.none() | texts, min_size=ITEMS, max_size=ITEMS)),
    st.tuples(st.just(pa.int64()), st.lists(st.none() | st.integers(0, 3), min_size=ITEMS, max_size=ITEMS)),
    st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans(), min_size=ITEMS, max_size=ITEMS)),
    st.tuples(st.just(pa.null()), st.just([None] * ITEMS)),
)


@given(
    columns,
    st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=3, unique=True), min_size=1, max_size=3),
    st.integers(0, ITEMS),
    st.data(),
)
def test_overlap_equals_the_sets(
    typed: tuple[pa.DataType, list[Any]], positives: list[list[int]], cut: int, data: st.DataObject
) -> None:
    kind, column = typed
    whole = pa.chunked_array([pa.array(column[:cut], kind), pa.array(column[cut:], kind)])
    attribute = data.draw(st.sampled_from([Attribute.from_column(whole), Attribute.from_parts(_parts(whole, cut))]))
    row = st.lists(st.integers(-1, ITEMS - 1), min_size=4, max_size=4)
    items = np.array([data.draw(row) for _ in positives])
    known = [set[Any]().union(*(values_of(column, item) for item in some)) for some in positives]
    want = [[bool(values_of(column, item) & values) for item in line] for line, values in zip(items, known, strict=True)]
    for keep in ("disjoint", "overlap"):
        got = rule_mask(Rule(column="x", keep=keep), attribute, labels_of(positives), np.arange(len(positives)), items)
        assert (got if keep == "disjoint" else ~got).tolist() == want


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string(), 2),
        pa.large_list(pa.string()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_lists_are_lists_however_arrow_lays_them_out(kind: pa.DataType) -> None:
    values = [["drama", "war"], None, ["comedy", None], ["war", "comedy"], ["news", "war"], None]
    encode = [
        pa.array(part, kind if kind != pa.list_(pa.dictionary(pa.int32(), pa.string())) else pa.list_(pa.string()))
        for part in (values[:2], values[2:])
    ]
    attribute = Attribute.from_column(pa.chunked_array(encode).cast(kind))
    got = rule_mask(Rule(column="x", keep="disjoint"), attribute, labels_of([[0]]), np.array([0]), np.array([[0, 1, 2, 3, 4, 5]]))
    assert got.astype(int).tolist() == [[1, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("kinds", [3, 64, 65, 500])
def test_rules_equal_the_sets_for_few_and_for_many_values(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    column = [rng.integers(0, kinds, size).tolist() for size in rng.integers(0, 4, 600)]
    column[:kinds] = [[value] for value in range(min(kinds, 600))]  # every value is there
    attribute = Attribute.from_column(pa.chunked_array([pa.array(column, pa.list_(pa.int64()))]))
    assert attribute.exact == (kinds <= 64)
    owner, rows = np.repeat(np.arange(20), 6), rng.integers(0, 600, 120)
    items = rng.integers(-1, 600, (20, 40))
    known = [{value for row in rows[owner == query] for value in column[row]} for query in range(20)]
    want = [[bool(item >= 0 and known[query] & set(column[item])) for item in line] for query, line in enumerate(items)]
    assert attribute.overlap((owner, rows), items).tolist() == want


def test_rules_that_do_not_fit_the_corpus_are_refused() -> None:
    schema = pa.schema(
        {
            "row": pa.int64(),
            "id": pa.string(),
            "genres": pa.list_(pa.string()),
            "year": pa.int64(),
            "pair": pa.list_(pa.string(), 2),
            "where": pa.struct({"city": pa.string()}),
            "nested": pa.list_(pa.list_(pa.int64())),
        }
    )
    check_rules([Rule(column="genres", keep="disjoint"), Rule(column="year", keep="equal")], schema)
    with pytest.raises(ConfigError, match=r"rules\[1\]\.column: the corpus has no column 'genre'; it has id, genres"):
        check_rules([Rule(column="year", keep="equal"), Rule(column="genre", keep="disjoint")], schema)
    with pytest.raises(ConfigError, match=r"rules\[0\]: column 'genres' holds lists"):
        check_rules([Rule(column="genres", keep="equal")], schema)
    with pytest.raises(ConfigError, match=r"rules\[0\]: column 'pair' holds lists"):
        check_rules([Rule(column="pair", keep="different")], schema)
    check_rules([Rule(column="pair", keep="overlap")], schema)
    with pytest.raises(ConfigError, match=r"rules\[0\]: column 'where' holds struct<city: string>, whose values cannot be"):
        check_rules([Rule(column="where", keep="equal")], schema)
    with pytest.raises(ConfigError, match=r"'nested' holds list<.*>, whose values cannot be compared"):
        check_rules([Rule(column="nested", keep="disjoint")], schema)
