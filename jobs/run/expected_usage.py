"""What the first stages will read, write and hold, from counts and sizes alone: printed by `--dry-run`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.storage.usage import Used
from cluster.tables.tables import AHEAD_BYTES, WHOLE_BYTES
from cluster.tables.writer import PENDING_BYTES
from jobs.run.scale import ROW_NUMBER_BYTES, requests_of_part
from jobs.stages.ingest.items import rows_of_a_part
from jobs.stages.ingest.lookup.ids import BUCKET_IDS
from jobs.stages.ingest.lookup.item_codes import RANGE_CODES
from jobs.stages.ingest.reading.chunk import CHUNK_BYTES

WORKER_BYTES = 300 * 2**20
"""Memory of a worker that has loaded Arrow and this package, with what it keeps of earlier tasks."""
ID_BYTES = 6
"""An id, compressed, about."""
ROW_BYTES = 6
"""The row of an id in a bucket, compressed, about."""
CODE_BYTES = 8
"""The code of an item's text, which cannot be compressed."""
OTHERS = 30
"""Requests for queries, labels and what lies between the stages, about."""
TEXT_SHARE = 0.25
"""What zstd leaves of a text file, about."""


@dataclass(frozen=True)
class Sizes:
    """Of a data set, before it is read."""

    items: int
    queries: int
    item_bytes: int
    """Of the corpus files."""
    unpacked_bytes: int
    """Of the corpus."""
    row_bytes: float
    """Of an item, unpacked."""
    slice_rows: tuple[int, ...]
    """Items of each slice of the corpus; of text files, about."""
    query_bytes: int
    label_bytes: int
    text_files: bool
    """The corpus is no Parquet file."""


def parts_of(sizes: Sizes, part_rows: int) -> int:
    """Parts of the corpus: every slice has its own."""
    rows = _rows(sizes, part_rows)
    return max(1, sum(-(-each // rows) for each in sizes.slice_rows))


def _rows(sizes: Sizes, part_rows: int) -> int:
    return rows_of_a_part(sizes.unpacked_bytes, sizes.row_bytes, part_rows)


def expected_ingest(sizes: Sizes, part_rows: int) -> Used:
    """Of ingest: it reads the files once (of text files, rows are counted first), ids once, and codes a few times."""
    parts = parts_of(sizes, part_rows)
    buckets, passes = max(1, -(-sizes.items // BUCKET_IDS)), max(1, -(-sizes.items // RANGE_CODES)) + 2
    of_ids, of_codes = (-(-sizes.items * size // parts) for size in (ID_BYTES, CODE_BYTES))
    times = 1 + (sizes.text_files and len(sizes.slice_rows) > 1)
    read = (
        sizes.item_bytes * times
        + sizes.query_bytes * 2
        + sizes.label_bytes
        + sizes.items * (ID_BYTES + ROW_BYTES + CODE_BYTES * passes)
    )
    if of_codes + of_ids <= WHOLE_BYTES:  # ids come with the codes
        read += sizes.items * ID_BYTES * passes
    written = sizes.item_bytes * (TEXT_SHARE if sizes.text_files else 1) + sizes.query_bytes * 2 + sizes.label_bytes
    held = CHUNK_BYTES * 6 + min(sizes.items, _rows(sizes, part_rows)) * sizes.row_bytes * 4
    of_part = 2 + passes * requests_of_part(of_codes + of_ids)
    return Used(
        requests=parts * of_part + len(sizes.slice_rows) * (1 + times + 2 * buckets) + OTHERS,
        read_bytes=int(read),
        written_bytes=int(written + sizes.items * (CODE_BYTES + 2 * ID_BYTES + ROW_BYTES)),
        peak_bytes=int(WORKER_BYTES + held),
    )


def expected_copy(sizes: Sizes, part_rows: int, dimension: int, number_bytes: int) -> Used:
    """Of copying the vectors that came with the data."""
    parts, vectors = parts_of(sizes, part_rows) + 1, (sizes.items + sizes.queries) * dimension
    rows = min(sizes.items, _rows(sizes, part_rows))
    requests = parts * (1 + requests_of_part(rows * (dimension * 4 + ROW_NUMBER_BYTES))) + 2
    part = rows * dimension * 4
    held = 3 * (min(AHEAD_BYTES, vectors * 4) + part) + 3 * (
        min(PENDING_BYTES, vectors * 4) + part
    )  # each as bytes, as a table, and once more on its way
    return Used(requests, vectors * 4, vectors * number_bytes, WORKER_BYTES + held)
