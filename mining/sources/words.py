"""Texts as words that can be matched in any script."""

from __future__ import annotations

import functools
import re
import unicodedata

UNSPACED = "".join(
    (
        "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",  # Han
        "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff",  # kana
        "\uac00-\ud7a3",  # Hangul: it has spaces, but its particles cling to the words
        "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece",  # Thai, Lao
        "\u1000-\u103f\u1050-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd",  # Burmese, Khmer
    )
)
"""Scripts in which spaces do not tell the words."""
ASCII = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, in their order, for matching by words.

    Compared as Unicode compares them (NFKC, case folding). A word is a run of letters, digits and the marks on them: `\\w`
    of Python leaves out the vowel signs of Hindi, for one. Nothing is left out for being short or frequent. A run of a
    script in which spaces do not tell the words (Chinese, Japanese, Korean, Thai, …) gives each of its characters and each
    pair of neighbours: a sentence taken for one word would equal no other.
    """
    if text.isascii():
        return ASCII.findall(text.lower())
    found: list[str] = []
    for run in _pattern().finditer(unicodedata.normalize("NFKC", text).casefold()):
        token = run.group()
        if run.lastgroup == "spaced":
            found.append(token)
        else:
            found += token
            found += (token[place : place + 2] for place in range(len(token) - 1))
    return found


@functools.cache
def _pattern() -> re.Pattern[str]:
    marks = "".join(
        chr(code)
        for code in range(0x300, 0x11800)  # what lies above are the marks of unwritten scripts
        if unicodedata.category(chr(code)).startswith("M") and not re.match(f"[{UNSPACED}]", chr(code))
    )
    letter = f"[^\\W{UNSPACED}]"
    # whole runs of letters first: a word without a mark, nearly all of them, is one step
    return re.compile(f"(?P<spaced>{letter}+(?:[{marks}]+{letter}*)*)|(?P<unspaced>[{UNSPACED}]+)")
