"""Forty logs that are wrong: each is refused in one paragraph, or what is wrong is counted and left out. Nothing is silent."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import HardmineError
from tests.jobs.pairs.conftest import START, Make, event, lines, query

GOOD = [query("q1", "red shoe", ["a", "b", "c"]), event("q1", "b", "purchase", position=2)]
"""One relevant item and one that was skipped; every log that is counted still gives these."""


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def changed(row: dict[str, Any], **values: Any) -> dict[str, Any]:
    return row | values


BAD_QUERY, BAD_EVENT = query("q2", "blue hat", ["x", "y"]), event("q2", "x")
COUNTED: list[tuple[str, bytes, str]] = [
    ("a line cut off at the end", lines(GOOD) + b'{"query_id": "q9", "user_qu', "line is not JSON"),
    ("a line of words", lines(GOOD) + b"Traceback (most recent call last):\n", "line is not JSON"),
    ("a list instead of an object", lines(GOOD) + b'["q9"]\n', "line is not a JSON object"),
    ("a number instead of an object", lines(GOOD) + b"17\n", "line is not a JSON object"),
    ("a key twice", lines(GOOD) + b'{"query_id": "q9", "query_id": "q8", "user_query": "x"}\n', "line has a key twice"),
    ("bytes that are no UTF-8", lines(GOOD) + b'{"query_id": "q9", "user_query": "caf\xe9"}\n', "line is not UTF-8"),
    ("nested a thousand times", lines(GOOD) + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
     "no query text, no action and no query id"),
    ("NaN as JSON does not know it, in a field that is read",
     lines([*GOOD, changed(BAD_QUERY, timestamp=float("nan"))]), "time cannot be read"),
    ("half of an emoji in a text", lines(GOOD) + b'{"query_id": "q9", "client_id": "u", "user_query": "shoe \\ud83d"}\n',
     "query is of another type"),
    ("a query without a text", lines([*GOOD, changed(BAD_QUERY, user_query=None)]), "query without a text"),
    ("a query of spaces", lines([*GOOD, changed(BAD_QUERY, user_query="  \t ")]), "query without a text"),
    ("a query of invisible characters", lines([*GOOD, changed(BAD_QUERY, user_query="\u200b\u200b")]), "query without a text"),
    ("a pasted page as a query", lines([*GOOD, changed(BAD_QUERY, user_query="word " * 500)]), "longer than 1,000 characters"),
    ("an e-mail address as a query", lines([*GOOD, changed(BAD_QUERY, user_query="mail anna@example.org")]), "e-mail address"),
    ("a telephone number as a query", lines([*GOOD, changed(BAD_QUERY, user_query="call +49 170 1234567")]), "long number"),
    ("a query that is a number", lines([*GOOD, changed(BAD_QUERY, user_query=17)]), "query is of another type"),
    ("an event of a query that is not there", lines([*GOOD, event("q77", "x")]), "event without its query"),
    ("an event of another user's query", lines([*GOOD, event("q1", "a", user="u2")]), "event without its query"),
    ("an event without an item", lines([*GOOD, changed(BAD_EVENT, event_attributes={})]), "event without an item"),
    ("an item that is a list", lines([*GOOD, changed(BAD_EVENT, event_attributes={"object": {"object_id": ["x"]}})]),
     "item is of another type"),
    ("attributes that are a text", lines([*GOOD, changed(BAD_EVENT, event_attributes="x")]), "event without an item"),
    ("an action of no meaning", lines([*GOOD, event("q1", "a", "scrolled")]), "action 'scrolled' is no signal"),
    ("an event without anything", lines([*GOOD, {"action_name": "click", "event_attributes": {"object": {"object_id": "x"}}}]),
     "event without a query and without a user"),
    ("an empty object", lines([*GOOD, {}]), "no query text, no action and no query id"),
    ("a time that is a word", lines([*GOOD, changed(BAD_QUERY, timestamp="yesterday")]), "time cannot be read"),
    ("the 31st of June", lines([*GOOD, changed(BAD_QUERY, timestamp="2026-06-31T10:00:00Z")]), "time cannot be read"),
    ("a time before computers", lines([*GOOD, changed(BAD_QUERY, timestamp=-START)]), "time cannot be read"),
    ("a time without a zone", lines([*GOOD, changed(BAD_QUERY, timestamp="2026-06-30T10:00:00")]), "read as UTC"),
    ("a position below 1", lines([*GOOD, event("q1", "a", position=-3)]), "position is not a whole number from 1"),
    ("positions that count from 0", lines([*GOOD, event("q1", "a", position=0)]), "positions count from 1"),
    ("a click on what was not shown", lines([*GOOD, event("q1", "zzz")]), "not in the list that was shown"),
    ("an empty id among those that were shown", lines([*GOOD, query("q3", "hat", ["", "x"])]), "has an empty id"),
    ("a query logged twice", lines([*GOOD, GOOD[0]]), "with an id that was there before"),
]  # fmt: skip
REFUSED: list[tuple[str, dict[str, bytes], Sequence[str]]] = [
    ("no file at all", {"README.txt": b"x"}, ["expected logs", "README.txt"]),
    ("an empty file", {"log.jsonl": b""}, ["no row"]),
    ("a log of another kind", {"log.jsonl": lines([{"level": "info", "msg": "started"}])},
     ["found the columns level, msg", "[columns]"]),
    ("a Parquet file that is cut off", {"log.parquet": parquet({"query_id": ["q"]})[:-9]}, ["not a readable Parquet file"]),
    ("a Parquet file that is JSON", {"log.parquet": lines(GOOD)}, ["not a readable Parquet file"]),
    ("a gzip file that is none", {"log.jsonl.gz": lines(GOOD)}, ["not a readable gzip file"]),
    ("a gzip file that is cut off", {"log.jsonl.gz": gzip.compress(lines(GOOD * 50))[:-20]}, ["not a readable gzip file"]),
    ("more noise than log", {"log.jsonl": lines(GOOD) + b"noise\n" * 100},
     ["lines that cannot be read", "line is not JSON"]),
    ("times in a column of lists", {"log.parquet": parquet({"query_id": ["q"], "user_query": ["x"], "timestamp": [[1]]})},
     ["expected times", "list"]),
    ("texts in a column of numbers", {"log.parquet": parquet({"query_id": ["q"], "user_query": [1.5]})},
     ["expected texts", "double"]),
    ("shown ids as one text",
     {"log.parquet": parquet({"query_id": ["q"], "user_query": ["x"], "query_response_hit_ids": ["a,b"]})},
     ["expected lists of ids", "string"]),
    ("a CSV with a row that is too long", {"log.csv": b"query,item_id,action\nshoe,a,click\nhat,b,click,x\n"},
     ["row 3", "3 cells"]),
    ("only events", {"log.jsonl": lines([event("q1", "a")])}, ["at least one label follows, found none"]),
    ("only queries", {"log.jsonl": lines([query("q1", "shoe", ["a"])])}, ["at least one label follows, found none"]),
]  # fmt: skip


def test_there_are_forty_of_them() -> None:
    assert len(COUNTED) + len(REFUSED) >= 40


@pytest.mark.parametrize(("log", "reason"), [case[1:] for case in COUNTED], ids=[case[0] for case in COUNTED])
def test_what_is_wrong_is_counted_and_the_rest_is_used(pairs: Make, log: bytes, reason: str) -> None:
    made = pairs({"log.jsonl": log})
    said = {**made.summary["skipped"], **made.summary["doubts"]}
    assert sum(count for name, count in said.items() if reason in name) == 1, said
    assert made.labels["red shoe", "b"] == (3, "purchase")
    assert reason in (made.folder / "pairs.md").read_text().replace("&lt;", "<")


@pytest.mark.parametrize(("files", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_used_is_refused_in_one_paragraph(pairs: Make, files: dict[str, bytes], words: Sequence[str]) -> None:
    with pytest.raises(HardmineError) as caught:
        pairs(files)
    message = str(caught.value)
    assert "\n" not in message
    assert 30 < len(message) < 1000
    assert caught.value.exit_code == 2
    for word in words:
        assert word in message, message


def test_lines_that_do_not_fit_arrow_are_read_like_the_others(pairs: Make) -> None:
    """One id that is a number sends the block line by line; the labels are the same."""
    mixed = [
        *GOOD,
        query("q2", "blue hat", ["7"]),
        changed(event("q2", "7", "purchase"), event_attributes={"object": {"object_id": 7}}),
    ]
    made = pairs({"log.jsonl": lines(mixed)})
    as_text = pairs({"log.jsonl": lines([*GOOD, query("q2", "blue hat", ["7"]), event("q2", "7", "purchase")])})
    assert made.labels == as_text.labels
    assert made.labels["blue hat", "7"] == (3, "purchase")
    assert json.loads((made.folder / "pairs.json").read_text())["skipped"] == as_text.summary["skipped"]
