"""A piece of a log as flat tables: a column for each field of its shape, in one form, whatever the file format.

JSON lines are parsed in blocks by Arrow with the types that the first lines of the block have; a block that does not fit is
read line by line, and what cannot be read is counted, with one example of each fault.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from cluster.errors import DataError, one_paragraph
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.pairs.reading.leaves import Kind, Leaf, Shape, leaves_of, nested, shape_of
from jobs.pairs.reading.sources import PARQUET, Piece, line_blocks, row_groups
from jobs.pairs.reading.values import ITEMS, TYPES, canonical
from jobs.stages.ingest.reading.files import read_chunks

BLOCK_BYTES = 16 * 2**20
HEAD_LINES = 100
ROWS = 200_000
"""Rows of a Parquet file that are read at a time."""
BAD_SHARE = 0.2
"""Share of lines that cannot be read from which a file is refused: it is of another kind, or cut everywhere."""


@dataclass
class Notes:
    """What was left out while a piece was read."""

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    values: Counter[str] = field(default_factory=Counter)
    """Reason -> values that are left out or read with a doubt, while their row is used."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> the first row that was left out for it."""

    def skip(self, reason: str, count: int, example: str = "") -> None:
        """Count rows that are not used."""
        if count:
            self.skipped[reason] += count
            if example:
                self.examples.setdefault(reason, example)


def flat_tables(
    piece: Piece, mapped: Mapping[str, str], storage: StorageSettings, notes: Notes
) -> Iterator[tuple[Shape, pa.Table]]:
    """(shape, flat table) of a piece, block by block.

    Raises:
        DataError: the file is not what its name says, or is of no shape that is known; names file and what was found.
    """
    store = Store(piece.root, storage)
    if piece.name.endswith(PARQUET):
        yield from _parquet(store, piece, mapped, notes)
    elif ".csv" in piece.name or ".tsv" in piece.name:
        for chunk in read_chunks(piece.url, storage):
            notes.rows += chunk.table.num_rows
            yield _columns(chunk.table, piece.url, mapped, notes)
    else:
        yield from _lines(store, piece, mapped, notes)


def _parquet(store: Store, piece: Piece, mapped: Mapping[str, str], notes: Notes) -> Iterator[tuple[Shape, pa.Table]]:
    try:
        with store.open(piece.name) as stream:
            file = pq.ParquetFile(stream)
            groups = row_groups(file, piece)
            names = file.schema_arrow.names
            shape = _shape(names, mapped, piece.url)
            tops = {path.split(".")[0] for leaf in leaves_of(shape, mapped).values() for path in (*leaf.paths, leaf.paths[0])}
            wanted = [name for name in names if name in tops or any(name in leaf.paths for leaf in leaves_of(shape, mapped).values())]
            for batch in file.iter_batches(ROWS, row_groups=list(groups), columns=wanted) if groups else ():
                notes.rows += batch.num_rows
                yield _columns(pa.Table.from_batches([batch]), piece.url, mapped, notes)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{piece.url} is not a readable Parquet file ({one_paragraph(str(error))[:200]}); it may be cut off or of another "
            f"kind: write it again, or take it out"
        ) from error


def _shape(names: list[str], mapped: Mapping[str, str], url: str) -> Shape:
    shape = shape_of(names, mapped)
    if shape is None:
        raise DataError(
            f"{url}: expected UBI queries (user_query) or events (action_name), answers (retrieved, cited), pairs (query, item_id, "
            f"score), retrieval_eval lines, or an event table, found the columns {', '.join(names[:12]) or 'none'}; name yours "
            f"under [columns] of the --config file, for example query = \"search_term\", item = \"product_id\", action = \"event\""
        )
    return shape


