"""What counts as agreement of metadata and as a tag in a text."""

from __future__ import annotations

import math

import pytest

from eval.results.leakage import agreement, leakage_row, tags_in_texts


def test_lists_agree_on_any_value_and_missing_values_make_no_pair() -> None:
    queries = [["crime"], ["crime", "noir"], ["crime"], [], ["poetry"]]
    items = [["crime"], ["noir", "war"], ["Crime"], ["crime"], []]
    assert agreement(queries, items) == (pytest.approx(2 / 3), 3)
    share, pairs = agreement([[]], [[]])
    assert math.isnan(share)
    assert pairs == 0


def test_a_tag_must_stand_in_the_text_as_whole_words() -> None:
    texts = ["A Sci Fi novel, for TEENS!", "the party", "the party", "anything", "café crime"]
    genres = [["sci-fi"], ["art"], ["party", "war"], [], ["Café", "crime"]]
    audience = [["adults"], [], ["the party"], [], []]
    assert tags_in_texts(texts, [genres]) == (2 / 4, 4)
    assert tags_in_texts(texts, [genres, audience]) == (3 / 4, 4), "all tags of some column"
    assert tags_in_texts(texts, [])[1] == 0


def test_a_row_holds_both_shares_and_the_relevant_pairs() -> None:
    assert leakage_row((0.9, 30), (0.1, 25)) == {"positives": 0.9, "random": 0.1, "pairs": 30}
