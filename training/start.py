"""What a round's training starts with on each rank: the encoder, and how many tokens it encodes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from cluster.folders import fetch_folder
from training.encoders.base import Encoder
from training.encoders.features import Features
from training.encoders.load import load_encoder
from training.encoders.transformer import TransformerEncoder
from training.engine.budget import probe_budget
from training.engine.engine import Place
from training.task import TrainTask

UNPADDED_BUDGET = 16_384
"""Tokens or vectors encoded at once by an encoder that pads nothing."""


def start_encoder(task: TrainTask, place: Place, say: Callable[[str], None]) -> Encoder:
    """The model that the round starts from, on its device, in training mode; with low-rank additions if they are set."""
    encoder = load_encoder(fetch_folder(task.store, task.model, task.model_prefix))
    if task.settings.lora is not None:
        from training.encoders.lora import add_lora, trained_parameters

        encoder = add_lora(encoder, task.settings.lora)
        trained, whole = trained_parameters(encoder)
        say(f"LoRA of rank {task.settings.lora.rank}: {trained:,} of {whole:,} weights are trained")
    encoder.to(place.device).train()
    if isinstance(encoder, TransformerEncoder):
        encoder.find_token_table()
    return encoder


def find_budget(encoder: Encoder, features: Features, place: Place, *, together: int, seed: int) -> int:
    """Tokens of a pack, the same on all ranks: rank 0 tries. Collective. `together`: texts that a step encodes."""
    if not encoder.pads:
        return UNPADDED_BUDGET
    found: list[Any] = [None]
    if place.rank == 0:
        found = [probe_budget(encoder, features, train=True, together=together, seed=seed, bfloat16=place.bfloat16)]
    if place.world > 1:
        dist.broadcast_object_list(found, src=0)
    return int(found[0])
