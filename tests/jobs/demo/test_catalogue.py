"""The generated catalogue: reproducible, consistent, and confusable where real catalogues are."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.demo.catalogue import Catalogue, generate_catalogue

KINDS = {"plot", "mood", "author_genre", "franchise", "audience"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return generate_catalogue(num_titles=1500, num_queries=1000, seed=3)


@pytest.fixture(scope="module")
def whole() -> Catalogue:
    """The catalogue of `hardmine demo`."""
    return generate_catalogue()


def _positives(catalogue: Catalogue) -> dict[str, dict[str, int]]:
    positives: dict[str, dict[str, int]] = defaultdict(dict)
    for row in catalogue.qrels.to_pylist():
        if row["score"] > 0:
            positives[row["query_id"]][row["item_id"]] = row["score"]
    return positives


def _by(rows: list[dict[str, Any]], column: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return groups


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def test_the_same_arguments_give_the_same_bytes(catalogue: Catalogue) -> None:
    again = generate_catalogue(num_titles=1500, num_queries=1000, seed=3)
    for name in ("corpus", "queries", "qrels"):
        assert _ipc(getattr(again, name)) == _ipc(getattr(catalogue, name))


def test_another_seed_gives_another_catalogue(catalogue: Catalogue) -> None:
    other = generate_catalogue(num_titles=1500, num_queries=1000, seed=4)
    assert other.corpus["text"] != catalogue.corpus["text"]


def test_the_corpus_does_not_depend_on_the_number_of_queries(catalogue: Catalogue) -> None:
    assert generate_catalogue(num_titles=1500, num_queries=50, seed=3).corpus.equals(catalogue.corpus)


def test_the_tables_have_the_asked_number_of_rows_and_the_documented_columns(catalogue: Catalogue) -> None:
    text, number = pa.string(), pa.int64()
    assert (catalogue.corpus.num_rows, catalogue.queries.num_rows) == (1500, 1000)
    assert dict(zip(catalogue.corpus.column_names, catalogue.corpus.schema.types, strict=True)) == {
        "id": text,
        "title": text,
        "text": text,
        "genres": pa.list_(text),
        "demographic": text,
        "author": text,
        "group": text,
        "popularity": pa.float64(),
        "year": number,
    }
    assert catalogue.queries.column_names == ["id", "text", "kind", "split"]
    assert dict(zip(catalogue.qrels.column_names, catalogue.qrels.schema.types, strict=True)) == {
        "query_id": text,
        "item_id": text,
        "score": number,
        "split": text,
        "source": text,
    }


def test_identifiers_and_titles_are_unique(catalogue: Catalogue) -> None:
    for column in (catalogue.corpus["id"], catalogue.corpus["title"], catalogue.queries["id"]):
        assert len(set(column.to_pylist())) == len(column)


def test_no_text_is_empty(catalogue: Catalogue) -> None:
    for column in (catalogue.corpus["title"], catalogue.corpus["text"], catalogue.queries["text"]):
        assert all(value.strip() for value in column.to_pylist())


def test_no_wording_is_left_unresolved(catalogue: Catalogue) -> None:
    for column in (catalogue.corpus["title"], catalogue.corpus["text"], catalogue.queries["text"]):
        values = column.to_pylist()
        assert not [value for value in values if set(value) & set("{}()|") or "::" in value or "  " in value]


def test_every_label_names_a_title_and_a_query_of_the_same_split(catalogue: Catalogue) -> None:
    items = set(catalogue.corpus["id"].to_pylist())
    splits = {row["id"]: row["split"] for row in catalogue.queries.to_pylist()}
    rows = catalogue.qrels.to_pylist()
    assert all(row["item_id"] in items and row["split"] == splits[row["query_id"]] for row in rows)
    assert len({(row["query_id"], row["item_id"]) for row in rows}) == len(rows)


def test_scores_and_sources_take_the_documented_values(catalogue: Catalogue) -> None:
    assert set(catalogue.qrels["score"].to_pylist()) == {0, 1, 2}
    assert set(catalogue.qrels["source"].to_pylist()) == {"editorial", "click"}


def test_irrelevance_is_only_judged_by_editors(catalogue: Catalogue) -> None:
    assert {row["source"] for row in catalogue.qrels.to_pylist() if row["score"] == 0} == {"editorial"}


def test_every_query_has_one_to_twelve_positives(catalogue: Catalogue) -> None:
    positives = _positives(catalogue)
    assert set(positives) == set(catalogue.queries["id"].to_pylist())
    assert all(1 <= len(items) <= 12 for items in positives.values())


def test_all_query_texts_differ_once_folded(catalogue: Catalogue) -> None:
    folded = [" ".join(text.lower().split()) for text in catalogue.queries["text"].to_pylist()]
    assert len(set(folded)) == len(folded)


def test_the_splits_are_about_eighty_ten_ten(catalogue: Catalogue) -> None:
    assert Counter(catalogue.queries["split"].to_pylist()) == {"train": 800, "dev": 100, "test": 100}


def test_every_split_has_every_kind_of_query(catalogue: Catalogue) -> None:
    for rows in _by(catalogue.queries.to_pylist(), "split").values():
        assert {row["kind"] for row in rows} == KINDS


def test_a_plot_query_means_exactly_one_title(catalogue: Catalogue) -> None:
    positives = _positives(catalogue)
    for query in _by(catalogue.queries.to_pylist(), "kind")["plot"]:
        assert list(positives[query["id"]].values()) == [2]


def test_a_franchise_query_has_one_exact_volume_and_every_other_volume_is_relevant(catalogue: Catalogue) -> None:
    positives = _positives(catalogue)
    group = dict(zip(catalogue.corpus["id"].to_pylist(), catalogue.corpus["group"].to_pylist(), strict=True))
    volumes = Counter(group.values())
    for query in _by(catalogue.queries.to_pylist(), "kind")["franchise"]:
        found = positives[query["id"]]
        (name,) = {group[item] for item in found}
        assert name in query["text"]
        assert len(found) == volumes[name]
        assert sorted(found.values())[-2:] == [1, 2]


def test_an_author_and_genre_query_finds_all_their_titles_of_one_genre_and_no_other_author(catalogue: Catalogue) -> None:
    positives = _positives(catalogue)
    corpus = {row["id"]: row for row in catalogue.corpus.to_pylist()}
    for query in _by(catalogue.queries.to_pylist(), "kind")["author_genre"]:
        found = positives[query["id"]]
        (author,) = {corpus[item]["author"] for item in found}
        shared = set.intersection(*(set(corpus[item]["genres"]) for item in found))
        theirs = [row for row in corpus.values() if row["author"] == author]
        assert author in query["text"]
        assert any({row["id"] for row in theirs if genre in row["genres"]} == set(found) for genre in shared)


def test_many_authors_have_titles_in_disjoint_genres(catalogue: Catalogue) -> None:
    authors = _by(catalogue.corpus.to_pylist(), "author").values()
    crossing = [titles for titles in authors if any(set(a["genres"]).isdisjoint(b["genres"]) for a in titles for b in titles)]
    assert len(crossing) > 0.4 * len(authors)


def test_franchises_have_two_to_twelve_volumes_by_one_author(catalogue: Catalogue) -> None:
    groups = _by([row for row in catalogue.corpus.to_pylist() if row["group"]], "group").values()
    assert len(groups) > 30
    assert all(2 <= len(volumes) <= 12 for volumes in groups)
    assert all(len({volume["author"] for volume in volumes}) == 1 for volumes in groups)


def test_volumes_share_more_words_than_titles_by_different_authors(catalogue: Catalogue) -> None:
    def overlap(one: str, two: str) -> float:
        return len(set(one.split()) & set(two.split())) / len(set(one.split()) | set(two.split()))

    texts = catalogue.corpus["text"].to_pylist()
    groups = _by([row for row in catalogue.corpus.to_pylist() if row["group"]], "group").values()
    within = [overlap(volumes[0]["text"], volumes[1]["text"]) for volumes in groups]
    across = [overlap(one, two) for one, two in pairwise(texts)]
    assert statistics.median(within) > 1.5 * statistics.median(across)


def test_synopses_are_two_to_four_sentences_of_thirty_to_seventy_words(catalogue: Catalogue) -> None:
    texts = catalogue.corpus["text"].to_pylist()
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) >= 30
    assert max(lengths) <= 70
    assert 45 <= statistics.median(lengths) <= 65
    assert {text.count(".") for text in texts} <= {2, 3, 4}


def test_popularity_falls_off_like_zipf(catalogue: Catalogue) -> None:
    popularity = np.sort(catalogue.corpus["popularity"].to_numpy())[::-1]
    assert popularity[0] == 1.0
    assert popularity[-1] > 0.0
    assert popularity[:150].sum() > 0.4 * popularity.sum()


def test_the_vocabulary_is_several_thousand_words(whole: Catalogue) -> None:
    assert len({word.strip(".,:;'").lower() for text in whole.corpus["text"].to_pylist() for word in text.split()}) > 3000


def test_the_default_counts_are_five_thousand_titles_and_four_thousand_queries(whole: Catalogue) -> None:
    assert (whole.corpus.num_rows, whole.queries.num_rows) == (5000, 4000)


def test_a_small_catalogue_can_be_generated() -> None:
    assert generate_catalogue(num_titles=200, num_queries=100).queries.num_rows == 100


@pytest.mark.parametrize("arguments", [{"num_titles": 99}, {"num_queries": 0}, {"seed": -1}])
def test_impossible_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need >= 100 titles"):
        generate_catalogue(**arguments)


def test_more_queries_than_the_titles_can_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot answer"):
        generate_catalogue(num_titles=100, num_queries=1000)
