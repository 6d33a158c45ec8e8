"""Rows of a user's file that say where they are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

CHUNK_ROWS = 65_536
CHUNK_BYTES = 32 * 2**20
"""Rows and bytes that are read at a time, at most; of a text file the lines."""


SCORE_NAMES = frozenset(
    {"score", "label", "relevance", "relevancy", "rel", "rating", "grade", "gain", "qrel", "judgement", "judgment"}
)
"""What the score of a label is called elsewhere, in lower case; BEIR says score."""


NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
"""A number as JSON writes it: the one form of a number in a text. Not 1_0, 0x1, nan, or digits of another script."""


BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source file."""

    file: str
    first_row: int
    """Number of the first row in the file, from 1 (the line number of a JSONL or TSV file; in CSV the header is row 1)."""
    table: pa.Table

    def where(self, row: Any, ids: pa.Array | None = None) -> str:
        """A row, counted from 0, for a message: the file, its number there and, if the ids are known, its id."""
        name = "" if ids is None else f" (id {ids[int(row)].as_py()!r})"
        return f"{self.file}, row {self.first_row + int(row)}{name}"


def start_of(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()[:80]
