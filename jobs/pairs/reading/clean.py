"""Texts of queries: their white space, and which of them cannot be used."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.pairs.reading.notes import Notes

LONGEST = 1000
"""Characters of a query; what is longer was pasted."""
PERSONAL = r"[\w.+-]+@[\w-]+\.\w+|(?:\+?\d[\s()./-]?){9,}"
"""An e-mail address, or a number as long as a telephone's or an account's."""


def with_text(flat: pa.Table, notes: Notes, name: str) -> pa.Table:
    """The rows that have a query that can be used, its white space cleaned."""
    texts = cleaned(flat[name])
    flat = flat.set_column(flat.column_names.index(name), name, texts)
    kept = usable(texts, notes)
    notes.skip("no query text", int(pc.sum(pc.is_null(texts)).as_py() or 0))
    return flat.filter(pc.fill_null(kept, False))


def cleaned(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """White space as single spaces; null where nothing can be seen."""
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[\s\x00-\x1f\x7f]+", " "))
    seen = pc.match_substring_regex(plain, r"[^\s\p{C}\p{Z}]")
    return pc.if_else(pc.fill_null(seen, False), plain, pa.scalar(None, plain.type))


def usable(texts: pa.ChunkedArray, notes: Notes) -> pa.ChunkedArray:
    """Whether each text can be a query; null where there is none."""
    long = pc.greater(pc.utf8_length(texts), LONGEST)
    personal = pc.and_(pc.match_substring_regex(texts, PERSONAL), pc.invert(long))
    notes.skip(f"query text longer than {LONGEST:,} characters", int(pc.sum(long).as_py() or 0))
    notes.skip("query text with an e-mail address or a long number", int(pc.sum(personal).as_py() or 0))
    return pc.invert(pc.or_(long, personal))
