"""Values of a log's fields in one form: ids and texts as strings, times as milliseconds, numbers as doubles.

What is wrong is null, and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from jobs.pairs.reading.leaves import Kind
from jobs.stages.ingest.reading.values import as_texts

ITEMS = pa.list_(pa.struct([("item_id", pa.string()), ("relevant", pa.bool_())]))
TYPES: Mapping[Kind, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "time": pa.int64(),
    "number": pa.float64(),
    "feedback": pa.float64(),
    "ids": pa.list_(pa.string()),
    "items": ITEMS,
}
ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?\s?(Z|UTC|[+-]\d\d(:?\d\d)?)?)?$"
ZONE = r"([Z]|UTC|[+-]\d\d(:?\d\d)?)$"
EARLIEST, LATEST = 631_152_000_000, 4_102_444_800_000
"""Milliseconds of 1990 and 2100: a time outside was written in another unit, or is damaged."""
UP = {"up", "positive", "good", "like", "thumbs_up", "yes", "true", "1", "+1", "1.0"}
DOWN = {"down", "negative", "bad", "dislike", "thumbs_down", "no", "false", "-1", "-1.0"}


def canonical(values: pa.Array, kind: Kind, name: str, where: str, counts: Counter[str]) -> pa.Array:
    """A column in the form of its kind.

    Args:
        counts: how many values had to be left out, by reason; added to.

    Raises:
        DataError: the column's type cannot be of that kind.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), TYPES[kind])
    if kind in ("id", "text"):
        return _strings(values, kind, name, where)
    if kind == "time":
        return _times(values, name, where, counts)
    if kind == "ids":
        return _ids(values, name, where, counts)
    if kind == "items":
        return values.cast(ITEMS)
    return _numbers(values, kind, name, where, counts)


def _strings(values: pa.Array, kind: Kind, name: str, where: str) -> pa.Array:
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not text and (kind == "text" or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type))):
        wanted = "texts" if kind == "text" else "texts or whole numbers"
        raise DataError(f"{where}: expected {wanted} in {name!r}, found {values.type}; write them so, or map another column")
    texts = pc.utf8_trim_whitespace(as_texts(values))
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _numbers(values: pa.Array, kind: Kind, name: str, where: str, counts: Counter[str]) -> pa.Array:
    if pa.types.is_boolean(values.type) and kind == "feedback":
        return pc.if_else(values, 1.0, -1.0)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        if kind == "feedback":
            return _feedback(values, counts)
        good = pc.match_substring_regex(values, r"^\s*-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*$")
        _count(counts, f"{name} is no number", pc.and_(pc.is_valid(values), pc.invert(good)))
        values = pc.utf8_trim_whitespace(pc.if_else(good, values, pa.scalar(None, values.type))).cast(pa.float64())
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        values = values.cast(pa.float64(), safe=False)
    else:
        raise DataError(f"{where}: expected numbers in {name!r}, found {values.type}; write them so, or map another column")
    finite = pc.is_finite(values)
    _count(counts, f"{name} is not finite", pc.invert(finite))
    values = pc.if_else(finite, values, pa.scalar(None, pa.float64()))
    return pc.sign(values) if kind == "feedback" else values


def _feedback(values: pa.Array, counts: Counter[str]) -> pa.Array:
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    up, down = (pc.is_in(lower, value_set=pa.array(sorted(words), lower.type)) for words in (UP, DOWN))
    _count(counts, "feedback is neither up nor down", pc.and_(pc.is_valid(lower), pc.invert(pc.or_(up, down))))
    return pc.if_else(up, 1.0, pc.if_else(down, -1.0, pa.scalar(None, pa.float64())))


