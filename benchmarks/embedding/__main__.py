"""Embedding against `SentenceTransformer.encode`: `python -m benchmarks.embedding --model FOLDER --data DATA`.

Cases:
    tokens     the encoder in this process on tokens, against the peer's modules on tokens (its batches of similar length,
               padded by its tokenizer).
    texts      tokenising included on both sides: the run's tokenizer and the encoder, against `encode`.
    stage      the whole embed stage over Ray Data, from the Parquet of tokens to the Parquet of vectors: actor, imports,
               model and all, but neither `ray.init` nor tokenising, which a run does once and not in every round. Against
               a fresh process that imports sentence-transformers, loads the model, reads the same texts and encodes them.
    precision  lower precision for mining: bfloat16 and 8-bit linear layers, and how many of the 100 hits of 1,000 queries
               among all the texts are those of float32.

The peer reads batches of 32, and of 8 to 128 of which the best counts (chosen on a tenth of the texts). Two threads.
`floor_share`: the time that torch's own float32 product takes at the model's shapes, for the model's operations on the
real tokens (padding not counted), as a share of ours; above 1, oneDNN on packed weights beats torch's product.

Needs the extra "bench".
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.shared.machine import emit, paired, timed
from benchmarks.shared.texts import base_model, mixed_texts, write_parts
from cluster.folders import upload_folder
from cluster.storage import Store
from cluster.tables import F32, lists_to_csr
from mining.search.topk import Shard, exact_topk
from training.encoders.features import Tokens
from training.encoders.load import load_encoder
from training.encoders.packed import cpu_has_bfloat16, pack_linears
from training.encoders.prepare import Tokenizer
from training.settings import EncoderSettings

Row = dict[str, Any]
BATCH_SIZES = (8, 16, 32, 64, 128)
THREADS = 2
FLOOR_ROWS = 1024
QUERIES, HITS = 1000, 100


@dataclass
class Bench:
    """The model on both sides, and the texts."""

    folder: Path
    texts: list[str]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return Tokenizer(self.folder, EncoderSettings(model="-"))

    @cached_property
    def tokens(self) -> Tokens:
        """All texts."""
        return self.tokenise(self.texts)

    @cached_property
    def encoder(self) -> Any:
        """As an embedding actor has it."""
        encoder = load_encoder(self.folder)
        pack_linears(encoder)
        return encoder

    @cached_property
    def peer(self) -> Any:
        """The same model as a SentenceTransformer."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(self.folder), device="cpu")

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """As stage 0 does."""
        offsets, values = lists_to_csr(pa.chunked_array([self.tokenizer(texts, "")]))
        return Tokens(offsets, values.astype(np.int32, copy=False))

    def peer_encode(self, batch_size: int, share: int = 1) -> F32:
        """Every `share`-th text."""
        found: F32 = self.peer.encode(self.texts[::share], batch_size=batch_size, show_progress_bar=False)
        return found

    def peer_on_tokens(self, batch_size: int, share: int = 1) -> F32:
        """The peer's modules on batches of similar length, as its `encode` makes them."""
        rows = np.arange(0, len(self.tokens), share)
        order = rows[np.argsort(-self.tokens.lengths[rows], kind="stable")]
        vectors = np.empty((len(self.tokens), self.encoder.dimension), np.float32)
        ids = np.split(self.tokens.values, self.tokens.offsets[1:-1])
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                some = order[start : start + batch_size]
                inputs = self.peer.tokenizer.pad({"input_ids": [ids[row] for row in some]}, return_tensors="pt")
                vectors[some] = self.peer.forward(dict(inputs))["sentence_embedding"].numpy()
        return vectors

    def best_batch(self, work: Callable[..., Any]) -> int:
        """The batch size at which the peer is fastest, on a tenth of the texts."""
        took = {size: min(timed(partial(work, size, 10)) for _ in range(2)) for size in BATCH_SIZES}
        return min(took, key=lambda size: took[size])

    def floor(self, share: int = 1) -> float:
        """Seconds that torch's own float32 product would take for the model's operations on the real tokens.

        Per layer and text of T tokens 2 T (4 D² + 2 D M) for the linear layers (width D, inner width M) and 4 T² D for the
        attention (Kaplan 2020, arXiv 2001.08361, section 2.1, forward pass).
        """
        config = self.encoder.model.config
        wide, inner, lengths = config.hidden_size, config.intermediate_size, self.tokens.lengths[::share].astype(np.float64)
        work = config.num_hidden_layers * (lengths * 2 * (4 * wide * wide + 2 * wide * inner) + 4 * lengths**2 * wide).sum()
        shapes = [(wide, wide)] * 4 + [(wide, inner), (inner, wide)]
        pairs = [(torch.randn(FLOOR_ROWS, low), torch.randn(low, high)) for low, high in shapes]

        def product() -> None:
            for left, right in pairs:
                left @ right

        seconds = float(np.median([timed(product) for _ in range(15)]))
        per_call = sum(2 * FLOOR_ROWS * low * high for low, high in shapes)
        return float(work) * seconds / per_call


