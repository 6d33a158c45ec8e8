"""DeepSpeed: its configuration from our settings, and an engine around an encoder.

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

from cluster.errors import ClusterError
from training.encoders.base import Encoder
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Place:
    """Where this rank runs."""

    rank: int
    world: int
    device: torch.device
    bfloat16: bool


def deepspeed_config(settings: TrainingSettings, *, bfloat16: bool, on_gpu: bool) -> dict[str, Any]:
    """The DeepSpeed configuration. Every key that matters is written out: defaults moved between releases."""
    return {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_clipping": settings.gradient_clipping,
        "bf16": {"enabled": bfloat16},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": on_gpu,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 10_000,
        },
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def parameter_groups(encoder: Encoder, weight_decay: float) -> list[dict[str, Any]]:
    """Weights with decay; biases and norms (one-dimensional) without, as is usual for AdamW."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def start_engine(encoder: Encoder, settings: TrainingSettings, place: Place) -> Any:
    """A DeepSpeed engine that trains `encoder` with AdamW; torch.distributed must be initialised.

    Raises:
        ClusterError: DeepSpeed does not start.
    """
    on_gpu = place.device.type == "cuda"
    os.environ["DS_ACCELERATOR"] = "cuda" if on_gpu else "cpu"  # before the import: it is decided there
    import deepspeed
    import deepspeed.comm.torch

    # DeepSpeed calls collectives that torch 2.13 renamed, and says so itself in every process
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # on CPU every start compiles a shared-memory kernel (80 s) behind a lock that a killed build leaves for ever
    # (pytorch/pytorch#189245); gloo does not need it
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    groups = [group for group in parameter_groups(encoder, settings.weight_decay) if group["params"]]
    # our own AdamW: DeepSpeed's would be compiled at first use
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    try:
        engine, *_ = deepspeed.initialize(
            model=encoder, optimizer=optimizer, dist_init_required=False,
            config=deepspeed_config(settings, bfloat16=place.bfloat16, on_gpu=on_gpu),
        )
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ClusterError(f"DeepSpeed did not start with ZeRO stage {settings.zero_stage} on {place.world} rank(s) "
                           f"({type(error).__name__}: {error}); try training.zero_stage = 1") from error
    return engine


def set_learning_rate(engine: Any, value: float) -> None:
    """The learning rate of the next step, for every parameter group."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def full_state(engine: Any, place: Place) -> dict[str, Tensor]:
    """All weights as float32 CPU tensors on rank 0 (empty elsewhere). Collective: every rank must call it.

    With bfloat16 they are the optimizer's float32 weights, not the rounded ones that the forward pass uses: a round
    starts where the one before ended.
    """
    module = engine.module
    if engine.zero_optimization_stage() < 3 and not place.bfloat16:
        return _float_state(module.state_dict()) if place.rank == 0 else {}
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        value = _full_parameter(parameter, place)
        if place.rank == 0:
            state[name] = value
    if place.rank == 0:
        persistent = set(module.state_dict())
        state.update({name: buffer for name, buffer in module.named_buffers() if name in persistent})
    return _float_state(state)


def _full_parameter(parameter: Any, place: Place) -> Tensor:
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    if place.bfloat16 and parameter.requires_grad:
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
    return {name: value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
            for name, value in state.items()}
