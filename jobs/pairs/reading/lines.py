"""JSON lines as flat tables. Blocks are parsed by Arrow, with the types that their first lines have; a block that does not fit is
read line by line, and what cannot be read is counted, with one example of each fault.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from cluster.errors import DataError, one_paragraph
from cluster.storage.store import Store
from jobs.pairs.reading.columns import canonical_columns, shape_for
from jobs.pairs.reading.leaves import Kind, Leaf, Shape, leaves_of, nested
from jobs.pairs.reading.notes import Notes
from jobs.pairs.reading.sources import Piece, line_blocks
from jobs.pairs.reading.values import ITEMS, TYPES, canonical

BLOCK_BYTES = 16 * 2**20
HEAD_LINES = 100
BAD_SHARE = 0.2
"""Share of lines that cannot be read from which a file is refused: it is of another kind, or cut everywhere."""


def line_tables(store: Store, piece: Piece, mapped: Mapping[str, str], notes: Notes) -> Iterator[tuple[Shape, pa.Table]]:
    try:
        with store.open(piece.name) as stream:
            blocks = _unpacked(stream) if piece.name.endswith(".gz") else line_blocks(stream, piece, BLOCK_BYTES)
            for offset, block in blocks:
                lines = sum(1 for line in block.split(b"\n") if line.strip())
                notes.rows += lines
                yield from _block(block, f"{piece.url}, byte {offset:,}", piece.url, mapped, notes, lines)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{piece.url} is not a readable gzip file ({one_paragraph(str(error))}); it may be cut off: write it again, or take "
            f"it out"
        ) from error
    bad = notes.unreadable
    if bad > 20 and bad > BAD_SHARE * notes.rows:
        reason, count = notes.skipped.most_common(1)[0]
        raise DataError(
            f"{piece.url}: expected a log with a JSON object in each line, found {bad:,} of {notes.rows:,} lines that cannot be "
            f"read, mostly: {reason} ({count:,}; {notes.examples.get(reason, 'no example')}); write the file again, or take "
            f"it out"
        )


def _unpacked(stream: Any) -> Iterator[tuple[int, bytes]]:
    at = 0
    with gzip.GzipFile(fileobj=stream) as unpacked:
        while block := unpacked.read(BLOCK_BYTES):
            block += unpacked.readline() if not block.endswith(b"\n") else b""
            yield at, block
            at += len(block)


def _block(
    block: bytes, where: str, url: str, mapped: Mapping[str, str], notes: Notes, lines: int
) -> Iterator[tuple[Shape, pa.Table]]:
    head = [row for line in block.split(b"\n", HEAD_LINES)[:HEAD_LINES] if (row := _parsed(line)[0]) is not None]
    names = list(dict.fromkeys(name for row in head for name in row))
    if not names and lines <= 20:  # nothing here can be read; a whole file of that is refused by its share
        shape: Shape = "ubi"
    else:
        shape = shape_for(names, mapped, url) if names else "ubi"
    leaves = leaves_of(shape, mapped)
    if head and shape != "retrieval_eval":
        try:
            schema = pa.schema(_fields(head, leaves))
            options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pj.read_json(io.BytesIO(block), read_options=pj.ReadOptions(block_size=1 << 22), parse_options=options)
            if table.num_rows == lines:
                yield canonical_columns(shape, table, url, mapped, notes)
                return
        except (pa.ArrowException, UnicodeDecodeError):
            pass  # line by line: some are of another type, or damaged
    yield shape, _slowly(block, leaves, where, notes)


def _fields(head: list[dict[str, Any]], leaves: Mapping[str, Leaf]) -> list[pa.Field]:
    """Arrow's schema of the fields that are read, with the types of the first lines."""
    tree: dict[str, Any] = {}
    for leaf in leaves.values():
        for path in leaf.paths:
            if any(path in row for row in head) and "." in path:
                raise pa.ArrowInvalid("a name with dots")
            *levels, last = path.split(".")
            inner = tree
            for level in levels:
                inner = inner.setdefault(level, {})
                if not isinstance(inner, dict):
                    break
            else:
                value = next((value for row in head if (value := nested(row, path)) is not None), None)
                if value is not None or not isinstance(inner.get(last), dict):
                    inner[last] = _type(value, leaf.kind)
    return [pa.field(name, _arrow(value)) for name, value in tree.items()]


