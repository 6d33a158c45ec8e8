"""Parts that are written side by side: where storage answers slowly, one after another would be most of a stage."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import IN_FLIGHT, Part, write_part

PENDING_BYTES = 16 * 2**20
"""Of parts that are being written, unpacked: while one is larger, nothing else is done."""


class PartWriter:
    """Writes parts in the background; they come back in the order in which they were added."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(IN_FLIGHT)
        self._added: list[Future[Part]] = []
        self._pending: deque[tuple[Future[Part], int]] = deque()

    def add(self, path: str, table: pa.Table, *, first_row: int = 0) -> None:
        """Write a part; waits while too much is being written. Raises what writing an earlier one raised."""
        size = table.nbytes
        while self._pending and sum(each for _, each in self._pending) + size > PENDING_BYTES:
            self._pending.popleft()[0].result()
        written = self._pool.submit(write_part, self._store, path, table, first_row=first_row)
        self._added.append(written)
        if size > PENDING_BYTES:
            written.result()
        else:
            self._pending.append((written, size))

    def __len__(self) -> int:
        return len(self._added)

    def close(self) -> list[Part]:
        """Wait for all; returns them. Raises what writing one of them raised."""
        self._pool.shutdown()
        pa.default_memory_pool().release_unused()  # Arrow keeps some 80 MiB for a next time; the process may do other things
        return [written.result() for written in self._added]
