"""How busy the embed stage keeps a device, over object storage with latency: see `benchmarks.embedding`."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from benchmarks.shared.command import Row, compared
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, part_name, read_part, write_part

LATENCY_S = 0.06
"""Added to each request."""
PARTS, ROWS, DIMENSION = 40, 16_384, 384
ENCODE_S = 1.5
"""Of a part: about what a small model takes on a large GPU."""
BUCKET = "embedding"


@dataclass
class FixedTime:
    """A model that takes the same time for each part and no CPU, as if a device did the work."""

    def __call__(self) -> Callable[[Store, str, Callable[[int], None]], F32]:
        """The part encoder."""
        vectors = np.ones((ROWS, DIMENSION), np.float32) / np.float32(DIMENSION**0.5)
        one_at_a_time = threading.Lock()

        def encode(store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
            tokens = read_part(store, path)
            with one_at_a_time:
                time.sleep(ENCODE_S)
            on_progress(tokens.num_rows)
            return vectors

        return encode


@contextmanager
def slow_storage() -> Iterator[Store]:
    """An S3 endpoint on loopback whose answers come LATENCY_S later, with an empty bucket."""
    import botocore.session
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "of-a-benchmark", "AWS_SECRET_ACCESS_KEY": "of-a-benchmark"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    application: Any = server._server.app  # type: ignore[union-attr]

    def later(environ: dict[str, Any], respond: Any) -> Any:
        time.sleep(LATENCY_S)
        return application(environ, respond)

    server._server.app = later  # type: ignore[union-attr]
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield Store(f"s3://{BUCKET}/run", StorageSettings(endpoint=endpoint))
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def case_busy() -> list[Row]:
    """The share of the busiest actor's time in which it encodes; against one part after the other."""
    from cluster.session.resources import ClusterSettings, PoolSize
    from cluster.session.session import ray_session
    from mining import embed, part_pool

    took: dict[int, float] = {}
    with slow_storage() as store, ray_session(ClusterSettings(cpus=2)), patch.object(part_pool, "stays_warm", lambda _: False):
        parts = [_write_tokens(store, number) for number in range(PARTS)]
        for overlap in (embed.OVERLAP, 1):
            job = embed.EmbedJob("corpus", parts, f"embeddings-{overlap}")
            with patch.object(embed, "OVERLAP", overlap):
                done = embed.embed([job], FixedTime(), store, PoolSize(1, 1, 0), dtype="float16", retries=0)
            took[overlap] = done.seconds
    floor = PARTS * ENCODE_S
    return [
        compared(f"busy parts={PARTS}", took[embed.OVERLAP], "one part after the other", took[1], floor)
        | {"peer_floor_share": floor / took[1], "latency_s": LATENCY_S, "encode_s": ENCODE_S}
    ]


def _write_tokens(store: Store, number: int) -> Part:
    lengths = np.full(ROWS, 64)
    values = pa.array(np.arange(lengths.sum()) % 30_000, pa.int32())
    tokens = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)
    first = number * ROWS
    table = pa.table({"row": np.arange(first, first + ROWS), "tokens": tokens})
    return write_part(store, f"tokens/corpus/{part_name(number)}", table, first_row=first)
