"""SIGKILL to the processes of a search: the hits are what they would have been, and what was finished is not done again."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.session.resources import ClusterSize, PoolSize
from cluster.tables.tables import read_part, read_parts
from mining.search.driver import search
from mining.search.shards import plan_blocks, plan_shards
from mining.settings import SearchSettings

if TYPE_CHECKING:
    from tests.mining.conftest import World

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[3]
DEADLINE_S = 900.0
NUM_HITS, BLOCK, QUERIES = 20, 16, 130
EXACT = SearchSettings(mode="exact", engine="faiss")


def watched_actors(diary: Path) -> tuple[Any, Any]:
    """Shard holder and block actor that write down what they do, and die once each where the diary has no grave of theirs."""
    from mining.search.block_actor import BlockActor
    from mining.search.shard_actor import ShardActor

    def die_once(name: str) -> None:
        grave = diary / name
        if not grave.exists():
            grave.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)

    class WatchedShard(ShardActor):
        def search(self, task: Any, rows: Any, block: Any, how: Any) -> Any:
            import faiss
            import numba
            import torch

            found = super().search(task, rows, block, how)
            if block.query_rows[0] == 3 * BLOCK:
                die_once("holder")  # the search is done, and lost
            own = min(2, numba.config.NUMBA_NUM_THREADS)  # numba has at most as many as this process may use of the machine
            threads = [torch.get_num_threads(), faiss.omp_get_max_threads(), numba.get_num_threads() - own + 2]
            (diary / f"threads-{rows.start}-{block.query_rows[0]}").write_text(repr(threads))
            return found

    class WatchedBlocks(BlockActor):
        def keep(self, task: Any, path: str, *found: Any) -> Any:
            if path.endswith("2.parquet"):
                die_once("keeper")
            return super().keep(task, path, *found)

        def write(self, task: Any, path: str, *found: Any) -> Any:
            result = super().write(task, path, *found)
            if path.endswith("5.parquet"):
                die_once("writer")  # the block is written, but the driver has not heard of it
            return result

    return WatchedShard, WatchedBlocks


def test_killed_actors_start_again_and_the_hits_are_the_same(
    new_world: Callable[..., World],
    slow_search: Callable[..., pa.Table],
    ray_local: ClusterSize,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = new_world(items=300, queries=QUERIES)
    holder, blocks = watched_actors(tmp_path)
    monkeypatch.setattr("mining.search.waves.ShardActor", holder)
    monkeypatch.setattr("mining.search.waves.BlockActor", blocks)
    task = world.search_task("hits", NUM_HITS, exclude_known=True)
    found = search(
        task,
        plan_shards(300, shards=3, actors=1, shard_rows=1000),
        plan_blocks(np.arange(QUERIES), BLOCK),
        PoolSize(1, 2, 0),
        EXACT,
        retries=3,
    )
    want = slow_search(world, NUM_HITS, exclude_known=True)
    assert read_parts(world.store, found.parts).cast(want.schema).equals(want)
    dead = {name: int((tmp_path / name).read_text()) for name in ("holder", "keeper", "writer")}
    assert len(set(dead.values())) == 3
    assert not any(Path(f"/proc/{process}").exists() for process in dead.values())
    threads = {path.read_text() for path in tmp_path.glob("threads-*")}
    assert threads == {"[2, 2, 2]"}  # of each library as many as the holder has CPUs, after a restart as well


DRIVER = """
import os, pickle, sys, time
from pathlib import Path
from cluster.session.resources import ClusterSettings, PoolSize
from cluster.session.session import ray_session
from mining.search.block_actor import BlockActor
from mining.search.shard_actor import ShardActor
from mining.search import waves
from mining.search.driver import search

folder, diary = Path(sys.argv[1]), Path(sys.argv[1]) / sys.argv[2]
held_shard, held_block = int(sys.argv[3]), int(sys.argv[4])

class Watched(ShardActor):
    def search(self, task, rows, block, how):
        number = block.query_rows[0] // 16
        if rows.start == held_shard and number >= held_block:
            time.sleep(900)
        found = super().search(task, rows, block, how)
        (diary / f"{rows.start}-{number}").write_text("")
        return found

