"""What is unusual inside texts: nothing that can be seen, control characters, damage, and more than a model reads."""

from __future__ import annotations

import functools
import re
import sys
from collections import Counter
from typing import Any
from unicodedata import category

import pyarrow as pa
import pyarrow.compute as pc

LONG = 100_000
"""Characters above which a text is counted as long: twenty times what the longest encoders read."""
PLAIN = "^[!-~]+( [!-~]+)*$"
"""A text of printable ASCII with single spaces: nothing in it is unusual."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
BLANK = "\u034f\u115f\u1160\u2800\u3164\uffa0\ufe00-\ufe0f"
"""Letters and marks that show nothing: fillers, the empty Braille pattern, variation selectors."""
DAMAGED = "\ufffd"
"""What a decoder writes for bytes that it could not read."""


@functools.cache
def _invisible() -> re.Pattern[str]:
    """Control and format characters (zero-width space, byte-order mark), spaces, and BLANK."""
    kinds = ("Cc", "Cf", "Zs", "Zl", "Zp")
    return re.compile(f"[{''.join(chr(code) for code in range(sys.maxunicode + 1) if category(chr(code)) in kinds)}{BLANK}]*")


class TextNotes:
    """Cleans the texts of a table, chunk by chunk, and counts what was unusual."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._longest = (0, "")

    def take(self, texts: pa.Array, ids: pa.Array) -> pa.Array:
        """The texts to keep: control characters count as white space, a text of which nothing is visible is empty.

        Args:
            texts: without white space at their ends. ids: of the same rows.
        """
        others = pc.invert(pc.match_substring_regex(texts, PLAIN))
        if pc.any(others).as_py():
            cleaned = [self._clean(text) for text in texts.filter(others).to_pylist()]
            texts = pc.replace_with_mask(texts, others, pa.array(cleaned, texts.type))
        lengths = pc.utf8_length(texts).to_numpy()
        self._counts["long"] += int((lengths > LONG).sum())
        row = int(lengths.argmax())
        if lengths[row] > self._longest[0]:
            self._longest = (int(lengths[row]), ids[row].as_py())
        return texts

    def add(self, other: TextNotes) -> None:
        """Count what was unusual in later rows, too."""
        self._counts.update(other._counts)
        if other._longest[0] > self._longest[0]:
            self._longest = other._longest

    def _clean(self, text: str) -> str:
        if CONTROL.search(text):
            self._counts["control"] += 1
            text = " ".join(CONTROL.sub(" ", text).split())
        if _invisible().fullmatch(text):
            return ""
        self._counts["damaged"] += DAMAGED in text
        return text

    @property
    def figures(self) -> dict[str, Any]:
        """Counts of texts: "control" and "damaged" characters, "long"; and the "longest" as [characters, id]."""
        return {name: self._counts[name] for name in ("control", "damaged", "long")} | {"longest": list(self._longest)}
