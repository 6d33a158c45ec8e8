"""How embedding and searching scale with the number of actors of one CPU each, on this machine.

    python -m benchmarks.cluster.actors [--most 4] [--items 100000] [--queries 2000] [--texts 1500] [--json]

Each stage is run as a run does it, on a local Ray, with 1, 2, 4 … actors; "ours" is its work without start-up. Beside it stand
what it takes with start-up, and how many times as fast as one actor it is. The packaged MiniLM embeds, the search is exact.
More actors than CPUs cannot help: the row says how many this machine has.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.mining.ours import temporary_catalogue
from benchmarks.shared.catalogue import Catalogue
from benchmarks.shared.command import Row, compared, emit, make_parser
from benchmarks.shared.inputs import packaged_model
from benchmarks.shared.texts import base_model
from cluster.session.resources import ClusterSettings, PoolSize
from cluster.session.session import ray_session
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import part_name, write_part

PARTS, BLOCK = 16, 128


def main() -> None:
    """The command."""
    parser = make_parser(__doc__)
    for name, default in (("most", 4), ("items", 100_000), ("queries", 2_000), ("texts", 1_500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    counts = [2**power for power in range(given.most.bit_length())]
    with ray_session(ClusterSettings(cpus=given.most)), tempfile.TemporaryDirectory() as folder:
        embed = embedding(Store(folder), given.texts)
        rows = scaled("embed", counts, embed)
        with temporary_catalogue(items=given.items, queries=given.queries, dtype="float16") as data:
            rows += scaled("search", counts, lambda actors: searching(data, actors))
    emit(rows, as_json=given.json)


def scaled(name: str, counts: list[int], work: Callable[[int], float]) -> list[Row]:
    """A row for each number of actors; `work` returns its seconds without start-up."""
    rows: list[Row] = []
    for count in counts:
        started = time.perf_counter()
        seconds = work(count)
        whole = time.perf_counter() - started
        rows.append(compared(f"{name}: {count} actor(s)", seconds, "1 actor", rows[0]["ours_s"] if rows else seconds))
        rows[-1] |= {"with_start_s": whole, "cpus": os.cpu_count()}
    return rows


def embedding(store: Store, count: int) -> Callable[[int], float]:
    """Embeds so many texts, in 16 parts."""
    from mining.embed import EmbedJob, embed
    from training.encoders.part_encoder import MakeEncoder

    folder = Path(store.root)
    files = upload_folder(base_model(str(packaged_model(folder)), folder / "base"), store, "model")
    rng, parts = np.random.default_rng(0), []
    for number, rows in enumerate(np.array_split(np.arange(count), PARTS)):
        lengths = rng.integers(16, 112, len(rows))
        words = pa.array(rng.integers(1000, 20_000, lengths.sum()), pa.int32())
        tokens = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), words)
        table = pa.table({"row": rows, "tokens": tokens})
        parts.append(write_part(store, f"tokens/{part_name(number)}", table, first_row=int(rows[0])))

    def work(actors: int) -> float:
        job = EmbedJob("corpus", parts, f"embeddings-{actors}")
        make: Any = MakeEncoder(store, files, "model", 1, False, False, None)
        return embed([job], make, store, PoolSize(actors, 1, 0), dtype="float16", retries=0).seconds

    return work


def searching(data: Catalogue, actors: int) -> float:
    """Searches the corpus in as many shards as there are actors."""
    from mining.search.driver import search
    from mining.search.shards import plan_blocks, plan_shards
    from mining.settings import SearchSettings

    shards = plan_shards(data.num_items, shards=None, actors=actors, shard_rows=1_000_000)
    blocks = plan_blocks(np.arange(data.num_queries), BLOCK)
    settings = SearchSettings(mode="exact", engine="faiss")
    task = data.search_task(f"hits-{actors}", 100)
    return search(task, shards, blocks, PoolSize(actors, 1, 0), settings, retries=0).seconds


if __name__ == "__main__":
    main()
