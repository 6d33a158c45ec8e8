"""Search on the device: the bytes of the CPU's hits, and its share of the matrix rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import matrix_rate, seconds_of
from benchmarks.shared.command import Row, compared
from cluster.tables.tables import F32
from mining.search.engines import EngineName, TorchEngine
from mining.search.topk import Shard, exact_topk

HITS, DIMENSION, BLOCK = 100, 384, 2048
ENGINES: tuple[EngineName, ...] = ("torch", "half")


def vectors(count: int, seed: int, *, coarse: bool = False) -> F32:
    """Unit vectors; coarse ones have many ties."""
    generator = np.random.default_rng(seed)
    made = generator.standard_normal((count, DIMENSION), dtype=np.float32)
    made = np.sign(made) * (np.abs(made) > 1.5) if coarse else made
    norms = np.linalg.norm(made, axis=1, keepdims=True)
    made /= np.where(norms > 0, norms, 1.0)
    return made.astype(np.float32)


def case_equality(device: torch.device, *, quick: bool) -> list[Row]:
    """Hits of the device's engines against FAISS on the CPU: equal to the last byte, ties included."""
    rows = []
    for coarse in (False, True):
        items, queries = vectors(4000 if quick else 200_000, 1, coarse=coarse), vectors(64, 2, coarse=coarse)
        wanted = exact_topk(queries, Shard(items, "faiss"), HITS)
        for name in ENGINES:
            got = exact_topk(queries, Shard(items, TorchEngine(items, half=name == "half", device=str(device))), HITS)
            same = all(one.tobytes() == other.tobytes() for one, other in zip(got, wanted, strict=True))
            rows.append({"case": f"equality {name}{' ties' if coarse else ''}", "passed": same})
    return rows


def case_search(device: torch.device, *, quick: bool) -> list[Row]:
    """Queries against 1 and 4 million items: the proposal on the device, the whole with exact scores, and a plain top-k."""
    rows, queries = [], vectors(BLOCK, 2)
    rate = matrix_rate(device, torch.float16 if device.type == "cuda" else torch.float32)
    for count in (20_000, 50_000) if quick else (1_000_000, 4_000_000):
        items = vectors(count, 1)
        for name in ENGINES:
            if name == "half" and device.type == "cpu":
                continue  # a CPU has no fast product of halves
            engine = TorchEngine(items, half=name == "half", device=str(device))
            width = engine.width(HITS)
            floor = 2 * BLOCK * count * DIMENSION / rate
            propose = seconds_of(lambda engine=engine, width=width: engine.propose(queries, width), device)
            plain = seconds_of(lambda engine=engine, width=width: _plain(engine, queries, width), device, runs=2)
            whole = seconds_of(lambda engine=engine, items=items: exact_topk(queries, Shard(items, engine), HITS), device, runs=2)
            row: dict[str, Any] = compared(f"search {count:,} {name}", propose, "matmul + torch.topk", plain, floor)
            rows.append(row | {"with_exact_scores_s": whole})
            del engine
    return rows


def _plain(engine: TorchEngine, queries_QD: F32, width: int) -> None:
    items = engine._items
    queries = torch.from_numpy(queries_QD).to(items.device, items.dtype)
    for block in torch.split(queries, max(1, 2**28 // len(items))):
        (block @ items.T).topk(width, dim=1)[0].cpu()
