"""The texts of rows and their codes: whole columns at a time where texts are plain ASCII, the others one by one, alike."""

from __future__ import annotations

import functools
import hashlib
import re
import string
import sys
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.tables.tables import I64, offsets_of
from jobs.config.templates import Template
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.texts import PLAIN
from jobs.stages.ingest.reading.values import one_array

ASCII_PUNCTUATION = {
    ord(character): " " for character in string.punctuation if unicodedata.category(character).startswith("P")
} | {ord("'"): None}
SPACE = ord(" ")
LETTERS = np.array([ASCII_PUNCTUATION.get(code, chr(code).lower() if code < 128 else "?") or "\0" for code in range(256)])
LETTERS = LETTERS.view(np.uint32).astype(np.uint8)
"""Of each byte of an ASCII text, what it is in the normalised one; 0: nothing."""
VANISHING = re.compile("['\u2018\u2019\u02bc\u00ad\u200b\u2060\ufeff]")
"""Apostrophes, and what no reader sees: soft hyphen, zero-width space, word joiner, byte-order mark."""


def stable_code(text: str) -> int:
    """A 63-bit number that is the same for the same text on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def normalise(text: str) -> str:
    """What two duplicate texts have in common: the words, without case, punctuation and extra white space.

    Compared as Unicode compares them (NFKC and case folding): "Ｃａｆé" is "cafe\u0301", "Straße" is "STRASSE". Apostrophes
    vanish ("don’t" is "dont"), other punctuation (Unicode P) parts words as a space does ("A/B" is "a, b" but not "ab").
    Symbols (Unicode S: +, $, =, emoji) are part of a text. Of a text without words the punctuation stays, so that two of
    them are equal only where they are, white space and case aside.
    """
    words = text.lower().translate(ASCII_PUNCTUATION) if text.isascii() else _fold(text)
    return " ".join(words.split()) or " ".join(text.lower().split())


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _punctuation().sub(" ", VANISHING.sub("", folded))


@functools.cache
def _punctuation() -> re.Pattern[str]:
    """Every character of a Unicode category P, as ranges."""
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")]
    starts = [code for code, before in zip(codes, [-2, *codes], strict=False) if code != before + 1]
    stops = [code for code, after in zip(codes, [*codes[1:], -2], strict=True) if code != after - 1]
    ranges = (f"\\U{start:08x}-\\U{stop:08x}" for start, stop in zip(starts, stops, strict=True))
    return re.compile(f"[{''.join(ranges)}]+")


def text_codes(texts: pa.Array) -> I64:
    """[N] the `stable_code` of each normalised text."""
    plain = pc.match_substring_regex(texts, PLAIN)
    words = plain_words(texts)
    others = pc.invert(pc.and_(plain, pc.not_equal(words, b"")))
    if pc.any(others).as_py():
        slow = [normalise(text).encode() for text in texts.filter(others).to_pylist()]
        words = pc.replace_with_mask(words, others, pa.array(slow, words.type))
    digests = b"".join([hashlib.blake2b(word, digest_size=8).digest() for word in words.to_pylist()])
    return (np.frombuffer(digests, ">u8") >> np.uint64(1)).astype(np.int64)


def plain_words(texts: pa.Array) -> pa.Array:
    """What `normalise` makes of texts that are PLAIN, whole columns at a time; of another text, anything. large_binary.

    A regular expression takes three times as long.
    """
    texts = texts.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    letters = LETTERS[np.frombuffer(b"" if data is None else data, np.uint8)[offsets[0] : offsets[-1]]]
    lengths = np.diff(offsets)
    letters, lengths = _without(letters, lengths, letters == 0)
    space = letters == SPACE
    again = np.append(False, space[:-1])[: len(space)]
    again[offsets_of(lengths)[:-1][lengths > 0]] = True
    letters, lengths = _without(letters, lengths, space & again)
    ends = offsets_of(lengths)[1:][lengths > 0] - 1
    last = np.zeros(len(letters), bool)
    last[ends] = letters[ends] == SPACE
    letters, lengths = _without(letters, lengths, last)
    borders = pa.py_buffer(offsets_of(lengths))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(texts), [None, borders, pa.py_buffer(letters)])


def _without(letters: npt.NDArray[np.uint8], lengths: I64, left_out: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], I64]:
    """Texts of these lengths, laid end to end, without some of their letters."""
    if not left_out.any():
        return letters, lengths
    gone, full = np.zeros(len(lengths), np.int64), lengths > 0
    gone[full] = np.add.reduceat(left_out, offsets_of(lengths)[:-1][full], dtype=np.int64)
    return letters[~left_out], lengths - gone


def render(table: pa.Table, template: Template, chunk: Chunk) -> pa.Array:
    """The text of each row. Raises DataError: a column of the template holds objects."""
    fields = [name for name in dict.fromkeys(template.fields) if name in table.column_names]
    if not fields or not all(pa.types.is_string(table[name].type) for name in fields):
        return pa.array(texts_of(table, template, chunk), pa.string())
    values = {name: pc.fill_null(one_array(table[name]), "") for name in fields}
    plain = [pc.or_(pc.equal(value, ""), pc.match_substring_regex(value, PLAIN)) for value in values.values()]
    others = pc.invert(functools.reduce(pc.and_, plain))
    texts = template.render_columns(values)
    if pc.any(others).as_py():
        slow = texts_of(table.filter(others), template, chunk)
        texts = pc.replace_with_mask(texts, others, pa.array(slow, pa.string()))
    return texts


def texts_of(table: pa.Table, template: Template, chunk: Chunk) -> list[str]:
    """The text of each row. Raises DataError: a column of the template holds objects."""
    fields = [name for name in dict.fromkeys(template.fields) if name in table.column_names]
    if not fields:
        return [""] * table.num_rows
    for name in fields:
        if _holds_objects(table[name].type):
            raise DataError(
                f"{chunk.file}: the template of [data] needs texts, numbers or lists of them, found {table[name].type} in the "
                f"column {name!r}; write as columns of their own what belongs into the text"
            )
    values = [table[name].to_pylist() for name in fields]
    return [template.render(dict(zip(fields, row, strict=True))) for row in zip(*values, strict=True)]


def _holds_objects(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_objects(kind.value_type)
    return bool(pa.types.is_struct(kind) or pa.types.is_map(kind))