def case_tokens(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    best = bench.best_batch(bench.peer_on_tokens)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: bench.encoder.encode(bench.tokens),
        "batch 32": lambda: bench.peer_on_tokens(32),
        f"batch {best} (best)": lambda: bench.peer_on_tokens(best),
    }
    return _rows("tokens", bench, works, runs)


def case_texts(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    best = bench.best_batch(bench.peer_encode)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: bench.encoder.encode(bench.tokenise(bench.texts)),
        "batch 32": lambda: bench.peer_encode(32),
        f"batch {best} (best)": lambda: bench.peer_encode(best),
    }
    return _rows("texts", bench, works, runs)


def _rows(case: str, bench: Bench, works: dict[str, Callable[[], Any]], runs: int, **more: float) -> list[Row]:
    floors: list[float] = []
    # in turns with the others, because the clock of a machine is not always the same
    took = paired(works | {"floor": lambda: floors.append(bench.floor())}, runs)
    ours, floor, count = took["ours"], float(np.median(floors)), len(bench.texts)
    return [
        {
            "case": f"{case} n={count}",
            "ours_s": ours,
            "peer": f"SentenceTransformer {name}",
            "peer_s": took[name],
            "ratio": took[name] / ours,
            "floor_share": floor / ours,
            "peer_floor_share": floor / took[name],
            "texts_per_s": count / ours,
            "tokens_per_text": float(bench.tokens.lengths.mean()),
        }
        for name in works
        if name != "ours"
    ]


def case_stage(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    from cluster.resources import ClusterSettings, embed_pool
    from cluster.session import ray_session

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
            rows = _rows("stage", bench, works, runs)
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


def case_precision(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    order = np.random.default_rng(1).permutation(len(bench.tokens))
    asked, given = (bench.tokens.take(np.sort(some)) for some in np.split(order, [min(QUERIES, len(order) // 2)]))
    encoders: dict[str, Callable[[Tokens], F32]] = {"float32": bench.encoder.encode}
    if cpu_has_bfloat16():
        rounded = load_encoder(bench.folder)
        pack_linears(rounded, torch.bfloat16)
        encoders["bfloat16"] = partial(rounded.encode, bfloat16=True)
    if "onednn" in torch.backends.quantized.supported_engines:  # the fastest of those there are
        encoders["int8"] = _quantised(bench.folder, "onednn")
    found = {name: (encode(asked), encode(given)) for name, encode in encoders.items()}
    depth = min(HITS, len(given) // 2)
    hits = {name: exact_topk(queries, Shard(items, "faiss"), depth)[1] for name, (queries, items) in found.items()}
    some = given.take(np.arange(0, len(given), 10))
    took = paired({name: partial(encode, some) for name, encode in encoders.items()}, runs)
    return [
        {
            "case": f"precision {name} n={len(given)}",
            "ours_s": took[name],
            "peer": "ours, float32",
            "peer_s": took["float32"],
            "ratio": took["float32"] / took[name],
            f"recall@{depth}": _recall(hits[name], hits["float32"]),
            "cosine": float((found[name][1] * found["float32"][1]).sum(axis=1).mean()),
        }
        for name in encoders
        if name != "float32"
    ]


def _quantised(folder: Path, engine: str) -> Callable[[Tokens], F32]:
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    torch.backends.quantized.engine = engine
    model = quantize_dynamic(load_encoder(folder).eval(), {torch.nn.Linear: per_channel_dynamic_qconfig}, dtype=torch.qint8)

    def encode(features: Tokens) -> F32:
        torch.backends.quantized.engine = engine
        found: F32 = model.encode(features)
        return found

    return encode


def _recall(found_QK: Any, true_QK: Any) -> float:
    return float(np.mean([len(np.intersect1d(found, true)) / len(true) for found, true in zip(found_QK, true_QK, strict=True)]))


CASES: dict[str, Callable[[Bench, int], list[Row]]] = {
    "tokens": case_tokens,
    "texts": case_texts,
    "stage": case_stage,
    "precision": case_precision,
}


def main() -> None:
    """Run some cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="default: tokens, texts and stage")
    parser.add_argument("--model", required=True, help="model folder, e.g. of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder with a corpus.parquet; several mix")
    parser.add_argument("--texts", type=int, help="default: 20,000 for stage and precision, 2,000 else")
    parser.add_argument("--runs", type=int, default=3, help="paired runs; the median counts")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    folder, rows = base_model(given.model), []
    for case in given.case or ["tokens", "texts", "stage"]:
        count = given.texts or (20_000 if case in ("stage", "precision") else 2000)
        rows += CASES[case](Bench(folder, mixed_texts(given.data, count)), given.runs)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
