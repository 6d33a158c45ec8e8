"""DeepSpeed: an engine around an encoder, with AdamW and float32 master weights, and the weights back out of it.

DeepSpeed is imported here only, inside a worker, after the device is known.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cluster.errors import ClusterError, ConfigError, one_paragraph
from training.encoders.base import Encoder
from training.encoders.transformer import checkpoint_activations
from training.engine.deepspeed_config import SHORT, Precision, Tree, deepspeed_config
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Place:
    """Where this rank runs, and in which precision."""

    rank: int
    world: int
    device: torch.device
    bfloat16: bool
    float16: bool = False

    @property
    def precision(self) -> Precision:
        """Data type of the weights in forward and backward passes."""
        return "bfloat16" if self.bfloat16 else "float16" if self.float16 else "float32"


def place_of(settings: TrainingSettings, device: torch.device, *, rank: int, world: int) -> Place:
    """A rank on a device, in the precision that the settings ask for; "auto" is bfloat16 where a GPU has it."""
    wanted = settings.precision
    # without emulation, which old GPUs have and which is slower than float32
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Place(rank, world, device, wanted == "bfloat16" or (wanted == "auto" and native), wanted == "float16")


def parameter_groups(encoder: Encoder, weight_decay: float) -> list[dict[str, Any]]:
    """Weights with decay; biases and norms (one-dimensional) without, as is usual for AdamW."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def start_engine(encoder: Encoder, settings: TrainingSettings, place: Place, *, own: Tree | None = None) -> Any:
    """A DeepSpeed engine that trains `encoder` with AdamW; torch.distributed must be initialised.

    Args:
        own: the user's DeepSpeed configuration, merged with what the settings say.

    Raises:
        ConfigError: `own` contradicts the settings or DeepSpeed refuses it; the device lacks the precision; the encoder
            cannot compute its activations again.
        ClusterError: DeepSpeed does not start.
    """
    on_gpu = place.device.type == "cuda"
    config = deepspeed_config(settings, precision=place.precision, world=place.world, on_gpu=on_gpu, own=own)
    if settings.activation_checkpointing:
        checkpoint_activations(encoder)
    deepspeed = _import_deepspeed(on_gpu)
    _check_precision(place)
    mixed = place.precision != "float32"
    start = [
        parameter.detach().to("cpu", copy=True) if mixed and parameter.requires_grad else None
        for parameter in encoder.parameters()
    ]
    groups = [group for group in parameter_groups(encoder, settings.weight_decay) if group["params"]]
    # our own AdamW: DeepSpeed's would be compiled at first use
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)
    try:
        engine, *_ = deepspeed.initialize(model=encoder, optimizer=optimizer, dist_init_required=False, config=config)
    except (RuntimeError, AssertionError, ValueError) as error:
        found = f"({type(error).__name__}: {one_paragraph(str(error))[:600]})"
        if own is not None and not isinstance(error, RuntimeError):
            raise ConfigError(
                f"DeepSpeed refuses the file of training.deepspeed {found}; take out of it what is named there"
            ) from error
        raise ClusterError(
            f"DeepSpeed did not start with ZeRO stage {settings.zero_stage} on {place.world} rank(s) "
            f"{found}; try training.zero_stage = 1"
            f"{' without training.deepspeed' if own is not None else ''}"
        ) from error
    if mixed:
        _start_masters(engine, start, place)
    return engine


def _import_deepspeed(on_gpu: bool) -> Any:
    os.environ["DS_ACCELERATOR"] = "cuda" if on_gpu else "cpu"  # before the import: it is decided there
    import deepspeed
    import deepspeed.comm.torch

    # DeepSpeed calls collectives that torch 2.13 renamed, and says so itself in every process
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # on CPU every start compiles a shared-memory kernel (80 s) behind a lock that a killed build leaves for ever
    # (pytorch/pytorch#189245); gloo does not need it
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    return deepspeed


def _check_precision(place: Place) -> None:
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    supported = {"float32": True, "bfloat16": accelerator.is_bf16_supported(), "float16": accelerator.is_fp16_supported()}
    if not supported[place.precision]:
        others = [name for name, here in supported.items() if here]
        raise ConfigError(
            f'training.precision = "{place.precision}": DeepSpeed has no {SHORT[place.precision]} on this '
            f'{place.device.type} device; set training.precision = "auto", or one of {", ".join(others)}'
        )


def _start_masters(engine: Any, start: list[Tensor | None], place: Place) -> None:
    """Make the optimizer's float32 weights what the model's were: DeepSpeed fills them from the rounded ones."""
    from deepspeed.utils import safe_set_full_fp32_param
    from deepspeed.utils.tensor_fragment import safe_set_local_fp32_param

    unsharded = unsharded_masters(engine)
    if unsharded:
        # to make room for its state, DeepSpeed's optimizer without ZeRO makes a step of zero gradients, which AdamW's
        # bias correction would count
        engine.optimizer.state.clear()
    for parameter, value in zip(engine.module.parameters(), start, strict=True):
        if value is None:
            continue
        if id(parameter) in unsharded:
            unsharded[id(parameter)].data.copy_(value)
        elif hasattr(parameter, "ds_id"):
            # not its setter for whole parameters: that one fails on sizes that the ranks do not divide
            size = parameter.ds_tensor.numel()
            padded = functional.pad(value.flatten(), (0, size * place.world - value.numel()))
            safe_set_local_fp32_param(parameter, padded[size * place.rank : size * (place.rank + 1)])
        else:
            safe_set_full_fp32_param(parameter, value)


def unsharded_masters(engine: Any) -> dict[int, Tensor]:
    """The float32 weights by id of the parameter, of mixed precision without ZeRO; empty otherwise."""
    if engine.zero_optimization_stage() or not hasattr(engine.optimizer, "fp32_groups"):
        return {}
    pairs = zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups, strict=True)
    return {id(low): high for group in pairs for low, high in zip(*group, strict=True)}


def set_learning_rate(engine: Any, value: float) -> None:
    """The learning rate of the next step, for every parameter group."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def full_state(engine: Any, place: Place) -> dict[str, Tensor]:
    """All weights as float32 CPU tensors on rank 0 (empty elsewhere). Collective: every rank must call it.

    With bfloat16 and float16 they are the optimizer's float32 weights, not the rounded ones that the forward pass uses:
    a round starts where the one before ended. Weights that are not trained have no other than the rounded ones.
    """
    module = engine.module
    if engine.zero_optimization_stage() < 3 and place.precision == "float32":
        return _float_state(module.state_dict()) if place.rank == 0 else {}
    unsharded = unsharded_masters(engine)
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):  # tied weights have two names
        value = unsharded.get(id(parameter))
        value = _full_parameter(parameter, place) if value is None else value
        if place.rank == 0:
            state[name] = value
    if place.rank == 0:
        persistent = set(module.state_dict())
        state.update({name: buffer for name, buffer in module.named_buffers() if name in persistent})
    return _float_state(state)


def _full_parameter(parameter: Any, place: Place) -> Tensor:
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    if place.precision != "float32" and parameter.requires_grad:
        master: Tensor | None = safe_get_full_fp32_param(parameter)
        if master is not None:
            return master.detach().clone()
    if not hasattr(parameter, "ds_id"):
        value: Tensor = parameter.detach().clone()
        return value
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=None):
        gathered: Tensor = parameter.detach().clone()
    return gathered


def _float_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # copies: on a CPU these would be the weights themselves, which the next step changes
    return {
        name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in state.items()
    }
