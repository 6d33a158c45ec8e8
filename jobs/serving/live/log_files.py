"""Reading logs: JSON lines, CSV or Parquet, one file or a folder of them, as rows of values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import DataError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def read_rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of each row.

    Raises:
        DataError: there is no such file, or a line of it cannot be read.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix in ENDINGS) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"expected a log in {path}, found none; give a file ({', '.join(ENDINGS)}) or a folder of them")
    for file in files:
        if file.suffix == ".parquet":
            yield from _parquet(file)
        elif file.suffix in (".csv", ".tsv"):
            yield from _csv(file)
        else:
            yield from _json_lines(file)


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{file}, line {number}: expected a JSON object, found {line.strip()[:60]!r} ({error})"
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {number}: expected a JSON object, found {line.strip()[:60]!r}")
            yield f"{file}, line {number}", row


def _csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import csv

    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","), start=2):
            yield f"{file}, line {number}", {key: value for key, value in row.items() if key is not None}


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file} is no Parquet file ({error}); give the log as it was written") from error
    number = 0
    for batch in parquet.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{file}, row {number}", row


def ids_of(value: Any) -> list[str]:
    """A list of ids: as it is, as JSON, or with commas between."""
    if value is None or value == "":
        return []
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    text = str(value)
    if text.lstrip().startswith("["):
        try:
            return [str(one) for one in json.loads(text)]
        except ValueError:
            pass
    return [one.strip() for one in text.split(",") if one.strip()]
