"""Parquet does not check that its texts are UTF-8; here they are checked as they are read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError
from jobs.stages.ingest.reading.chunk import start_of

ADVICE = "write the file again with its texts in UTF-8, or mend them (bytes of another encoding, Latin-1 perhaps, or damage)"


def refuse_other_bytes(batch: pa.RecordBatch, file: str, first_row: int) -> None:
    """Raises DataError: a text, at any depth of a column, is not UTF-8; names the first such row of the column."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not _holds_texts(field.type) or _is_utf8(column):
            continue
        good, bad = 0, len(column)  # rows before `good` are right, one before `bad` is not
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if _is_utf8(column.slice(good, middle - good)) else (good, middle)
        value = "" if pa.types.is_nested(field.type) else f" {start_of(_bytes(column.slice(good, 1)))!r}"
        raise DataError(
            f"{file}, row {first_row + good}: expected UTF-8 texts in the column {field.name!r}, found other bytes{value}; "
            f"{ADVICE}"
        )


def refuse_unreadable_texts(file: pq.ParquetFile, name: str) -> None:
    """For a file that pyarrow could not read. Raises DataError: a column of categories holds a text that is not UTF-8.

    pyarrow checks these itself, while it reads, and says neither the column nor the row.
    """
    for field in file.schema_arrow:
        if _holds_texts(field.type):
            try:
                for _ in file.iter_batches(columns=[field.name]):
                    pass
            except pa.ArrowInvalid as error:
                if "UTF8" in str(error):
                    raise DataError(
                        f"{name}: expected UTF-8 texts in the column {field.name!r}, found other bytes in its categories; "
                        f"{ADVICE}"
                    ) from error


def _holds_texts(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_texts(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_texts(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_utf8(column: pa.Array) -> bool:
    try:
        pa.concat_arrays([column]).validate(full=True)  # a copy: of a slice, pyarrow checks the nested values of all rows
    except pa.ArrowInvalid:
        return False
    return True


def _bytes(text: pa.Array) -> bytes:
    kind = pa.large_binary() if pa.types.is_large_string(text.type) else pa.binary()
    value: bytes = text.view(pa.binary_view() if pa.types.is_string_view(text.type) else kind)[0].as_py()
    return value
