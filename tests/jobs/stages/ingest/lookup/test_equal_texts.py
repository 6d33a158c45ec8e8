"""Queries with one text are one question, and a query may itself be an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import DataError
from cluster.labels.labels import NO_NEGATIVE, Labels
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import load_config
from jobs.stages.ingest.counts.notes import describe_equal_texts
from jobs.stages.ingest.labels import LabelRows
from jobs.stages.ingest.lookup import equal_texts
from jobs.stages.ingest.lookup.equal_texts import EqualTexts, first_of_equal, share_labels
from jobs.stages.ingest.lookup.item_codes import ItemTexts
from jobs.stages.ingest.splits import assign_splits, leave_out_queries
from jobs.stages.stage_0_ingest import _ingest_tables


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def rows_of(labels: LabelRows) -> list[tuple[int, int, int]]:
    return list(zip(labels.query_rows.tolist(), labels.item_rows.tolist(), labels.scores.tolist(), strict=True))


def labels(rows: Sequence[tuple[int, int, int]]) -> LabelRows:
    queries, items, grades = np.array(rows, np.int64).reshape(-1, 3).T
    return LabelRows(
        queries, items, grades.astype(np.float64), np.ones(len(rows)), pa.nulls(len(rows), pa.string()), [None] * len(rows)
    )


def texts(queries: str, items: str, own: Sequence[int] | None = None) -> EqualTexts:
    """A letter is a text."""
    query_codes, item_codes = (np.array([ord(letter) for letter in word], np.int64) for word in (queries, items))
    own_items = np.array(own if own is not None else [-1] * len(queries))
    known = ItemTexts(np.arange(len(items)), item_codes)
    return EqualTexts(first_of_equal(query_codes), own_items, query_codes, known, np.zeros(0, np.int64))


def shared(rows: Sequence[tuple[int, int, int]], splits: Sequence[str], equal: EqualTexts) -> list[tuple[int, int, int]]:
    return rows_of(share_labels(labels(rows), splits, equal))


def test_queries_with_one_text_share_what_is_relevant() -> None:
    given = [(0, 5, 1), (1, 6, 2), (2, 7, 1)]
    want = [(0, 5, 1), (0, 6, 2), (1, 5, 1), (1, 6, 2), (2, 7, 1)]
    assert shared(given, ["train"] * 3, texts("aab", "01234567")) == want


def test_what_one_of_them_calls_relevant_is_relevant_though_another_judged_it_irrelevant() -> None:
    given = [(0, 5, 0), (1, 5, 1), (1, 6, 0)]
    assert shared(given, ["dev"] * 2, texts("aa", "01234567")) == [(0, 5, 1), (0, 6, 0), (1, 5, 1), (1, 6, 0)]


def test_what_is_relevant_in_another_split_is_no_negative_and_not_relevant_either() -> None:
    given = [(0, 5, 1), (0, 7, 0), (1, 6, 1), (1, 7, 1), (1, 4, 0)]
    want = [(0, 5, 1), (0, 6, NO_NEGATIVE), (0, 7, NO_NEGATIVE), (1, 4, 0), (1, 5, NO_NEGATIVE), (1, 6, 1), (1, 7, 1)]
    assert shared(given, ["train", "test"], texts("aa", "01234567")) == want


def test_a_query_of_no_split_gives_its_labels_and_gets_none() -> None:
    given = [(0, 5, 1), (1, 6, 1)]
    assert shared(given, ["train", "none"], texts("aa", "01234567")) == [(0, 5, 1), (0, 6, NO_NEGATIVE), (1, 6, 1)]


def test_an_item_with_the_text_of_a_query_is_no_negative_unless_it_is_judged() -> None:
    # items 0 and 1 have the text of both queries; query 1 is item 0, and somebody judged item 1 for query 0
    given = [(0, 1, 0), (0, 3, 1), (1, 2, 1)]
    equal = texts("ab", "aabb", own=[-1, 2])
    assert shared(given, ["train"] * 2, equal) == [(0, 0, NO_NEGATIVE), (0, 1, 0), (0, 3, 1), (1, 2, 1), (1, 3, NO_NEGATIVE)]


def test_a_copy_of_the_item_that_a_query_is_is_no_negative_whatever_the_query_s_own_words() -> None:
    assert shared([(0, 2, 1)], ["train"], texts("x", "ccd", own=[0])) == [(0, 1, NO_NEGATIVE), (0, 2, 1)]


def test_a_query_is_not_relevant_to_itself_because_another_one_wants_it() -> None:
    given = [(0, 3, 1), (1, 2, 1)]
    assert shared(given, ["train"] * 2, texts("aa", "cdef", own=[-1, 3])) == [(0, 2, 1), (0, 3, 1), (1, 2, 1)]


def test_labels_keep_their_own_weight_and_source() -> None:
    given = labels([(0, 5, 1), (1, 5, 1)])
    given = replace(given, weights=np.array([0.5, 2.0]), sources=pa.array(["click", "person"]))
    found = share_labels(given, ["train"] * 2, texts("aa", "01234567"))
    assert found.weights.tolist() == [0.5, 2.0]
    assert found.sources.to_pylist() == ["click", "person"]


def test_a_text_that_is_asked_too_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_texts, "MOST_ADDED", 15)
    given = [(row, row, 1) for row in range(4)]
    with pytest.raises(DataError, match=r"would have 16 of them; at most 15.*one row of the queries"):
        shared(given, ["train"] * 4, texts("aaaa", "01234567"))


def test_without_equal_texts_labels_stay_as_they_are() -> None:
    given = [(0, 1, 2), (0, 3, 0), (2, 1, 1)]
    assert shared(given, ["train", "none", "dev"], texts("abc", "01234567")) == given


# splits


def ids(count: int) -> pa.Array:
    return pa.array([f"q{n}" for n in range(count)])


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_dev_takes_all_queries_of_a_text_or_none(fraction: float) -> None:
    count, relevant = 120, range(0, 120, 2)  # of each text the first query has a positive
    questions = np.arange(count) // 3 * 3
    splits, notes = assign_splits(["train"] * count, labels([(n, 0, 1) for n in relevant]), ids(count), fraction, questions)
    assert {len({splits[row] for row in range(first, first + 3)}) for first in range(0, count, 3)} == {1}
    assert notes["dev_queries_cut_from_train"] == splits.count("dev")
    assert 3 <= splits.count("dev") <= count - 3, "neither split is empty"


def test_a_text_alone_cannot_be_cut() -> None:
    splits, _ = assign_splits(None, labels([(n, 0, 1) for n in range(4)]), ids(4), 0.5, np.zeros(4, np.int64))
    assert splits == ["train"] * 4


@pytest.mark.parametrize("fraction", [0.0001, 0.3, 0.9])
def test_training_keeps_all_queries_of_a_text_or_none(fraction: float) -> None:
    splits = ["train"] * 90
    notes = leave_out_queries(splits, ids(90), fraction, np.arange(90) // 3 * 3)
    assert {len({splits[row] for row in range(first, first + 3)}) for first in range(0, 90, 3)} == {1}
    assert splits.count("none") == notes["train_queries_left_out"] <= 87


def test_the_draw_does_not_depend_on_the_order_of_the_queries() -> None:
    count, questions = 60, np.arange(60) // 2 * 2
    known = labels([(n, 0, 1) for n in range(count)])
    splits, _ = assign_splits(None, known, ids(count), 0.3, questions)
    turned = pa.array(ids(count).to_pylist()[::-1])
    again, _ = assign_splits(None, known, turned, 0.3, questions)
    assert splits == again[::-1]


# a whole data set


def ingested(case: Any, store: Store) -> tuple[dict[str, Any], dict[str, list[tuple[str, int]]], list[int]]:
    """(figures, query id -> its labels as (item id, score), item row of every query)."""
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    corpus, queries, judged = (read_parts(store, outcome.tables[name]) for name in ("corpus", "queries", "labels"))
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in queries["id"].to_pylist()}
    for row in judged.to_pylist():
        found[queries["id"][row["query_row"]].as_py()].append((corpus["id"][row["item_row"]].as_py(), row["score"]))
    return outcome.figures, found, queries["item_row"].to_pylist()


def test_two_queries_with_one_text_and_a_third_in_another_split(case: Any, store: Store) -> None:
    case.queries[0]["text"], case.queries[1]["text"], case.queries[9]["text"] = "Red shoe", "red  shoe!", "RED SHOE"
    figures, found, _ = ingested(case, store)
    assert found["q0"] == found["q1"] == [("i0", 1), ("i1", 1), ("i9", NO_NEGATIVE)]
    assert found["q9"] == [("i0", NO_NEGATIVE), ("i1", NO_NEGATIVE), ("i9", 1)]
    assert found["q2"] == [("i2", 1)]
    equal = figures["equal_texts"]
    assert equal["queries"] == 3
    assert equal["across_splits"] == {"train": 2, "dev": 1}
    assert figures["labels"] == 10, "those that came with the data"
    first, second = describe_equal_texts(equal)
    assert first.startswith("! queries with one text are in two splits (2 of train, 1 of dev)")
    assert second.startswith("  queries that share their text with another one: 3;")


def test_where_a_dev_split_is_cut_no_text_crosses_it(case: Any, store: Store) -> None:
    for number, query in enumerate(case.queries):
        del query["split"]
        query["text"] = f"text {number // 2}"
    case.set("data.dev_fraction", 0.4)
    figures, _, _ = ingested(case, store)
    assert figures["splits"]["dev"] % 2 == 0
    assert 2 <= figures["splits"]["dev"] <= 8
    assert figures["equal_texts"]["across_splits"] == {}
    assert not any(line.startswith("!") for line in describe_equal_texts(figures["equal_texts"]))


def test_a_query_with_the_id_and_the_text_of_an_item_is_that_item(case: Any, store: Store) -> None:
    del case.items[2]["title"]
    case.items[2] |= {"id": "q2", "text": "A thing"}
    case.queries[2]["text"] = "a thing."
    case.items[3]["id"] = "q3"  # of one id, but it says something else
    case.items[4] |= {"id": "q4", "title": "On things", "text": "thing 4"}  # the query is the item's text without its title
    for number in (2, 3, 4):
        case.labels[number]["item_id"] = "i7"
    figures, found, own = ingested(case, store)
    assert own == [-1, -1, 2, -1, 4, *[-1] * 5]
    assert figures["equal_texts"]["queries_that_are_items"] == 2
    assert found["q2"] == [("i7", 1)]


def test_an_item_that_its_own_query_looks_for_is_found(case: Any, store: Store) -> None:
    del case.items[2]["title"]
    case.items[2] |= {"id": "q2", "text": "thing 2"}
    case.labels[2]["item_id"] = "q2"
    _, found, own = ingested(case, store)
    assert own == [-1] * 10
    assert found["q2"] == [("q2", 1)]


@pytest.mark.parametrize("kind", ["static", "sequence"])
def test_an_item_that_a_query_is_by_item_id_and_looks_for_is_found_and_counted(case: Any, store: Store, kind: str) -> None:
    case.settings["encoder"] = {"kind": kind}
    for item in case.items:
        item["vector"] = [1.0, 2.0]
    for query in case.queries:
        query.update({"history": ["i11"]} if kind == "sequence" else {"vector": [1.0, 2.0]})
    for number in (2, 3, 4):
        case.queries[number]["item_id"] = f"i{number}"
    case.labels[3]["item_id"] = "i7"  # query 3 looks for something else
    case.labels[4]["score"] = 0
    case.labels.append({"query_id": "q4", "item_id": "i8", "score": 1})
    figures, found, own = ingested(case, store)
    assert own == [-1, -1, -1, 3, 4, *[-1] * 5]
    assert found["q2"] == [("i2", 1)]
    equal = figures["equal_texts"]
    assert (equal["queries_that_are_items"], equal["queries_that_look_for_themselves"]) == (2, 1)
    assert "  queries whose own item is labelled relevant for them: 1; it is found like any other item" in describe_equal_texts(
        equal
    )


def test_texts_that_count_as_one_though_they_are_written_differently_are_shown(case: Any, store: Store) -> None:
    long = "a long question about many things that matter to us: "
    for number, text in enumerate(["red shoe", "Red  Shoe", long + "C programming", long + "C# programming"]):
        case.queries[number]["text"] = text
    case.items[10] |= {"title": "title 0", "text": "a text, about thing 0"}
    figures, _, _ = ingested(case, store)
    equal = figures["equal_texts"]
    first, text, second, other = equal["unlike_queries"]
    assert (first, second) == ("q2", "q3"), "case and white space alone are a poor example"
    assert text.endswith("us: C programming")
    assert other.endswith("us: C# programming")
    assert equal["unlike_items"] == ["i0", "Title 0 a text about thing 0", "i10", "title 0 a text, about thing 0"]
    of_queries, of_items = describe_equal_texts(equal)
    assert f"'q2' ({text!r}) and 'q3' ({other!r}) count as one text" in of_queries
    assert "'i0'" in of_items
    assert '"C sharp" for "C#"' in of_items


def test_equal_texts_that_are_written_alike_need_no_example(case: Any, store: Store) -> None:
    case.queries[1]["text"] = case.queries[0]["text"]
    figures, _, _ = ingested(case, store)
    assert figures["equal_texts"]["queries"] == 2
    assert figures["equal_texts"]["unlike_queries"] is None
    assert not any("count as one text" in line for line in describe_equal_texts(figures["equal_texts"]))


def test_an_item_with_a_query_s_text_under_another_id_is_no_negative(case: Any, store: Store) -> None:
    del case.items[7]["title"]
    case.items[7] |= {"text": "Thing 2"}
    _, found, own = ingested(case, store)
    assert own == [-1] * 10
    assert found["q2"] == [("i2", 1), ("i7", NO_NEGATIVE)]


def test_copies_of_relevant_items_are_counted(case: Any, store: Store) -> None:
    case.items[10] |= {"title": "title 0", "text": "a text about thing 0"}
    case.items[11] |= {"title": "title 5", "text": "a text about thing 5"}
    figures, _, _ = ingested(case, store)
    assert figures["equal_texts"]["items"] == 4
    assert figures["equal_texts"]["copies_of_relevant_items"] == 2


def test_with_vectors_queries_of_one_text_need_about_the_same_vector(case: Any, store: Store) -> None:
    case.settings["encoder"] = {"kind": "adapter"}
    for number, item in enumerate(case.items):
        item["vector"] = [1.0, float(number)]
    for number, query in enumerate(case.queries):
        query |= {"text": "somebody", "vector": [1.0, float(number)]}
    case.queries[3]["vector"] = [1.0, 0.0001]  # as query 0, encoded in another batch
    figures, found, _ = ingested(case, store)
    assert found["q0"] == found["q3"] == [("i0", 1), ("i3", 1)]
    assert found["q1"] == [("i1", 1)]
    assert figures["equal_texts"]["queries"] == 2


def test_with_vectors_items_of_one_text_need_about_the_same_vector(case: Any, store: Store) -> None:
    case.settings["encoder"] = {"kind": "adapter"}
    case.set("cluster.part_rows", 16)  # the last four items are a part of their own
    case.items += [{"id": f"i{number}"} for number in range(12, 20)]
    for number, item in enumerate(case.items):
        item |= {"title": "", "text": "electronics", "vector": [1.0, float(number)]}
    case.items[7]["vector"] = [1.0, 0.0001]  # as item 0, encoded in another batch
    for number, query in enumerate(case.queries):
        query["vector"] = [1.0, float(number)]
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    codes = read_parts(store, outcome.tables["codes"], ["text_code"])["text_code"].to_pylist()
    assert codes[0] == codes[7]
    assert len(set(codes)) == 19
    assert outcome.figures["equal_texts"]["items"] == 2


def test_histories_are_no_texts(case: Any, store: Store) -> None:
    case.settings["encoder"] = {"kind": "sequence"}
    for item in case.items:
        item["vector"] = [1.0, 2.0]
    for query in case.queries:
        query |= {"text": "title 3 a text about thing 3", "history": ["i11"]}
    figures, found, _ = ingested(case, store)
    assert found == {f"q{number}": [(f"i{number}", 1)] for number in range(10)}
    assert figures["equal_texts"]["queries"] == 0


def test_a_label_that_is_no_judgement_masks_and_is_neither_relevant_nor_irrelevant() -> None:
    table = pa.table({"query_row": [0, 0, 0], "item_row": [0, 1, 2], "score": [1, NO_NEGATIVE, 0]})
    items = pa.table({"group_code": [-1, 4, -1, 4, -1], "text_code": [0, 1, 2, 3, 1]})
    known = Labels.from_tables(table, items, 1)
    first, columns = np.array([0]), np.arange(5)
    assert known.positives(first)[1].tolist() == [0]
    assert known.judged_irrelevant(first)[1].tolist() == [2]
    assert known.known_mask(first, columns).tolist() == [[True, True, False, True, True]], "with its group and its copy"
