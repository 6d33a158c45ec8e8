"""Encoding inside a training step: with gradient, in micro-batches of similar length."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.tables import I64
from training.encoders.base import CPU_BUDGET_TOKENS, GPU_BUDGET_TOKENS
from training.engine import Place
from training.features import Features, pack


def encode_rows(
    engine: Any, features: Features, rows: I64, place: Place, *, budget_tokens: int | None = None,
) -> Tensor:
    """Embeddings of `rows` in that order, [N, D] float32, with gradient where gradients are enabled.

    With ZeRO 3 every forward pass is a collective, so ranks with fewer micro-batches add empty ones of weight zero.
    """
    budget = budget_tokens or (GPU_BUDGET_TOKENS if place.device.type == "cuda" else CPU_BUDGET_TOKENS)
    chosen = features.take(rows)
    packs = pack(chosen.lengths, budget)
    together = place.world > 1 and engine.zero_optimization_stage() == 3
    # asked before the first forward pass, which already waits for all ranks
    missing = _most(len(packs), place) - len(packs) if together else 0
    outputs = [_forward(engine, chosen.take(index), place) for index in packs]
    joined = torch.cat(outputs)
    back = torch.empty(len(rows), dtype=torch.int64)
    back[torch.cat([torch.from_numpy(index) for index in packs])] = torch.arange(len(rows))
    result = joined[back.to(joined.device)]
    for _ in range(missing):
        result = result + 0.0 * _forward(engine, chosen.take(packs[-1][:1]), place).sum()
    return result


def _forward(engine: Any, features: Features, place: Place) -> Tensor:
    inputs = {name: value.to(place.device) for name, value in engine.module.collate(features).items()}
    output: Tensor = engine(inputs)
    return output


def _most(count: int, place: Place) -> int:
    value = torch.tensor([count], device=place.device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value.item())