def _ids(values: pa.Array, name: str, where: str, counts: Counter[str]) -> pa.Array:
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type)):
        raise DataError(f"{where}: expected lists of ids in {name!r}, found {values.type}; write them as lists")
    if pa.types.is_struct(values.type.value_type):  # {"id": …, "score": …}
        inner = next((field for field in ("item_id", "id", "doc_id") if values.type.value_type.get_field_index(field) >= 0), None)
        if inner is None:
            raise DataError(f"{where}: expected ids, or objects with an `id`, in {name!r}, found {values.type}; write them so")
        lists = values.cast(pa.list_(values.type.value_type))
        flat = pc.struct_field(lists.flatten(), inner)
        values = _rebuilt(lists, flat)
    lists = values.cast(pa.list_(values.type.value_type))
    flat = lists.flatten()
    texts = pa.nulls(len(flat), pa.string()) if pa.types.is_null(flat.type) else _strings(flat, "id", name, where)
    _count(counts, f"{name} has an empty id", pc.is_null(texts))
    return _rebuilt(lists, texts)


def _rebuilt(lists: pa.ListArray, flat: pa.Array) -> pa.ListArray:
    """Lists of the same lengths with other values."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), flat)


def _times(values: pa.Array, name: str, where: str, counts: Counter[str]) -> pa.Array:
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        stamps = values.cast(
            pa.timestamp("ms", values.type.tz) if pa.types.is_timestamp(values.type) else pa.timestamp("ms"), safe=False
        )
        millis = stamps.cast(pa.int64())
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        millis = _epoch(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        millis = _written(values.cast(pa.string()), counts)
    else:
        raise DataError(f"{where}: expected times in {name!r}, found {values.type}; write them as ISO 8601 or as milliseconds")
    inside = pc.fill_null(pc.and_(pc.greater_equal(millis, EARLIEST), pc.less(millis, LATEST)), False)
    _count(counts, "time cannot be read, or is not between 1990 and 2100", pc.and_(pc.is_valid(values), pc.invert(inside)))
    return pc.if_else(inside, millis, pa.scalar(None, pa.int64()))


def _epoch(numbers: Any) -> pa.Array:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size."""
    with np.errstate(invalid="ignore"):
        size = np.abs(numbers)
        scale = np.select([size < 1e11, size < 1e14, size < 1e17], [1e3, 1.0, 1e-3], 1e-6)
        good = np.isfinite(numbers)
        millis = np.where(good, numbers * scale, 0).astype(np.int64)
    return pa.array(millis, mask=~good)


def _written(values: pa.Array, counts: Counter[str]) -> pa.Array:
    numeric = pc.fill_null(pc.match_substring_regex(values, r"^\d{9,19}(\.\d+)?$"), False)
    iso = pc.fill_null(pc.match_substring_regex(values, ISO), False)
    _count(counts, "time without a zone, read as UTC (kept)", pc.and_(iso, pc.invert(pc.match_substring_regex(values, ZONE))))
    epochs = _epoch(pc.if_else(numeric, values, pa.scalar(None, pa.string())).cast(pa.float64()).to_numpy(zero_copy_only=False))
    stamps = pc.if_else(iso, values, pa.scalar(None, pa.string()))
    try:
        zoned = pc.replace_substring_regex(pc.replace_substring(stamps, " UTC", "Z"), r"^(.{10,26}?)\s?$", r"\1")
        plain = pc.if_else(pc.match_substring_regex(zoned, ZONE), zoned, pc.binary_join_element_wise(zoned, "Z", ""))
        read = plain.cast(pa.timestamp("ms", "UTC"))
        millis = read.cast(pa.int64())
    except pa.ArrowInvalid:  # a 31st of June, microseconds: one by one
        millis = pa.array([_one_time(value) for value in stamps.to_pylist()], pa.int64())
    return pc.if_else(iso, millis, epochs)


def _one_time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        stamp = datetime.fromisoformat(text.replace(",", ".").replace(" UTC", "Z").strip())
    except ValueError:
        return None
    return math.floor((stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() * 1000)


def _count(counts: Counter[str], reason: str, wrong: pa.Array) -> None:
    number = int(pc.sum(pc.fill_null(wrong, False)).as_py() or 0)
    if number:
        counts[reason] += number
