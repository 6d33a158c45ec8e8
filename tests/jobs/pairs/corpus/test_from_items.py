"""Pairs that come from the items: anchors, templates with negatives of the same genre and another tone, diverse positives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from tests.jobs.pairs.conftest import Make, event, lines, query

TONES = ("dark", "funny", "warm")


def write_items(folder: Path, count: int = 30) -> str:
    items = [
        {"id": f"b{n}", "title": f"Book {n}", "text": "text", "genre": "crime" if n % 2 else "love", "tone": TONES[n % 3],
         "see": f"b{n + 1}, b{n + 2}"}
        for n in range(count)
    ]  # fmt: skip
    path = folder / "items.jsonl"
    path.write_bytes(lines(items))
    return f'corpus.path="{path}"'


def liked(together: int = 8, users: int = 6) -> list[dict[str, Any]]:
    """Everybody likes the first books."""
    return [{"user_id": f"u{user}", "item_id": f"b{n}", "rating": 5} for user in range(users) for n in range(together)]


def test_anchors_lead_from_an_item_to_those_it_refers_to(pairs: Make, tmp_path: Path) -> None:
    rows = [query("q1", "a query", ["b3"]), event("q1", "b3", "purchase")]
    labels = pairs({"log.jsonl": rows}, write_items(tmp_path), 'corpus.anchors="see"').labels
    assert labels["Book 0", "b1"] == labels["Book 0", "b2"] == (1, "anchor")
    assert ("Book 29", "b30") not in labels, "there is no such item"


def test_vectors_of_the_items_stay_lists_that_a_run_and_others_can_read(pairs: Make, tmp_path: Path) -> None:
    vectors = pa.array([[float(n), 1.0] for n in range(30)], pa.list_(pa.float32(), 2))
    items = pa.table({"id": [f"b{n}" for n in range(30)], "title": ["a book"] * 30, "vector": vectors})
    pq.write_table(items, tmp_path / "items.parquet")
    made = pairs({"log.jsonl": [query("q1", "a", ["b3"]), event("q1", "b3")]}, f'corpus.path="{tmp_path / "items.parquet"}"')
    written = pq.read_table(made.folder / "tables/corpus")
    assert written.schema.field("vector").type == vectors.type
    assert sorted(written["vector"].to_pylist()) == vectors.to_pylist()


def test_a_template_query_has_negatives_of_its_genre_and_another_tone(pairs: Make, tmp_path: Path) -> None:
    others = [{"query": f"question {n}", "item_id": f"b{n % 30}"} for n in range(400)]
    settings = ['corpus.templates=["{tone} {genre} book {title}"]', 'corpus.same="genre"', 'corpus.different="tone"']
    made = pairs({"pairs.jsonl": others}, write_items(tmp_path), *settings)
    queries = {row["id"]: row for row in made.table("queries")}
    templates = [row for row in queries.values() if row["kind"] == "template"]
    assert templates
    assert {row["split"] for row in templates} == {"train"}
    judged = [row for row in made.table("qrels") if queries[row["query_id"]]["kind"] == "template" and row["score"] == 0]
    assert judged
    for row in judged:
        tone, genre, *_ = queries[row["query_id"]]["text"].split()
        number = int(row["item_id"][1:])
        assert ("crime" if number % 2 else "love") == genre
        assert TONES[number % 3] != tone


def test_positives_take_turns_over_the_tones(pairs: Make, tmp_path: Path) -> None:
    """Of many books that are liked together, the first three of each have three tones."""
    rows = [{"user_id": f"u{user}", "item_id": f"b{n}", "rating": 5} for user in range(6) for n in range(0, 30)]
    rows += [{"user_id": f"v{user}", "item_id": f"b{n}", "rating": 5} for user in range(30) for n in (user % 30,)]
    setting = write_items(tmp_path)
    made = pairs({"ratings.jsonl": rows}, setting, 'corpus.different="tone"')
    items = [
        int(item[1:]) % 3 for (text, item), (score, source) in made.labels.items() if text == "Book 0" and source == "co_access"
    ]
    assert len(items) == 15
    assert sorted(items.count(tone) for tone in range(3)) == [5, 5, 5]


def test_synthetic_queries_are_one_in_five_at_most_and_live_ones_come_first(pairs: Make, tmp_path: Path) -> None:
    rows = [{"query": f"question {n}", "item_id": f"b{n % 30}"} for n in range(20)]
    made = pairs({"pairs.jsonl": [*rows, {"query": "book 4", "item_id": "b9"}]}, write_items(tmp_path))
    kinds = {row["text"]: row["kind"] for row in made.table("queries")}
    assert kinds["book 4"] == "editorial", "a title that somebody asked is no synthetic query"
    assert 0 < sum(kind == "title" for kind in kinds.values()) <= 9
    assert made.summary["queries"]["synthetic train"] == sum(kind == "title" for kind in kinds.values())


def test_popular_items_weigh_less(pairs: Make) -> None:
    rows = []
    for n in range(100):
        item = "hit" if n % 2 else f"i{n}"
        rows += [query(f"q{n}", f"text {n}", [item], user=f"u{n}"), event(f"q{n}", item, "purchase", user=f"u{n}")]
    made = pairs({"log.jsonl": rows})
    assert made.weights["text 1", "hit"] < 0.5 < made.weights["text 0", "i0"]
    assert made.summary["totals"]["labels of popular items, capped"] == 50


def test_a_corpus_without_items_is_refused(pairs: Make, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b"id,title,text\n")
    with pytest.raises(DataError, match=r"items in corpus\.path = .*found no row"):
        pairs({"pairs.jsonl": [{"query": "shoe", "item_id": "a"}]}, f'corpus.path="{tmp_path}/items.csv"')