def _arrow(value: Any) -> pa.DataType:
    if isinstance(value, dict):
        return pa.struct([pa.field(name, _arrow(inner)) for name, inner in value.items()])
    return value


def _type(value: Any, kind: Kind) -> pa.DataType:
    if kind == "ids":
        inner = next((one for one in value if one is not None), None) if isinstance(value, list) else None
        if isinstance(inner, dict):
            raise pa.ArrowInvalid("objects with ids")
        return pa.list_(pa.int64() if isinstance(inner, int) else pa.string())
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and kind in ("id", "time"):
        return pa.int64()
    if isinstance(value, int | float) or kind == "number":
        return pa.string() if isinstance(value, str) else pa.float64()
    return pa.string()


def _parsed(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """(the object of a line, "") or (None, what is wrong with it)."""
    if not line.strip():
        return None, ""
    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_no_twice)
    except (ValueError, RecursionError, _TwiceError) as error:  # UnicodeDecodeError is a ValueError
        return None, next(reason for kind, reason in FAULTS.items() if isinstance(error, kind))
    if not isinstance(value, dict):
        return None, "line is not a JSON object"
    inner = value.get("_source")
    return (inner if isinstance(inner, dict) else value), ""


class _TwiceError(Exception):
    """A key occurs twice; raised inside the JSON parser."""


FAULTS: Mapping[type[Exception], str] = {
    UnicodeDecodeError: "line is not UTF-8",
    RecursionError: "line is nested too deeply",
    _TwiceError: "line has a key twice",
    ValueError: "line is not JSON",
}


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _TwiceError
    return value


def _slowly(block: bytes, leaves: Mapping[str, Leaf], where: str, notes: Notes) -> pa.Table:
    """A block line by line: a line that cannot be read is left out and counted, and so is a value of another type."""
    columns: dict[str, list[Any]] = {name: [] for name in leaves}
    for number, line in enumerate(block.split(b"\n"), start=1):
        row, reason = _parsed(line)
        if reason:
            notes.unreadable += 1
            notes.skip(reason, 1, f"{where}, line {number} from there")  # its content may name a user
        if row is None:
            continue
        for name, leaf in leaves.items():
            value = next((value for path in leaf.paths if (value := nested(row, path)) is not None), None)
            columns[name].append(_value(value, leaf.kind, name, notes))
    raw = {name: pa.array(values, RAW[leaves[name].kind]) for name, values in columns.items()}
    return pa.table({name: canonical(raw[name], leaf.kind, name, where, notes.values) for name, leaf in leaves.items()})


def _value(value: Any, kind: Kind, name: str, notes: Notes) -> Any:
    """A JSON value as `canonical` reads it; None where it is of another type, which is counted."""
    if value is None:
        return None
    if kind == "ids" and isinstance(value, list):
        return [_id(one, name, notes) for one in value]
    if kind == "items" and isinstance(value, list):
        return [
            {"item_id": str(one["item_id"]), "relevant": bool(one.get("relevant"))}
            for one in value
            if isinstance(one, dict) and "item_id" in one
        ]
    if kind in ("id", "text") and not isinstance(value, list | dict | bool):
        return _id(value, name, notes) if kind == "id" or isinstance(value, str) else _of_other_type(name, notes)
    if kind in ("time", "number", "feedback") and isinstance(value, bool | int | float | str):
        return value if isinstance(value, str) else ("true" if value else "false") if isinstance(value, bool) else repr(value)
    return _of_other_type(name, notes)


def _id(value: Any, name: str, notes: Notes) -> str | None:
    if isinstance(value, dict):
        value = next((value[key] for key in ("item_id", "id", "doc_id") if key in value), None)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return _of_other_type(name, notes)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _of_other_type(name, notes)


def _of_other_type(name: str, notes: Notes) -> str | None:
    notes.values[f"{name} is of another type"] += 1
    return None


RAW: Mapping[Kind, pa.DataType] = {kind: pa.string() for kind in TYPES} | {"ids": pa.list_(pa.string()), "items": ITEMS}
"""The types of values that were read line by line, before they are brought into one form."""
