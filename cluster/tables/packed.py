"""Vectors as they lie in a part: one value of D numbers, not D values of a list.

Parquet stores for every number of a list where its list begins, and whether it is null. To write and read these levels takes 6
and 15 times as long as the numbers themselves. So a column of vectors is written as bytes of one length, little-endian; the
column's metadata says what they are. Only `tables` knows of it: whoever reads a part gets lists.
"""

from __future__ import annotations

import pyarrow as pa

VECTOR = b"hardmine.vector"
"""Key of a packed column's metadata; its value is the type of the numbers."""
NUMBERS = {str(kind): kind for kind in (pa.float16(), pa.float32(), pa.float64())}


def pack(table: pa.Table) -> pa.Table:
    """The table with its vectors packed; lists with a null in them stay lists."""
    for place, field in enumerate(table.schema):
        packed = _packed(table.column(place)) if _holds_vectors(field.type) else None
        if packed is not None:
            metadata = {**(field.metadata or {}), VECTOR: str(field.type.value_type).encode()}
            table = table.set_column(place, field.with_type(packed.type).with_metadata(metadata), packed)
    return table


def unpack(table: pa.Table) -> pa.Table:
    """The table with lists again; nothing is copied."""
    schema = unpack_schema(table.schema)
    for place, field in enumerate(schema):
        if field.type != table.schema.field(place).type:
            table = table.set_column(place, field, _unpacked(table.column(place), field.type))
    return table


def unpack_schema(schema: pa.Schema) -> pa.Schema:
    """The columns as `unpack` leaves them."""
    for place, field in enumerate(schema):
        metadata = dict(field.metadata or {})
        kind = NUMBERS.get(metadata.pop(VECTOR, b"").decode())
        if kind is not None:
            size = field.type.byte_width // (kind.bit_width // 8)
            schema = schema.set(place, field.with_type(pa.list_(kind, size)).with_metadata(metadata or None))
    return schema


def is_packed(field: pa.Field) -> bool:
    """Whether a column holds packed vectors."""
    return VECTOR in (field.metadata or {})


def _holds_vectors(kind: pa.DataType) -> bool:
    if not pa.types.is_fixed_size_list(kind) or not kind.list_size:
        return False
    return str(kind.value_type) in NUMBERS and str(kind) == str(pa.list_(kind.value_type, kind.list_size))


def _packed(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    kind = column.type
    width = kind.list_size * kind.value_type.bit_width // 8
    chunks = []
    for chunk in column.chunks:
        flat = chunk.flatten()
        if chunk.null_count or flat.null_count:
            return None
        data = flat.buffers()[1].slice(flat.offset * width // kind.list_size, len(chunk) * width) if len(chunk) else None
        chunks.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(chunk), [None, data or pa.py_buffer(b"")]))
    return pa.chunked_array(chunks, pa.binary(width))


def _unpacked(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    chunks = []
    for chunk in column.chunks:
        width, data = chunk.type.byte_width, chunk.buffers()[1]
        inside = data.slice(chunk.offset * width, len(chunk) * width) if data is not None else pa.py_buffer(b"")
        flat = pa.Array.from_buffers(kind.value_type, len(chunk) * kind.list_size, [None, inside])
        chunks.append(pa.FixedSizeListArray.from_arrays(flat, kind.list_size))
    return pa.chunked_array(chunks, kind)
