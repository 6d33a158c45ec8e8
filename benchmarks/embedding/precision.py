"""Lower precision for mining: see `benchmarks.embedding`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embedding.bench import Bench
from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import paired
from cluster.tables.tables import F32
from mining.search.topk import Shard, exact_topk
from training.encoders.compute.packed import cpu_has_bfloat16, pack_linears
from training.encoders.load import load_encoder
from training.encoders.tokens.features import Tokens

QUERIES, HITS = 1000, 100


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
        compared(f"precision {name} n={len(given)}", took[name], "ours, float32", took["float32"])
        | {
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
