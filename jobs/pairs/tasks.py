"""Tasks that are committed one by one, and the objects between two of them.

    <folder>/rows-00012-0000.parts   what task 12 made, cut into partitions
    <folder>/done-00012.json         written last: what task 12 left, and its counts

A task whose `done` is there is not run again. The driver sees counts and addresses, never rows.
"""

from __future__ import annotations

import ctypes
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DamagedObject
from cluster.session.progress import Progress
from cluster.session.session import memory_to_ask
from cluster.storage.records import read_record, write_record
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store

Task = Callable[..., dict[str, Any]]
"""Called in a worker with the store, its folder, its number and its input; returns counts, and under "objects" what it wrote."""


def run_tasks(
    store: Store,
    folder: str,
    task: Task,
    inputs: Sequence[Any],
    *,
    progress: Progress,
    retries: int,
    memory: int,
    at_once: int | None = None,
) -> list[dict[str, Any]]:
    """What each task returned, in the order of `inputs`; tasks that are committed are not run again. Ray must run.

    Args:
        memory: bytes that a task takes, about: Ray starts no more of them than a node holds.
        at_once: most tasks that run at the same time. None: as many as there are CPUs.
    """
    import ray

    started = time.monotonic()
    results: dict[int, dict[str, Any]] = {}
    sizes = store.list()
    numbers = {
        _number(path): path for path in sizes if path.startswith(f"{folder}/") and path.rpartition("/")[2].startswith("done-")
    }
    with ThreadPoolExecutor(8) as pool:
        for number, value in zip(numbers, pool.map(lambda path: _read_done(store, path, sizes), numbers.values()), strict=True):
            if value is not None and number < len(inputs):
                results[number] = value
    waiting = [number for number in range(len(inputs)) if number not in results]
    name = folder.rpartition("/")[2]
    before = f", {len(results)} committed before" if results else ""
    remote = ray.remote(committed).options(
        name=f"pairs {name}", num_cpus=1, max_retries=retries, memory=memory_to_ask(memory)
    )
    at_once = at_once or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, int] = {}
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                running[remote.remote(task, store, folder, number, inputs[number])] = number
            for reference in ray.wait(list(running), num_returns=1)[0]:
                number = running.pop(reference)
                results[number] = ray.get(reference)
                if time.monotonic() - told >= progress.interval_s:
                    progress.show(f"  {name}  {len(results)} of {len(inputs)}")
                    told = time.monotonic()
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    progress.say(f"✓ {name}  {len(inputs)} parts{before}, {time.monotonic() - started:.0f} s")
    return [results[number] for number in range(len(inputs))]


def _read_done(store: Store, path: str, sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """The record, unless it or what it lists is damaged; then the task runs again."""
    try:
        value = read_record(store, path)
    except DamagedObject:
        return None
    return value if all(sizes.get(name) == size for name, size in value.get("objects", {}).items()) else None


def _number(path: str) -> int:
    return int(path.rpartition("-")[2].removesuffix(".json"))


def committed(task: Task, store: Store, folder: str, number: int, value: Any) -> dict[str, Any]:
    """Run a task, and write its record last."""
    result = task(store, folder, number, value)
    result = dict(json.loads(json.dumps(result)))
    _give_back()
    write_record(store, f"{folder}/done-{number:05d}.json", result)
    return result


def _give_back() -> None:
    """Give free memory back to the system: the next task of this process may be another stage's, and its need comes on top."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def write_object(store: Store, path: str, table: pa.Table) -> dict[str, int]:
    """Write a table as one object; {path: bytes}."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    store.write_bytes(path, sink.getvalue())
    return {path: sink.tell()}


def read_object(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table that `write_object` wrote."""
    return pq.read_table(io.BytesIO(store.read_bytes(path)), columns=columns, page_checksum_verification=True)


@lru_cache(maxsize=3)
def _shared(root: str, settings: StorageSettings, paths: tuple[str, ...], columns: tuple[str, ...]) -> pa.Table:
    store = Store(root, settings)
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda path: read_object(store, path, list(columns)), paths))
    return pa.concat_tables(tables).sort_by(columns[0]).combine_chunks()


def read_shared(store: Store, paths: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Tables that every task needs, sorted by the first column, once for each process."""
    return _shared(store.root, store.settings, tuple(paths), tuple(columns))


def objects_of(results: Iterable[Mapping[str, Any]], kind: str) -> list[str]:
    """Addresses of all objects of one kind that tasks wrote, sorted: those whose name starts with it."""
    paths = [path for result in results for path in result.get("objects", {})]
    return sorted(path for path in paths if path.rpartition("/")[2].startswith(f"{kind}-"))


def add_counts(results: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    """The sums of the counts that the tasks returned under `name`, largest first."""
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.get(name, {}))
    return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))
