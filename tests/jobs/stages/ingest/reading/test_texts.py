"""What is unusual in texts is counted, treated on purpose and told."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from jobs.stages.ingest.counts.notes import data_lines
from jobs.stages.ingest.reading.texts import LONG, TextNotes


def notes_of(*texts: str) -> tuple[list[str], dict[str, Any]]:
    notes = TextNotes()
    kept = notes.take(pa.array(list(texts), pa.string()), pa.array([f"i{n}" for n in range(len(texts))]))
    return kept.to_pylist(), notes.figures


@pytest.mark.parametrize(
    "text",
    ["", "\u200b", "\ufeff \u2060", "\u00ad", "\x00", "\x07 \x7f", "\u3164", "\u2800", "\ufe0f", "\u202e\u2066", "\U000e0001"],
)
def test_a_text_of_which_nothing_is_visible_is_empty(text: str) -> None:
    assert notes_of(text)[0] == [""]


@pytest.mark.parametrize("text", ["a", "\u200ba", "😀", "👨\u200d👩", "?", "\u0301", "हिन्दी", "\ue000", "\U0001fae8"])
def test_a_text_of_which_something_is_visible_stays_as_it_is(text: str) -> None:
    assert notes_of(text)[0] == [text]


def test_control_characters_are_white_space_and_counted() -> None:
    texts, figures = notes_of("a\x00b", "\x1b[1mbold\x07", "plain", "a \x00 b")
    assert texts == ["a b", "[1mbold", "plain", "a b"]
    assert figures["control"] == 3


def test_damaged_and_long_texts_are_counted_and_kept() -> None:
    texts, figures = notes_of("caf\ufffd", "x" * 5_000_000, "y" * LONG)
    assert [len(text) for text in texts] == [4, 5_000_000, LONG]
    assert figures == {"control": 0, "damaged": 1, "long": 1, "longest": [5_000_000, "i1"]}


def figures(**more: Any) -> dict[str, Any]:
    texts = {"control": 0, "damaged": 0, "long": 0, "longest": [9, "i1"]}
    return {
        "items": 12_000,
        "queries": 10,
        "labels": 30,
        "judged_irrelevant": 0,
        "negative_scores": 0,
        "contradictions": 0,
        "splits": {"train": 8, "dev": 2, "test": 0, "none": 0},
        "grades": [1.0, 1.0, 1.0],
        "texts": {"items": texts, "queries": texts},
    } | more


def test_good_data_gets_one_line() -> None:
    assert data_lines(figures(), "data") == ["  [data] 12,000 items, 10 queries (8 train, 2 dev), 30 labels"]
    line = data_lines(figures(judged_irrelevant=5, negative_scores=2), "data")[0]
    assert line.endswith("30 labels, 5 of them judged irrelevant, 2 of them with a negative score")


@pytest.mark.parametrize(
    ("grades", "warned"), [([1, 2, 3], False), ([1, 3, 5000], True), ([50, 80, 100], False), ([1, 1, 10], False)]
)
def test_clicks_as_grades_get_a_warning_with_numbers(grades: list[float], warned: bool) -> None:
    lines = data_lines(figures(grades=grades), "data")
    assert (len(lines) == 2) == warned
    if warned:
        assert lines[1].startswith("! the relevant labels of [data] have grades from 1 to 5,000, the median is 3.")


def test_unusual_texts_get_a_line_each() -> None:
    odd = {"control": 1, "damaged": 2, "long": 3, "longest": [5_242_880, "i7"]}
    lines = data_lines(figures(texts={"items": odd, "queries": figures()["texts"]["queries"]}), "data")
    assert [line[:2] for line in lines[1:]] == ["! "] * 3
    assert "1 of the items hold control characters" in lines[1]
    assert "2 of the items hold the character U+FFFD" in lines[2]
    assert "the longest ('i7') has 5,242,880" in lines[3]


def test_queries_without_a_negative_are_told() -> None:
    assert "4 training queries have every item" in data_lines(figures(train_queries_with_all_relevant=4), "data")[1]
