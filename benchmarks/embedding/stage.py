"""The whole embed stage against a process of the peer's: see `benchmarks.embedding`."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.embedding.bench import THREADS, Bench, rows_of
from benchmarks.shared.command import Row
from benchmarks.shared.texts import write_parts
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store


def case_stage(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    from cluster.session.resources import ClusterSettings, embed_pool
    from cluster.session.session import ray_session

    best = bench.best_batch(bench.peer_encode)
    with tempfile.TemporaryDirectory(prefix="hardmine-benchmark-") as local:
        store, texts = Store(f"{local}/store"), Path(local) / "texts.parquet"
        pq.write_table(pa.table({"id": [str(row) for row in range(len(bench.texts))], "text": bench.texts}), texts)
        table = pa.table({"row": np.arange(len(bench.texts)), "tokens": bench.tokenizer(bench.texts, "")})
        parts, files = write_parts(store, "tokens", table), upload_folder(bench.folder, store, "model")
        settings = ClusterSettings(cpus=THREADS)
        with ray_session(settings) as size:
            pool = embed_pool(settings, size)
            steps: list[float] = []
            works: dict[str, Callable[[], Any]] = {"ours": lambda: steps.append(_embed_stage(store, parts, files, pool))}
            works |= {
                f"batch {size}": partial(_alone, _peer_process, bench.folder, texts, Path(local) / "out.parquet", size)
                for size in {32, best}
            }
            rows = rows_of("stage", bench, works, runs)
    return [row | {"start_s": row["ours_s"] - float(np.median(steps))} for row in rows]


def _embed_stage(store: Store, parts: Any, files: Any, pool: Any) -> float:
    """The stage as `jobs.stages.stage_1_embed` runs it; seconds of its busiest actor without start-up."""
    from mining.embed import EmbedJob, check_counts, embed
    from training.encoders.part_encoder import MakeEncoder

    job = EmbedJob("corpus", parts, f"embeddings-{time.time_ns()}")
    make = MakeEncoder(store, files, "model", pool.cpus, bool(pool.gpus), False, None)
    made = embed([job], make, store, pool, dtype="float32", retries=0)
    check_counts(made, [job], store)
    store.delete(job.folder)
    return made.seconds


def _alone(work: Callable[..., Any], *arguments: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(work, *arguments).result()


def _peer_process(folder: Path, texts: Path, out: Path, batch_size: int) -> None:
    """What a person would write: read, encode, write."""
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    table = pq.read_table(texts)
    vectors = SentenceTransformer(str(folder), device="cpu").encode(
        table["text"].to_pylist(), batch_size=batch_size, show_progress_bar=False
    )
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"id": table["id"], "vector": flat}), out)