class Known(BlockActor):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        (folder / "writers" / str(os.getpid())).write_text("")

waves.ShardActor, waves.BlockActor = Watched, Known
task, shards, blocks, settings = pickle.loads((folder / "search.pickle").read_bytes())
with ray_session(ClusterSettings()):
    found = search(task, shards, blocks, PoolSize(1, 1, 0), settings, retries=1)
(folder / "found.pickle").write_bytes(pickle.dumps([part.path for part in found.parts]))
"""


def start_driver(
    folder: Path, diary: str, ray_address: dict[str, str], held_shard: int = -1, held_block: int = 0
) -> subprocess.Popen[bytes]:
    """A driver that joins a Ray; the shard that starts at `held_shard` is never searched from that block on."""
    (folder / diary).mkdir()
    (folder / "writers").mkdir(exist_ok=True)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder), diary, str(held_shard), str(held_block)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | ray_address,
            stdout=log,
            stderr=log,
        )


def kill_when(process: subprocess.Popen[bytes], folder: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, "the search never came so far"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def settled(folder: Path, hits: Path) -> dict[Path, tuple[int, bytes]]:
    """Objects with their time of change and content, once the killed driver's writers have ended."""
    deadline = time.monotonic() + DEADLINE_S
    while any(Path("/proc", writer.name).exists() for writer in (folder / "writers").iterdir()):
        assert time.monotonic() < deadline, "the actors outlive their driver"
        time.sleep(0.1)
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in hits.rglob("*.parquet")}


def test_a_killed_search_goes_on_with_the_blocks_that_are_missing(
    new_world: Callable[..., World], slow_search: Callable[..., pa.Table], tmp_path: Path, ray_address: dict[str, str]
) -> None:
    world = new_world(items=300, queries=QUERIES)
    shards, blocks = plan_shards(300, shards=2, actors=1, shard_rows=1000), plan_blocks(np.arange(QUERIES), BLOCK)
    task = world.search_task("hits", NUM_HITS, exclude_known=True)
    (tmp_path / "search.pickle").write_bytes(pickle.dumps((task, shards, blocks, EXACT)))
    hits, last_wave = Path(world.store.root) / "hits", {shard.start for shard in shards[1:]}

    process = start_driver(tmp_path, "first", ray_address, 0, 5)
    kill_when(process, tmp_path, lambda: len(list(hits.glob("waves/*/*.parquet"))) >= 3)
    waiting = settled(tmp_path, hits)
    assert 3 <= len(waiting) < len(blocks)
    assert all("waves" in path.parts for path in waiting)

    process = start_driver(tmp_path, "second", ray_address, 150, 4)
    kill_when(process, tmp_path, lambda: len(list(hits.glob("exact/*.parquet"))) >= 2)
    half = settled(tmp_path, hits)
    finished = {path: state for path, state in half.items() if path.parent == hits / "exact"}
    assert 2 <= len(finished) < len(blocks)
    assert {path: half[path] for path in waiting} == waiting

    process = start_driver(tmp_path, "third", ray_address)
    assert process.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()[-3000:]
    want = slow_search(world, NUM_HITS, exclude_known=True)
    paths = pickle.loads((tmp_path / "found.pickle").read_bytes())
    assert pa.concat_tables([read_part(world.store, path) for path in paths]).cast(want.schema).equals(want)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished} == finished
    assert sorted(path.name for path in hits.iterdir()) == ["exact", "how.json"]

    searched = [
        {tuple(map(int, path.name.split("-"))) for path in (tmp_path / name).iterdir()} for name in ("first", "second", "third")
    ]
    numbers = {int(path.stem[-5:]) for path in waiting}
    assert not {(start, block) for start, block in searched[1] if start not in last_wave and block in numbers}
    assert searched[2] == {
        (start, block.index)
        for start in last_wave
        for block in blocks
        if hits / f"exact/part-{block.index:05d}.parquet" not in finished
    }
