"""What a round's training starts with on each rank: the encoder, how many tokens it encodes at once, and the trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.session.progress import post
from cluster.storage.model_folders import fetch_folder
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.tokens.features import Features
from training.encoders.transformer import OneModelEncoder
from training.engine.budget import probe_budget
from training.engine.engine import Place
from training.feed.batches import BatchPlan
from training.settings import TrainingSettings
from training.task import Task
from training.telemetry.trackers import Trackers, make_trackers

UNPADDED_BUDGET = 16_384
"""Tokens or vectors encoded at once by an encoder that pads nothing."""


def start_encoder(
    task: Task, place: Place, say: Callable[[str], None], load: Callable[[Path], Encoder] = load_encoder
) -> Encoder:
    """The model that the round starts from, on its device, in training mode; with low-rank additions if they are set."""
    encoder = load(fetch_folder(task.store, task.model, task.model_prefix))
    if task.settings.lora is not None:
        from training.encoders.lora import add_lora, trained_parameters

        encoder = add_lora(encoder, task.settings.lora, load)
        trained, whole = trained_parameters(encoder)
        say(f"LoRA of rank {task.settings.lora.rank}: {trained:,} of {whole:,} weights are trained")
    encoder.to(place.device).train()
    if isinstance(encoder, OneModelEncoder):
        encoder.find_token_table()
    return encoder


def settings_here(task: Task, plan: BatchPlan) -> tuple[TrainingSettings, dict[str, Any] | None]:
    """The settings and the user's DeepSpeed configuration, as they hold on the number of ranks that is there."""
    settings, own, usual = task.settings, task.deepspeed, task.settings.batch_size * plan.world
    if plan.together > usual:
        # a rank may have room for batch_size rows only: GradCache makes the same step in the room of a micro-batch
        settings = settings.model_copy(update={"grad_cache": True})
    if plan.together != usual and own is not None:  # it was checked on the ranks that began
        own = {name: value for name, value in own.items() if name != "train_batch_size"}
    return settings, own


def start_trackers(task: Task, place: Place) -> Trackers:
    """Those of the settings on rank 0, none elsewhere."""
    mailbox = task.mailbox if place.rank == 0 else None
    return make_trackers(
        task.settings.trackers if place.rank == 0 else [],
        run=task.name,
        number=task.round,
        label=task.label,
        store=task.store,
        folder=task.folder,
        config=task.tracked(),
        say=lambda text: post(mailbox, "trackers", text),
    )


def find_budget(encoder: Encoder, features: Features, place: Place, *, together: int, seed: int) -> int:
    """Tokens of a pack, the same on all ranks: rank 0 tries. Collective. `together`: texts that a step encodes."""
    if not encoder.pads:
        return UNPADDED_BUDGET
    found: list[Any] = [None]
    if place.rank == 0:
        found = [probe_budget(encoder, features, together=together, seed=seed, bfloat16=place.bfloat16)]
    if place.world > 1:
        dist.broadcast_object_list(found, src=0)
    return int(found[0])
