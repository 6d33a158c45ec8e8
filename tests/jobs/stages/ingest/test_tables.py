"""From the user's rows to the run's tables: numbering, columns, splits, labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError, DataError
from cluster.labels.labels import Labels
from cluster.storage.store import Store
from cluster.tables.tables import read_part, read_parts
from jobs.config.config import load_config
from jobs.config.templates import Template
from jobs.stages.ingest.counts.notes import data_lines
from jobs.stages.ingest.counts.positives import label_figures
from jobs.stages.ingest.labels import LabelRows, read_labels, write_labels
from jobs.stages.ingest.lookup.ids import Ids
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.columns import rename
from jobs.stages.ingest.splits import assign_splits
from jobs.stages.ingest.tables import Written, write_texts
from jobs.stages.ingest.texts import ASCII_PUNCTUATION, _fold, normalise, render, stable_code, text_codes
from jobs.stages.ingest.writer import TableWriter
from jobs.stages.stage_0_ingest import _ingest_tables


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def chunks(*pieces: list[dict[str, Any]], file: str = "f.jsonl") -> Iterator[Chunk]:
    first = 1
    for rows in pieces:
        yield Chunk(file, first, pa.Table.from_pylist(rows))
        first += len(rows)


def texts(store: Store, *pieces: list[dict[str, Any]], part_rows: int = 100, template: str = "{title} {text}") -> Written:
    return write_texts(
        chunks(*pieces),
        store,
        "corpus",
        what="items",
        columns={},
        template=Template(template, "t"),
        part_rows=part_rows,
        extra=lambda table, chunk: {},
    )


def labels(rows: list[tuple[int, int, int]], splits: list[str | None] | None = None) -> LabelRows:
    queries, items, scores = np.array(rows, np.int64).reshape(-1, 3).T
    return LabelRows(queries, items, scores, np.ones(len(rows)), pa.nulls(len(rows), pa.string()), splits or [None] * len(rows))


# parts


@pytest.mark.parametrize("part_rows", [1, 3, 4, 5, 100])
def test_rows_keep_their_order_and_number_whatever_the_parts(store: Store, part_rows: int) -> None:
    pieces = [[{"id": f"i{n}", "text": f"Text {n}"} for n in range(start, stop)] for start, stop in ((0, 4), (4, 5), (5, 10))]
    written = texts(store, *pieces, part_rows=part_rows)
    assert [part.rows for part in written.parts[:-1]] == [part_rows] * (len(written.parts) - 1)
    assert [part.first_row for part in written.parts] == list(range(0, 10, part_rows))
    table = read_parts(store, written.parts)
    assert table["row"].to_pylist() == list(range(10))
    assert table["id"].to_pylist() == written.ids.to_pylist() == [f"i{n}" for n in range(10)]
    assert written.text_codes.tolist() == [stable_code(f"text {n}") for n in range(10)]


def test_all_parts_have_all_columns_wherever_they_first_occur(store: Store) -> None:
    written = texts(
        store,
        [{"id": "a", "text": "x", "tags": []}],
        [{"id": "b", "text": "x", "year": 1990}],
        [{"id": "c", "text": "x", "year": 1.5, "tags": ["t"]}],
        part_rows=1,
    )
    schemas = [read_part(store, part.path).schema for part in written.parts]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert schemas[0].field("year").type == pa.float64()
    table = read_parts(store, written.parts, ["year", "tags"])
    assert table["year"].to_pylist() == [None, 1990.0, 1.5]
    assert table["tags"].to_pylist() == [[], None, ["t"]]
    assert all(store.size(part.path) == part.bytes for part in written.parts)


def test_a_column_that_changes_its_type_is_named(store: Store) -> None:
    writer = TableWriter(store, "t", 10)
    writer.add(pa.table({"a": [1]}), "1.jsonl")
    with pytest.raises(DataError, match=r"2.jsonl: expected int64 in the column 'a'.*found string"):
        writer.add(pa.table({"a": ["x"]}), "2.jsonl")


# columns


@pytest.mark.parametrize(
    ("there", "columns", "needed", "want"),
    [
        (["id", "text"], {}, ["id"], ["id", "text"]),
        (["_id", "text"], {}, ["id"], ["id", "text"]),
        (["query-id", "corpus-id", "score"], {}, ["query_id", "item_id"], ["query_id", "item_id", "score"]),
        (["asin", "id"], {"id": "asin"}, ["id"], ["id", "id_"]),
        (["asin", "id", "id_"], {"id": "asin"}, ["id"], ["id", "id__", "id_"]),
        (["title", "text"], {"title": "text", "text": "title"}, [], ["text", "title"]),
        (["id", "row", "group_code", "item_row"], {}, ["id"], ["id", "row_", "group_code_", "item_row_"]),
        (["asin", "text"], {"item_id": "asin", "id": "asin"}, ["id"], ["id", "text"]),
        (["id", "group"], {"kind": "group"}, ["id"], ["id", "kind"]),
        (["title", "text"], {"text": "title"}, [], ["text", "text_"]),
        (["query_id", "item_id", "score"], {"popularity": "score"}, ["query_id", "item_id"], ["query_id", "item_id", "score"]),
        (["query_id", "item_id", "source"], {"group": "source"}, ["query_id", "item_id"], ["query_id", "item_id", "source"]),
        (["query_id", "item_id", "id"], {"id": "item_id"}, ["query_id", "item_id"], ["query_id", "item_id", "id"]),
        (["q", "asin"], {"item_id": "asin", "id": "asin", "query_id": "q"}, ["query_id", "item_id"], ["query_id", "item_id"]),
    ],
)
def test_rename(there: list[str], columns: dict[str, str], needed: list[str], want: list[str]) -> None:
    table = pa.table({name: [name] for name in there})
    found = rename(Chunk("f", 1, table), columns, needed, "labels" if "query_id" in needed else "items")
    assert found.column_names == want
    assert [column[0].as_py() for column in found.columns] == there, "values stay with their column"


def test_one_column_cannot_be_two_things() -> None:
    with pytest.raises(ConfigError, match="'x' as both 'group' and 'title'"):
        rename(Chunk("f", 1, pa.table({"id": ["a"], "x": ["b"]})), {"group": "x", "title": "x"}, ["id"], "items")


@pytest.mark.parametrize(
    ("what", "there", "columns", "said"),
    [
        ("labels", ["query_id", "item_id"], {"score": "query_id"}, "'query_id' as both 'query_id' and 'score'"),
        ("labels", ["query-id", "corpus-id"], {"score": "query-id"}, "'query-id' as both 'query_id' and 'score'"),
        ("labels", ["q", "item_id"], {"query_id": "q", "score": "q"}, "'q' as both 'query_id' and 'score'"),
        ("labels", ["q"], {"query_id": "q", "item_id": "q"}, "'q' as both 'query_id' and 'item_id'"),
        ("labels", ["query_id", "item_id", "score"], {"source": "score"}, "'score' as both 'score' and 'source'"),
        ("items", ["id", "title"], {"text": "id"}, "'id' as both 'id' and 'text'"),
        ("items", ["_id", "title"], {"text": "_id"}, "'_id' as both 'id' and 'text'"),
        ("items", ["id", "title"], {"group": "title"}, "'title' as both 'title' and 'group'"),
        ("items", ["id", "text"], {"franchise": "id"}, "'id' as both 'id' and 'franchise'"),
        ("queries", ["id", "text", "split"], {"item_id": "split"}, "'split' as both 'split' and 'item_id'"),
    ],
)
def test_a_setting_cannot_take_a_column_from_its_own_meaning(
    what: str, there: list[str], columns: dict[str, str], said: str
) -> None:
    needed = ["query_id", "item_id"] if what == "labels" else ["id"]
    with pytest.raises(ConfigError, match=f"one meaning for each column, found {said} of the {what}; take "):
        rename(Chunk("f", 1, pa.table({name: ["a"] for name in there})), columns, needed, what)


def test_what_a_setting_says_of_the_labels_leaves_the_queries_as_they_are() -> None:
    table = pa.table({"id": ["a"], "text": ["b"]})
    assert rename(Chunk("f", 1, table), {"item_id": "id", "query_id": "id"}, ["id"], "queries").column_names == ["id", "text"]


@pytest.mark.parametrize("ids", [[1, 2], ["1", "2"], pa.array(["1", "2"], pa.large_string())])
def test_ids_are_texts(store: Store, ids: Any) -> None:
    chunk = Chunk("f", 1, pa.table({"id": ids, "text": ["a", "b"]}))
    written = write_texts(
        iter([chunk]),
        store,
        "c",
        what="items",
        columns={},
        template=Template("{text}", "t"),
        part_rows=9,
        extra=lambda table, chunk: {},
    )
    assert written.ids.to_pylist() == ["1", "2"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float32()), pa.list_(pa.int64())]
)
def test_vectors_of_any_list_type(store: Store, kind: pa.DataType) -> None:
    chunk = Chunk("f", 1, pa.table({"id": ["a", "b"], "text": ["x", "y"], "vector": pa.array([[1, 2], [3, 4]], kind)}))
    written = write_texts(
        iter([chunk]),
        store,
        "c",
        what="items",
        columns={},
        template=Template("{text}", "t"),
        part_rows=9,
        extra=lambda table, chunk: {},
    )
    assert written.dimension == 2
    assert read_parts(store, written.parts)["vector"].to_pylist() == [[1.0, 2.0], [3.0, 4.0]]


def test_vectors_that_are_all_null_are_no_vectors(store: Store) -> None:
    written = texts(store, [{"id": "a", "text": "x", "vector": None}])
    assert written.dimension is None
    assert "vector" not in written.columns


def test_a_template_column_may_be_missing_in_a_later_file(store: Store) -> None:
    written = texts(store, [{"id": "a", "text": "x", "author": "A"}], [{"id": "b", "text": "y"}], template="{text} {author}")
    assert read_parts(store, written.parts)["text"].to_pylist() == ["x A", "y"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" The  CAT\n", "the cat"),
        ("Hello, world!", "hello world"),
        ("A/B", "(a) - b"),
        ("don\u2019t", "DON'T"),
        ("caf\u00e9", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ﬁn", "fin"),
        ("naïve—plan", "Naïve plan"),
        ("war\u00adbler", "warbler"),
        ("«Привет», мир…", "привет МИР"),
        ("東京。", "東京"),
        ("½ cup", "1⁄2 CUP"),
    ],
)
def test_texts_that_differ_in_case_form_punctuation_and_spaces_are_duplicates(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("?!", "!?"),
        ("...", "…"),
        ("''", "-"),
        ("¿", "?"),
        ("---", "--"),  # only punctuation: nothing is taken out
        ("e-mail", "email"),
        ("1.5", "15"),
        ("C++", "C"),
        ("cafe", "café"),
        ("price $5", "price 5"),
        ("😀", "😁"),
        ("हिन्दी", "हन्द"),  # vowel signs are no punctuation
    ],
)
def test_texts_that_say_something_else_are_not(text: str, other: str) -> None:
    assert normalise(text) != normalise(other)


@given(st.text(st.characters(max_codepoint=127, categories=["L", "N", "P", "S", "Zs"]), max_size=40))
def test_the_short_way_for_ascii_gives_what_the_long_one_does(text: str) -> None:
    words = " ".join(_fold(text).split())
    assert normalise(text) == (words or " ".join(text.lower().split()))


@given(st.lists(st.text(st.characters(max_codepoint=0x180, exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=6))
def test_codes_of_a_column_are_those_of_its_texts(values: list[str]) -> None:
    marks = "".join(map(chr, ASCII_PUNCTUATION))
    texts = [*values, *(value + marks[at % len(marks)] + value for at, value in enumerate(values)), marks, "a'b", "'", "A  b"]
    want = [stable_code(normalise(text)) for text in texts]
    assert text_codes(pa.array(texts, pa.string())).tolist() == want


VALUES = st.none() | st.sampled_from(["", " ", "a", "b c", " d ", "e\tf", "g  h", "é", "\x00", "x\u00a0y", "nan"])


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=8),
    st.sampled_from(["{a}", "{a} {b}", "x {a} by {b} | {c}!", "{b}{a}", "{a} {missing} ({c})", "{a} {a}", "{{{a}}}"]),
)
def test_texts_of_columns_are_those_of_their_rows(rows: list[tuple[str | None, ...]], text: str) -> None:
    template = Template(text, "t")
    table = pa.table({name: pa.array(column, pa.string()) for name, column in zip("abc", zip(*rows, strict=True), strict=True)})
    want = [template.render(row) for row in table.to_pylist()]
    assert render(table, template, Chunk("f", 1, table)).to_pylist() == want


@given(st.lists(st.sampled_from(["Der", "straße", "СОЛНЦЕ", "naïve", "x2"]), min_size=1), st.data())
def test_only_words_and_their_order_count(words: list[str], data: st.DataObject) -> None:
    gap = st.text(st.sampled_from(" \t\u00a0,.;:-–—()[]«»!?…/&*"), min_size=1, max_size=4)
    dressed = "".join(word.upper() + data.draw(gap) for word in words)
    assert normalise(data.draw(gap) + dressed) == normalise(" ".join(words))


# labels and splits

QUERIES = pa.array([f"q{n}" for n in range(200)])


def test_labels_become_rows() -> None:
    rows = [
        {"query_id": "q2", "item_id": "b", "score": 2, "weight": None, "source": "click"},
        {"query_id": "q0", "item_id": "a", "score": 0, "weight": 0.5, "source": None},
    ]
    pairs = ((chunk, "dev") for chunk in chunks(rows))
    found = read_labels(pairs, QUERIES, pa.array(["a", "b"]), {})
    assert found.query_rows.tolist() == [2, 0]
    assert found.item_rows.tolist() == [1, 0]
    assert found.grades.tolist() == found.scores.tolist() == [2, 0]
    assert found.weights.tolist() == [1.0, 0.5]
    assert found.sources.to_pylist() == ["click", None]
    assert found.splits == ["dev", "dev"]
    assert found.relevant.tolist() == [2]


def test_a_label_without_a_score_is_relevant() -> None:
    pairs = ((chunk, None) for chunk in chunks([{"query_id": "q0", "item_id": "a"}]))
    assert read_labels(pairs, QUERIES, pa.array(["a"]), {}).scores.tolist() == [1]


def test_dev_is_cut_from_the_training_queries_with_a_positive_the_same_in_every_run() -> None:
    known = labels([(n, 0, int(n % 2 == 0)) for n in range(200)])
    splits, notes = assign_splits(None, known, QUERIES, 0.2)
    dev = {row for row, split in enumerate(splits) if split == "dev"}
    assert notes == {"dev_queries_cut_from_train": len(dev)}
    assert 5 < len(dev) < 40
    assert all(row % 2 == 0 for row in dev)
    again, _ = assign_splits(None, labels([(n, 0, 1) for n in range(0, 200, 2)]), QUERIES[::1], 0.2)
    assert {row for row, split in enumerate(again) if split == "dev"} == dev


@pytest.mark.parametrize(("count", "dev"), [(1, 0), (2, 1), (3, 1)])
def test_dev_gets_one_query_of_few(count: int, dev: int) -> None:
    splits, _ = assign_splits(None, labels([(n, 0, 1) for n in range(count)]), QUERIES[:count], 0.001)
    assert splits.count("dev") == dev


def test_examples_are_counted_per_source_for_training_queries_only(case: Any, store: Store) -> None:
    for number, label in enumerate(case.labels):
        label["source"] = "click" if number % 2 else None
    # of query 1 another relevant item by the same source, one by another, one judged irrelevant
    more = [("i5", 1, "click"), ("i6", 1, "editor"), ("i7", 0, "crawl")]
    case.labels += [{"query_id": "q1", "item_id": item, "score": score, "source": source} for item, score, source in more]
    config = load_config(case.write(), ["cluster.part_rows=16"])
    outcome = _ingest_tables(config, store, "tables", config.data)
    assert outcome.figures["examples"] == {"": 4, "click": 4, "editor": 1}


@pytest.mark.parametrize("count", range(2, 12))
def test_no_fraction_leaves_train_or_dev_without_a_query(count: int) -> None:
    for first in range(0, 180, 3):  # other ids, other draws: of two queries both are often drawn for dev
        splits, notes = assign_splits(None, labels([(n, 0, 1) for n in range(count)]), QUERIES[first : first + count], 0.49)
        assert splits.count("dev") == notes["dev_queries_cut_from_train"] >= 1
        assert splits.count("train") >= 1


@pytest.mark.parametrize(
    ("own", "of_labels", "want"),
    [
        (["train", "dev"], [None, None], ["train", "dev"]),
        ([None, None], ["train", "dev"], ["train", "dev"]),
        (["train", None], [None, "dev"], ["train", "dev"]),
        (["dev", None], [None, None], ["dev", "train"]),
        (["dev", "none"], [None, "train"], ["dev", "none"]),
    ],
)
def test_a_query_has_its_own_split_or_its_labels(own: list[str | None], of_labels: list[str | None], want: list[str]) -> None:
    known = labels([(0, 0, 1), (1, 0, 1)], of_labels)
    assert assign_splits([*own, None], known, QUERIES[:3], 0.1) == ([*want, "none"], {}), "without labels: in no split"


def test_labels_are_sorted_and_the_best_of_a_repeated_pair_stays(store: Store) -> None:
    parts, repeated = write_labels(labels([(1, 5, 1), (0, 7, 0), (1, 5, 3), (1, 2, 1), (1, 5, 2)]), store, "labels")
    table = read_parts(store, parts, ["query_row", "item_row", "score"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [(0, 7, 0), (1, 2, 1), (1, 5, 3)]
    assert repeated == 2


@pytest.mark.parametrize(
    ("relevant_from", "scores", "gains"),
    [
        (None, [0, 0, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3]),
        (2, [0, 0, 0, 0, 2, 3], [0, 0, 0, 1, 2, 3]),
        (2.5, [0, 0, 0, 0, 0, 3], [0, 0, 0, 1, 2, 3]),
    ],
)
def test_what_is_relevant_is_decided_once_and_the_gain_stays(
    store: Store, relevant_from: float | None, scores: list[int], gains: list[int]
) -> None:
    rows = [{"query_id": "q0", "item_id": f"i{n}", "score": score} for n, score in enumerate([-2, -1, 0, 1, 2, 3])]
    pairs = ((chunk, None) for chunk in chunks(rows))
    known = read_labels(pairs, QUERIES, pa.array([f"i{n}" for n in range(6)]), {}, relevant_from)
    table = read_parts(store, write_labels(known, store, "labels")[0])
    assert table["score"].to_pylist() == scores
    assert table["gain"].to_pylist() == gains
    assert known.relevant.tolist() == [0] * sum(score > 0 for score in scores)
    found = label_figures(known, known.unrepeated()[0], Ids(QUERIES), Ids(pa.array([f"i{n}" for n in range(6)])))
    assert found["negative_scores"] == 2
    assert found["judged_irrelevant"] == scores.count(0)
    assert found["contradictions"] == 0
    items = pa.table({"group_code": [-1] * 6, "text_code": range(6)})
    mined = Labels.from_tables(table, items, 200)
    assert mined.positives(np.array([0]))[1].tolist() == [n for n in range(6) if scores[n]], "what mining and training know"
    assert mined.judged_irrelevant(np.array([0]))[1].tolist() == [n for n in range(6) if not scores[n]]


def test_a_fraction_is_a_grade_where_relevant_from_gives_it_a_meaning(store: Store) -> None:
    rows = [{"query_id": "q0", "item_id": name, "score": score} for name, score in (("a", 0.25), ("b", 0.5), ("c", 0.75))]
    known = read_labels(((chunk, None) for chunk in chunks(rows)), QUERIES, pa.array(["a", "b", "c"]), {}, 0.5)
    table = read_parts(store, write_labels(known, store, "labels")[0])
    assert table["score"].to_pylist() == [0, 0.5, 0.75]
    assert table["gain"].to_pylist() == [0.25, 0.5, 0.75]
    mined = Labels.from_tables(table, pa.table({"group_code": [-1] * 3, "text_code": range(3)}), 200)
    assert mined.positives(np.array([0]))[1].tolist() == [1, 2], "half a grade is not rounded to irrelevant"
    with pytest.raises(DataError, match=r"row 1: .*whole number.*relevant_from.*found 0\.25; 3 label"):
        read_labels(((chunk, None) for chunk in chunks(rows)), QUERIES, pa.array(["a", "b", "c"]), {})


# the whole


def test_a_good_run_s_tables(case: Any, store: Store) -> None:
    case.items[1]["group"] = case.items[2]["group"] = "g"
    case.queries[0]["item_id"] = "i3"
    case.labels.append({"query_id": "q1", "item_id": "i1", "score": 1})
    config = load_config(case.write(), ["cluster.part_rows=16"])
    outcome = _ingest_tables(config, store, "tables", config.data)
    assert outcome.figures | {"x": 0} == {
        "items": 12,
        "queries": 10,
        "labels": 11,
        "repeated_labels": 1,
        "examples": {"": 8},
        "dimension": None,
        "judged_irrelevant": 0,
        "negative_scores": 0,
        "contradictions": 0,
        "contradiction": None,
        "grades": [1.0, 1.0, 1.0],
        "texts": {
            "items": {"control": 0, "damaged": 0, "long": 0, "longest": [30, "i10"]},
            "queries": {"control": 0, "damaged": 0, "long": 0, "longest": [7, "q0"]},
        },
        "equal_texts": {
            "queries": 0,
            "across_splits": {},
            "queries_that_are_items": 1,
            "queries_that_look_for_themselves": 0,
            "unlike_queries": None,
            "unlike_items": None,
            "items": 0,
            "copies_of_relevant_items": 0,
        },
        "x": 0,
        "splits": {"train": 8, "dev": 2, "test": 0, "none": 0},
        "with_positive": {"train": 8, "dev": 2, "test": 0},
        "training_labels": {"relevant": {"": 8}, "irrelevant": 0},
        "dev_queries_without_positive": 0,
    }
    corpus, queries, codes = (read_parts(store, outcome.tables[name]) for name in ("corpus", "queries", "codes"))
    assert corpus["text"][0].as_py() == "Title 0 a text about thing 0"
    assert codes["group_code"].to_pylist()[:4] == [-1, stable_code("g"), stable_code("g"), -1]
    assert {"genres", "year", "title"} <= set(corpus.column_names)
    assert queries["item_row"].to_pylist()[:2] == [3, -1]
    assert queries["split"].to_pylist() == ["train"] * 8 + ["dev"] * 2
    listed = {part.path for parts in outcome.tables.values() for part in parts}
    left = set(store.list("tables")) - listed
    assert left == {path for path in left if path.startswith(outcome.scratch)}, "nothing else is left behind"
    assert not listed & left


def test_a_pair_labelled_relevant_and_irrelevant_is_counted_and_told(case: Any, store: Store) -> None:
    case.queries[4]["text"] = case.queries[3]["text"]  # one question
    case.labels += [{"query_id": "q1", "item_id": name, "score": 0} for name in ("i1", "i1", "i5", "i5")]
    case.labels += [{"query_id": "q4", "item_id": "i3", "score": -1}, {"query_id": "q4", "item_id": "i6", "score": -1}]
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    table = read_parts(store, outcome.tables["labels"])
    rows = set(zip(*(table[name].to_pylist() for name in ("query_row", "item_row", "score")), strict=True))
    assert {(1, 1, 1), (1, 5, 0), (4, 3, 1), (4, 6, 0)} <= rows
    figures = outcome.figures
    assert (figures["judged_irrelevant"], figures["negative_scores"], figures["contradictions"]) == (2, 1, 2)
    count, warning = data_lines(figures, "data")
    assert count.endswith("16 labels, 2 of them judged irrelevant, 1 of them with a negative score")
    assert warning.startswith("! 2 pairs of query and item are judged irrelevant by one label and relevant by another")
    assert "query 'q1', item 'i1'" in warning


def test_a_beir_folder_without_dev_and_test(case: Any, store: Store) -> None:
    case.settings["data"] = {"folder": "beir"}
    header = b"query-id\tcorpus-id\tscore\n"
    case.files |= {
        "beir/corpus.jsonl": b"".join(
            b'{"_id": "i%d", "title": "", "text": "t %d", "metadata": {}}\n' % (n, n) for n in range(9)
        ),
        "beir/queries.jsonl": b"".join(b'{"_id": "q%d", "text": "asks t %d"}\n' % (n, n) for n in range(9)),
        "beir/qrels/train.tsv": header + b"".join(b"q%d\ti%d\t1\n" % (n, n) for n in range(6)),
    }
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    assert outcome.figures["splits"]["none"] == 3
    assert outcome.figures["splits"]["dev"] == outcome.figures["dev_queries_cut_from_train"] >= 1


def test_ids_that_became_doubles_match_whole_numbers_everywhere(case: Any, store: Store) -> None:
    """One missing value makes doubles of a column of integers, in pandas and in Parquet."""
    for number, item in enumerate(case.items):
        item |= {"id": number, "group": 7.0 if number < 2 else None if number < 6 else math.nan}
    for number, query in enumerate(case.queries):
        query |= {"id": float(number), "item_id": 3.0 if number == 0 else None}
    for number, label in enumerate(case.labels):
        label |= {"query_id": number, "item_id": float(number)}
    case.items[7]["group"] = 8.5
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    corpus, queries, labels = (read_parts(store, outcome.tables[name]) for name in ("corpus", "queries", "labels"))
    codes = read_parts(store, outcome.tables["codes"])
    assert corpus["id"].to_pylist() == [str(n) for n in range(12)]
    assert queries["id"].to_pylist() == [str(n) for n in range(10)]
    assert queries["item_row"].to_pylist() == [3] + [-1] * 9
    assert labels["item_row"].to_pylist() == list(range(10))
    want = [stable_code("7")] * 2 + [-1] * 5 + [stable_code("8.5")] + [-1] * 4
    assert codes["group_code"].to_pylist() == want, "7.0 is the group 7 of another file, NaN is no group"


def test_a_general_set_has_its_own_relevant_from(case: Any, store: Store) -> None:
    case.set("evaluation.general", dict(case.settings["data"]) | {"relevant_from": 3})
    case.labels[0]["score"] = 3
    config = load_config(case.write())
    assert _ingest_tables(config, store, "own", config.data).figures["judged_irrelevant"] == 0
    assert _ingest_tables(config, store, "general", config.evaluation.general).figures["judged_irrelevant"] == 9


def test_lower_grades_leave_the_tables_that_scores_of_0_leave_but_for_the_gain(case: Any, tmp_path: Path) -> None:
    """Nothing but the evaluation reads `gain`, so mining and training are the same."""
    for number, label in enumerate(list(case.labels)):
        label |= {"score": 3, "weight": 0.5 + number}
        case.labels += [{"query_id": f"q{number}", "item_id": f"i{number + step}", "score": 1.0 / step} for step in (1, 2)]
    case.queries[4]["text"] = case.queries[5]["text"]  # equal queries share their labels
    case.set("data.relevant_from", 2)
    graded, flat = Store(str(tmp_path / "graded")), Store(str(tmp_path / "flat"))
    config = load_config(case.write())
    tables = _ingest_tables(config, graded, "tables", config.data).tables
    for label in case.labels:
        label["score"] = label["score"] if label["score"] == 3 else 0
    config = load_config(case.write(), ["data.relevant_from=3"])
    others = _ingest_tables(config, flat, "tables", config.data).tables
    for name, parts in tables.items():
        got, want = (read_parts(store, made[name]) for store, made in ((graded, tables), (flat, others)))
        if name == "labels":
            assert got["gain"].to_pylist() != want["gain"].to_pylist()
            got, want = got.drop_columns(["gain"]), want.drop_columns(["gain"])
            assert pc.sum(pc.equal(got["score"], 0)).as_py() >= 20
        assert got.equals(want), name
        assert sum(part.rows for part in parts) == got.num_rows


def test_scores_of_a_tsv_are_read_as_those_of_other_files(case: Any, store: Store) -> None:
    case.set("data.qrels", "qrels.tsv")
    scores = ["1.0", "1", "2", "1e0", "3.00", "1", "1", "1", "1", "2.0"]
    case.files["qrels.tsv"] = b"\xef\xbb\xbf" + "".join(f"q{n}\ti{n}\t{score}\r\n" for n, score in enumerate(scores)).encode()
    case.files["qrels.tsv"] += b"q0\ti5\t-1\nq0\ti6\t-2.0\nq0\ti7\t0\n"
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    labels = read_parts(store, outcome.tables["labels"])
    assert labels["score"].to_pylist() == [1, 0, 0, 0, 1, 2, 1, 3, 1, 1, 1, 1, 2]
    assert outcome.figures["negative_scores"] == 2
    assert outcome.figures["judged_irrelevant"] == 3
    assert outcome.figures["grades"] == [1, 1, 3]


def test_queries_without_a_positive_are_left_out_and_counted(case: Any, store: Store) -> None:
    case.labels[3]["score"] = 0
    case.labels[8]["score"] = 0
    case.set("data.skip_queries_without_positive", True)
    config = load_config(case.write())
    figures = _ingest_tables(config, store, "tables", config.data).figures
    assert figures["train_queries_skipped"] == 1
    assert figures["dev_queries_without_positive"] == 1
    assert figures["splits"] == {"train": 7, "dev": 2, "test": 0, "none": 1}
    assert figures["judged_irrelevant"] == 2


@pytest.mark.parametrize("ending", ["tsv", "csv", "trec.tsv"])
@pytest.mark.parametrize("dev", ["dev", "validation", "val-00000-of-00001"])
def test_files_of_a_folder_of_labels_that_are_named_after_splits_are_these_splits(
    case: Any, store: Store, ending: str, dev: str
) -> None:
    """They were read as one table, in which dev and test queries are training queries."""
    for query in case.queries:
        del query["split"]
    line = {"tsv": "q{0}\ti{0}\t1\n", "csv": "q{0},i{0},1\n", "trec.tsv": "q{0} 0 i{0} 1\n"}[ending]
    header = "query_id,item_id,score\n" if ending == "csv" else ""
    for split, rows in (("train-0", range(3)), ("train_1", range(3, 6)), (dev, range(6, 8)), ("test", range(8, 10))):
        case.files[f"labels/{split}.{ending}"] = (header + "".join(line.format(n) for n in rows)).encode()
    case.set("data.qrels", "labels")
    config = load_config(case.write())
    figures = _ingest_tables(config, store, "tables", config.data).figures
    assert figures["splits"] == {"train": 6, "dev": 2, "test": 2, "none": 0}


@pytest.mark.parametrize(("names", "want"), [(("train", "test"), (5, 5)), (("train", "train-2"), (10, 0))])
def test_files_of_a_folder_of_queries_are_splits_where_they_name_several(
    case: Any, store: Store, names: tuple[str, str], want: tuple[int, int]
) -> None:
    """On the hub a table without splits lies in train-00000-of-00001.parquet, too."""
    for number, name in enumerate(names):
        rows = case.queries[number * 5 : number * 5 + 5]
        case.files[f"asked/{name}.jsonl"] = "".join(
            f'{{"id": "{row["id"]}", "text": "{row["text"]}"}}\n' for row in rows
        ).encode()
    case.set("data.queries", "asked")
    case.set("data.dev_fraction", 0.1)
    config = load_config(case.write())
    splits = _ingest_tables(config, store, "tables", config.data).figures["splits"]
    assert (splits["train"] + splits["dev"], splits["test"]) == want


def test_the_ids_of_items_and_queries_may_be_called_as_the_labels_call_them(case: Any, store: Store) -> None:
    for rows, own, name in ((case.items, "id", "sku"), (case.queries, "id", "query_id"), (case.labels, "item_id", "sku")):
        for row in rows:
            row[name] = row.pop(own)
    case.set("data.columns", {"item_id": "sku"})
    config = load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    assert read_parts(store, outcome.tables["corpus"])["id"].to_pylist() == [f"i{n}" for n in range(12)]
    assert read_parts(store, outcome.tables["queries"])["id"].to_pylist() == [f"q{n}" for n in range(10)]
    assert read_parts(store, outcome.tables["queries"])["item_row"].to_pylist() == [-1] * 10
    assert read_parts(store, outcome.tables["labels"])["item_row"].to_pylist() == list(range(10))


def test_a_csv_gives_the_tables_that_jsonl_gives(case: Any, tmp_path: Path) -> None:
    for rows, number in ((case.items, 12), (case.queries, 10)):
        for n in range(number):
            rows[n] |= {"vector": [0.5, n + 1.0]}
            rows[n].pop("genres", None)
            rows[n].pop("year", None)
    case.set("encoder", {"kind": "adapter"})
    config = load_config(case.write())
    stores = Store(str(tmp_path / "a")), Store(str(tmp_path / "b"))
    want = _ingest_tables(config, stores[0], "tables", config.data).tables
    for name, rows in (("corpus", case.items), ("queries", case.queries), ("qrels", case.labels)):
        lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
        case.files[f"{name}.csv"] = "\n".join(lines).encode()
        case.set(f"data.{name}", f"{name}.csv")
    config = load_config(case.write())
    got = _ingest_tables(config, stores[1], "tables", config.data).tables
    for name, parts in want.items():
        assert read_parts(stores[1], got[name]).equals(read_parts(stores[0], parts)), name
