"""Texts as words in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.sources.words import words


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("The cat, a CAT & 1 x_y!", ["the", "cat", "a", "cat", "1", "x_y"]),  # nothing is too short or too frequent
        ("don't A-1", ["don", "t", "a", "1"]),
        ("Привет, МИР! я", ["привет", "мир", "я"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs belong to the word
        ("Straße CAFE\u0301 Ｆｕｌｌ", ["strasse", "café", "full"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("黑猫。好", ["黑", "猫", "黑猫", "好"]),
        ("ﾈｺ cat猫", ["ネ", "コ", "ネコ", "cat", "猫"]),
        ("학교에", ["학", "교", "에", "학교", "교에"]),
        ("ไทย 5", ["ไ", "ท", "ย", "ไท", "ทย", "5"]),
        ("", []),
        ("!!! … ,", []),
    ],
)
def test_words_of_many_scripts(text: str, want: list[str]) -> None:
    assert words(text) == want


@pytest.mark.parametrize(
    ("one", "other"), [("黑猫が好き", "白い黑猫"), ("학교에서", "학교는"), ("ПРИВЕТ мир", "мира привет"), ("हिन्दी", "में हिन्दी")]
)
def test_related_texts_share_a_word(one: str, other: str) -> None:
    assert set(words(one)) & set(words(other))


@given(st.text(max_size=40))
def test_case_form_and_punctuation_around_do_not_matter_and_no_letter_is_lost(text: str) -> None:
    found = words(text)
    assert found == words(f" .{text}! ")
    assert found == words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    letters = {character for character in unicodedata.normalize("NFKC", text).casefold() if character.isalnum()}
    assert letters <= set("".join(found))
    assert all(found), "no empty word"
