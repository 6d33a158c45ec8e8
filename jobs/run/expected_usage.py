"""What the first stages will read, write and hold, from counts and sizes alone: printed by `--dry-run`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.storage.usage import Used
from jobs.stages.ingest.items import rows_of_a_part
from jobs.stages.ingest.lookup.ids import BUCKET_IDS
from jobs.stages.ingest.lookup.item_codes import RANGE_CODES
from jobs.stages.ingest.reading.chunk import CHUNK_BYTES

WORKER_BYTES = 250 * 2**20
"""Memory of a worker that has loaded Arrow and this package, before it holds any data."""
ID_BYTES = 12
"""An id and its row in a bucket, compressed, about."""
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
    slices: int
    """Of the corpus."""
    query_bytes: int
    label_bytes: int
    text_files: bool
    """The corpus is no Parquet file."""


def expected_ingest(sizes: Sizes, part_rows: int, *, on_vectors: bool) -> Used:
    """Of ingest: it reads the files once (of text files, rows are counted first), ids once, and codes a few times.

    Args:
        on_vectors: items of one text are told apart by their vectors.
    """
    rows = rows_of_a_part(sizes.unpacked_bytes, sizes.row_bytes, part_rows)
    parts = -(-sizes.items // max(1, rows)) + sizes.slices // 2  # the last part of a slice is half full
    buckets, ranges = max(1, -(-sizes.items // BUCKET_IDS)), max(1, -(-sizes.items // RANGE_CODES))
    passes = ranges * (1 + on_vectors) + 2
    times = 1 + (sizes.text_files and sizes.slices > 1)
    read = sizes.item_bytes * times + sizes.query_bytes * 2 + sizes.label_bytes + sizes.items * (ID_BYTES + 8 * passes)
    written = sizes.item_bytes * (TEXT_SHARE if sizes.text_files else 1) + sizes.query_bytes * 2 + sizes.label_bytes
    held = CHUNK_BYTES * 6 + min(sizes.items, rows) * sizes.row_bytes * 4
    return Used(
        requests=parts * (2 + passes) + sizes.slices * (2 + times + 2 * buckets),
        read_bytes=int(read),
        written_bytes=int(written + sizes.items * (8 + ID_BYTES)),
        peak_bytes=int(WORKER_BYTES + held),
    )


def expected_copy(sizes: Sizes, part_rows: int, dimension: int, number_bytes: int) -> Used:
    """Of copying the vectors that came with the data."""
    rows = rows_of_a_part(sizes.unpacked_bytes, sizes.row_bytes, part_rows)
    parts = -(-sizes.items // max(1, rows)) + sizes.slices // 2 + 1
    vectors = (sizes.items + sizes.queries) * dimension
    held = min(sizes.items, rows) * dimension * 4 * 5
    return Used(parts * 3 + 2, vectors * 4, vectors * number_bytes, int(WORKER_BYTES + held))
