"""Low-rank additions to the linear layers of a transformer (LoRA: Hu 2021, arXiv 2106.09685), by peft.

W x becomes W x + (alpha / rank) B A x: W stays as it is, A [rank, in] and B [out, rank] are trained. B starts at zero, so
that nothing changes before the first step. What is kept of a round is W + (alpha / rank) B A: a plain model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cluster.errors import ConfigError
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.transformer import TextEncoder
from training.settings import LoraSettings


def add_lora(encoder: Encoder, settings: LoraSettings, load: Callable[[Path], Encoder] = load_encoder) -> Encoder:
    """Give `encoder` additions, in place, and train nothing else but its head, if it has one. What it gives stays the same until
    the first step.

    `encoder.save` leaves a plain model from then on.

    Args:
        load: opens the folder of such an encoder.

    Returns:
        `encoder`.

    Raises:
        ConfigError: peft is not installed; the encoder is no transformer; it has no layer with a name that is asked for.
    """
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(
            f'training.lora is for encoder.kind = "transformer", found "{encoder.kind}", which is small '
            f"enough to be trained whole; take [training.lora] out"
        )
    _add(encoder, settings)
    encoder.merge = partial(_merged, encoder.source, settings, load)
    return encoder


def trained_parameters(encoder: nn.Module) -> tuple[int, int]:
    """(numbers that are trained, all numbers) of the model's weights; with ZeRO 3 those of all ranks together."""
    sizes = [(int(getattr(each, "ds_numel", each.numel())), each.requires_grad) for each in encoder.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _add(encoder: TextEncoder, settings: LoraSettings) -> Any:
    """peft's tuner around `encoder.model`, which gets its additions."""
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise ConfigError(
            'training.lora needs the package peft, which is not installed; pip install "hardmine[lora]", or '
            "take [training.lora] out"
        ) from error
    chosen = _chosen_layers(encoder, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # an expression, not names: peft takes a name for the end of any layer's name
        target_modules="|".join(re.escape(name) for name in chosen),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # A starts random: the same on every rank and run
        tuner = LoraModel(encoder.model, config, "default")
    for name, parameter in encoder.model.named_parameters():
        if name in encoder.head:
            parameter.requires_grad_(True)
    return tuner


def _chosen_layers(encoder: TextEncoder, settings: LoraSettings) -> list[str]:
    names = _linear_layers(encoder)
    if settings.targets == "all-linear":
        if not names:
            raise ConfigError(f"training.lora: the model in {encoder.source} has no linear layer; take [training.lora] out")
        return names
    found = {target: [name for name in names if name == target or name.endswith(f".{target}")] for target in settings.targets}
    unknown = [target for target, layers in found.items() if not layers]
    if unknown or not found:
        ends = sorted({name.rsplit(".", 1)[-1] for name in names})
        raise ConfigError(
            f"training.lora.targets: the model in {encoder.source} has no linear layer named "
            f"{', '.join(map(repr, unknown)) or 'nothing (an empty list)'}; it has {', '.join(ends)} (a longer "
            f'name such as {names[0] if names else "layer.0.query"!r} names one of them), or set "all-linear"'
        )
    return sorted({name for layers in found.values() for name in layers})


def _linear_layers(encoder: TextEncoder) -> list[str]:
    """Names of the linear layers on the path of the embedding: without a head, or a pooler behind it, as BERT has one."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    return [
        name
        for name, module in encoder.model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and "pooler" not in name.split(".") and f"{name}.weight" not in encoder.head
    ]


def _merged(source: Path, settings: LoraSettings, load: Callable[[Path], Encoder], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the plain model, float32 on the CPU, by the names of the encoder in `source`.

    Args:
        state: all weights of the encoder with additions. Only what was trained is taken from it: the rest is
            read again, because a run in bfloat16 knows no more than its rounded form.
    """
    fresh = load(source)
    assert isinstance(fresh, TextEncoder)
    tuner = _add(fresh, settings)
    additions = {name: state[name] for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    fresh.load_state_dict(additions, strict=False)
    fresh.model = tuner.merge_and_unload()
    return {name: value.detach() for name, value in fresh.state_dict().items()}
