"""What items have in common by the codes of their texts, without all of these in one process.

A task reads the codes of all items, 8 bytes each, and keeps those of its range of codes: items of one code are in one task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.session.spread import spread_all
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, Part, column_to_vectors, read_part, stream_parts, write_part
from jobs.stages.ingest.items import Items
from jobs.stages.ingest.texts import stable_code

SAME_VECTOR = 0.999
"""Least cosine of two vectors of one text that came with the data: it was encoded twice, in other batches perhaps."""
RANGE_CODES = 4_000_000
"""Codes that one task holds, about."""
LARGEST = 2**63
"""Codes are below it, and spread evenly."""
AT_ONCE = 64
"""Parts of codes that one task looks through."""


@dataclass(frozen=True)
class ItemTexts:
    """Codes of the items whose texts play a part: those with a label or the text of a query, and all that share one with them."""

    rows: I64
    """Ascending."""
    codes: I64
    repeated: int = 0
    """Of all items, those whose text another one has, too."""

    def of(self, rows: I64) -> I64:
        """The codes of some of these items."""
        return self.codes[np.searchsorted(self.rows, rows)]


@dataclass(frozen=True)
class Shared:
    """Items of a range of codes."""

    repeated: int
    """Items whose code another one has, too."""
    codes: int
    """Different codes."""
    later: I64
    """Rows of items whose code an item before them has, ascending; where it was asked for."""
    first: I64
    """The first item with the code of each of these."""


def shared_codes(store: Store, codes: Sequence[Part], retries: int, *, rows: bool = False) -> Shared:
    """Which items have one code.

    Args:
        rows: also say which items; else only count.
    """
    count = max(1, -(-sum(part.rows for part in codes) // RANGE_CODES))
    borders = [LARGEST * number // count for number in range(count + 1)]
    ranges = [(store, codes, borders[number], borders[number + 1], rows) for number in range(count)]
    found = spread_all(shared_in_range, ranges, retries=retries)
    later, first = (np.concatenate([getattr(each, name) for each in found]) for name in ("later", "first"))
    order = np.argsort(later, kind="stable")
    return Shared(sum(each.repeated for each in found), sum(each.codes for each in found), later[order], first[order])


def shared_in_range(store: Store, codes: Sequence[Part], start: int, stop: int, rows: bool) -> Shared:
    """As `shared_codes`, of the codes start … stop - 1."""
    kept, where = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for part, table in stream_parts(store, codes, ["text_code"]):
        values = table["text_code"].to_numpy()
        inside = np.flatnonzero((values >= start) & (values <= stop - 1))
        kept.append(values[inside])
        if rows:
            where.append(inside + part.first_row)
    values = np.concatenate(kept)
    kept.clear()
    order = np.argsort(values, kind="stable")
    values = values[order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(values)))
    later = first = np.zeros(0, np.int64)
    if rows:
        every = np.concatenate(where)[order]
        again = np.ones(len(values), bool)
        again[starts] = False
        later, first = every[again], np.repeat(every[starts], lengths - 1)
    return Shared(int(lengths[lengths > 1].sum()), len(starts), later, first)


def texts_of_items(store: Store, codes: Sequence[Part], rows: I64, wanted: I64, repeated: int, retries: int) -> ItemTexts:
    """The items of some rows, and all whose code is one of theirs or of `wanted`.

    Args:
        repeated: as of `ItemTexts`.
    """
    own = codes_of(store, codes, np.unique(rows))
    all_wanted = np.unique(np.concatenate([own, wanted]))
    pieces = [(store, codes[start : start + AT_ONCE], all_wanted) for start in range(0, len(codes), AT_ONCE)]
    found = spread_all(items_with, pieces, retries=retries)
    return ItemTexts(np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found]), repeated)


def items_with(store: Store, codes: Sequence[Part], wanted: I64) -> tuple[I64, I64]:
    """(rows, codes) of the items of these parts whose code is one of `wanted`, which ascend."""
    rows, kept = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for part, table in stream_parts(store, codes, ["text_code"]):
        values = table["text_code"].to_numpy()
        inside = np.flatnonzero(_among(values, wanted))
        rows.append(inside + part.first_row)
        kept.append(values[inside])
    return np.concatenate(rows), np.concatenate(kept)


def _among(values: I64, wanted: I64) -> npt.NDArray[np.bool_]:
    if not len(wanted):
        return np.zeros(len(values), bool)
    same: npt.NDArray[np.bool_] = wanted[np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)] == values
    return same


def codes_of(store: Store, codes: Sequence[Part], rows: I64) -> I64:
    """The text codes of some items."""
    found: I64 = read_rows(store, codes, rows, ["text_code"])["text_code"].to_numpy()
    return found


def tell_apart(store: Store, items: Items, retries: int) -> tuple[Items, Shared]:
    """The items, where one with another vector than the first item of its text gets a text code of its own: to an encoder that
    reads vectors they are two things, whatever their texts (a category, say) have in common. And which of them share a code now.
    """
    shared = shared_codes(store, items.codes, retries, rows=True)
    numbers, pieces = [], []
    firsts = np.array([part.first_row for part in items.corpus])
    for number, part in enumerate(items.corpus):
        inside = slice(*np.searchsorted(shared.later, [part.first_row, part.first_row + part.rows]))
        if inside.start < inside.stop:
            numbers.append(number)
            later, first = shared.later[inside], shared.first[inside]
            # a list of all parts would take longer to look through than the vectors to read
            named = np.unique(np.searchsorted(firsts, np.append(first, part.first_row), side="right") - 1)
            pieces.append((store, [items.corpus[each] for each in named.tolist()], items.codes[number], later, first))
    own = spread_all(own_codes, pieces, retries=retries)
    changed = [(number, *codes) for number, codes in zip(numbers, own, strict=True) if len(codes[0])]
    if not changed:
        return items, shared
    codes = list(items.codes)
    arguments = [(store, codes[number], rows, values) for number, rows, values in changed]  # all are read before one is changed
    for (number, *_), part in zip(changed, spread_all(with_codes, arguments, retries=retries), strict=True):
        codes[number] = part
    return replace(items, codes=codes), shared_codes(store, codes, retries)


def own_codes(store: Store, corpus: Sequence[Part], codes: Part, later: I64, first: I64) -> tuple[I64, I64]:
    """(rows, new codes) of the items of a part whose vector is another than that of the first item of their text.

    Args:
        corpus: the parts that hold these items.
    """
    other = later[~same_vectors(store, corpus, later, first)]
    known = read_part(store, codes, ["text_code"])["text_code"].to_numpy()[other - codes.first_row]
    values = [stable_code(f"{code}:{row}") for code, row in zip(known.tolist(), other.tolist(), strict=True)]
    return other, np.array(values, np.int64)


def with_codes(store: Store, part: Part, rows: I64, codes: I64) -> Part:
    """The part, written again with other text codes of some rows."""
    table = read_part(store, part.path)  # without its digest: a task that died may have written it
    values = table["text_code"].to_numpy().copy()
    values[rows - part.first_row] = codes
    table = table.set_column(table.column_names.index("text_code"), "text_code", pa.array(values))
    return write_part(store, part.path, table, first_row=part.first_row)


def same_vectors(store: Store, parts: Sequence[Part], left: I64, right: I64) -> npt.NDArray[np.bool_]:
    """[R] whether the vectors of two rows each are about the same."""
    own, like = (column_to_vectors(read_rows(store, parts, rows, ["vector"])["vector"]) for rows in (left, right))
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(like, axis=1)
    same: npt.NDArray[np.bool_] = (own * like).sum(axis=1) >= SAME_VECTOR * lengths
    return same