def _columns(table: pa.Table, url: str, mapped: Mapping[str, str], notes: Notes) -> tuple[Shape, pa.Table]:
    """A table of any columns as a flat one."""
    if "_source" in table.column_names and pa.types.is_struct(table["_source"].type):
        table = pa.Table.from_struct_array(table["_source"].combine_chunks())
    names = list(table.column_names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{url}: expected columns of different names, found {name!r} twice; rename one")
    return _columns_as(_shape(names, mapped, url), table, url, mapped, notes)


def _at(table: pa.Table, path: str) -> pa.Array | None:
    if path in table.column_names:
        return _one(table[path])
    first, *rest = path.split(".")
    if first not in table.column_names:
        return None
    values = _one(table[first])
    for name in rest:
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        values = pc.struct_field(values, name)
    return values


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _lines(store: Store, piece: Piece, mapped: Mapping[str, str], notes: Notes) -> Iterator[tuple[Shape, pa.Table]]:
    bad = 0
    try:
        with store.open(piece.name) as stream:
            blocks = _unpacked(stream) if piece.name.endswith(".gz") else line_blocks(stream, piece, BLOCK_BYTES)
            for offset, block in blocks:
                lines = sum(1 for line in block.split(b"\n") if line.strip())
                notes.rows += lines
                before = sum(notes.skipped.values())
                for part in _block(block, f"{piece.url}, byte {offset:,}", piece.url, mapped, notes, lines):
                    yield part
                bad += sum(notes.skipped.values()) - before
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{piece.url} is not a readable gzip file ({one_paragraph(str(error))}); it may be cut off: write it again, or take "
            f"it out"
        ) from error
    if bad > 20 and bad > BAD_SHARE * notes.rows:
        reason, count = notes.skipped.most_common(1)[0]
        raise DataError(
            f"{piece.url}: expected a log with a JSON object in each line, found {bad:,} of {notes.rows:,} lines that cannot be "
            f"read, mostly: {reason} ({count:,}; {notes.examples.get(reason, 'no example')}); write the file again, or take it out"
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
        shape = _shape(names, mapped, url) if names else "ubi"
    leaves = leaves_of(shape, mapped)
    if head and shape != "retrieval_eval":
        try:
            schema = pa.schema(_fields(head, leaves))
            options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pj.read_json(io.BytesIO(block), read_options=pj.ReadOptions(block_size=1 << 22), parse_options=options)
            if table.num_rows == lines:
                yield _columns_as(shape, table, url, mapped, notes)
                return
        except (pa.ArrowException, UnicodeDecodeError):
            pass  # line by line: some are of another type, or damaged
    yield shape, _slowly(block, leaves, where, notes)


def _columns_as(shape: Shape, table: pa.Table, url: str, mapped: Mapping[str, str], notes: Notes) -> tuple[Shape, pa.Table]:
    columns = {}
    for name, leaf in leaves_of(shape, mapped).items():
        arrays = [
            canonical(array, leaf.kind, f"{name} ({leaf.paths[0]})", url, notes.values)
            for path in leaf.paths
            if (array := _at(table, path)) is not None
        ]
        columns[name] = pc.coalesce(*arrays) if arrays else pa.nulls(table.num_rows, TYPES[leaf.kind])
    return shape, pa.table(columns)


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
    except UnicodeDecodeError:
        return None, "line is not UTF-8"
    except RecursionError:
        return None, "line is nested too deeply"
    except _TwiceError:
        return None, "line has a key twice"
    except ValueError:
        return None, "line is not JSON"
    if not isinstance(value, dict):
        return None, "line is not a JSON object"
    inner = value.get("_source")
    return (inner if isinstance(inner, dict) else value), ""


class _TwiceError(Exception):
    """A key occurs twice; raised inside the JSON parser."""


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
            notes.skip(reason, 1, f"{where}, line {number} from there: {line[:60].decode('utf-8', 'replace')!r}")
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
        return [{"item_id": str(one["item_id"]), "relevant": bool(one.get("relevant"))} for one in value if isinstance(one, dict) and "item_id" in one]
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


def _of_other_type(name: str, notes: Notes) -> None:
    notes.values[f"{name} is of another type"] += 1


RAW: Mapping[Kind, pa.DataType] = {kind: pa.string() for kind in TYPES} | {"ids": pa.list_(pa.string()), "items": ITEMS}
"""The types of values that were read line by line, before they are brought into one form."""
