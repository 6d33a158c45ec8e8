"""What an engine must keep to train on: float32 weights and AdamW's state, as fragments that any number of ranks can load.

Each rank writes the pieces of every trained parameter that it holds, as flat tensors with their place in the parameter. Whoever
loads them puts each parameter together and takes its own pieces, so the number of ranks may differ. Files are safetensors:
reading one runs no code, whoever wrote it.

Weights that are not trained are not kept: they are those of the model that the round starts from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cluster.errors import ArtifactError
from training.engine.engine import Place, unsharded_masters

FILE = "state.safetensors"
WEIGHT, BUFFER, STEP = "weight", "buffer", "step"
MOMENTS = ("exp_avg", "exp_avg_sq")
SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's dynamic loss scale (float16) remembers."""


@dataclass(frozen=True)
class Piece:
    """The part of one parameter whose float32 weights and moments lie on this rank."""

    start: int
    """Of the flat parameter."""
    length: int
    owner: Tensor
    """The optimizer's own flat parameter, which may hold pieces of many."""
    offset: int
    """In the owner."""
    state: dict[str, Any]
    """AdamW's of the owner; empty before the first step."""

    def of(self, tensor: Tensor) -> Tensor:
        """This piece of a tensor that is laid out as the owner is; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.length)


def save_state(engine: Any, place: Place, file: Path) -> None:
    """Write what this rank holds; of what all ranks hold, its share. Not collective.

    Raises:
        OSError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for number, (name, parameter) in enumerate(_trained(engine)):
        piece = _piece(engine, parameter, place)
        if piece is None or not piece.length or (_is_everywhere(engine) and number % place.world != place.rank):
            continue
        tensors[f"{name}:{WEIGHT}:{piece.start}"] = _copy(piece.of(piece.owner))
        if STEP in piece.state:
            tensors[f"{name}:{STEP}:{piece.start}"] = _copy(piece.state[STEP].reshape(1))
            tensors |= {f"{name}:{key}:{piece.start}": _copy(piece.of(piece.state[key])) for key in MOMENTS}
    if place.rank == 0:
        tensors |= {f"{name}:{BUFFER}:0": _copy(buffer) for name, buffer in _buffers(engine)}
    try:
        save_file(tensors, file)
    except SafetensorError as error:  # it has no kind of its own for a full disk
        raise OSError(str(error)) from error


def load_state(engine: Any, place: Place, files: Sequence[Path]) -> None:
    """Take weights, moments and steps from the files of all ranks that saved. Not collective.

    Raises:
        ArtifactError: they are not whole, or of another model.
    """
    try:
        with ExitStack() as stack, torch.no_grad():
            pieces = _Pieces([stack.enter_context(safe_open(str(file), framework="pt")) for file in files])
            for name, parameter in _trained(engine):
                _load_parameter(engine, place, name, parameter, pieces)
            for name, buffer in _buffers(engine):
                buffer.copy_(pieces.joined(name, BUFFER, buffer.numel()).view_as(buffer))
    except SafetensorError as error:
        raise ArtifactError(f"the engine's state cannot be read ({error})") from error


def loss_scale(engine: Any) -> dict[str, float]:
    """The dynamic loss scale; empty where there is none."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return {key: getattr(scaler, key) for key in SCALE} if getattr(scaler, "dynamic", False) else {}


def set_loss_scale(engine: Any, values: dict[str, float]) -> None:
    """Go on with a loss scale."""
    for key, value in values.items():
        setattr(engine.optimizer.loss_scaler, key, value)


class _Pieces:
    """The tensors of all files, by parameter."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._where: dict[tuple[str, str], list[tuple[int, Any, str]]] = defaultdict(list)
        for file in files:
            for key in file.keys():  # noqa: SIM118  no mapping
                name, kind, start = key.rsplit(":", 2)
                self._where[name, kind].append((int(start), file, key))

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._where

    def joined(self, name: str, kind: str, length: int) -> Tensor:
        """All of a parameter, flat. Raises ArtifactError: not all of it is there."""
        at, tensors = 0, []
        for start, file, key in sorted(self._where.get((name, kind), []), key=lambda piece: piece[0]):
            tensors.append(file.get_tensor(key).flatten())
            if start != at:
                break
            at += tensors[-1].numel()
        if at != length:
            raise ArtifactError(f"the engine's state has {at} values of {name} ({kind}) from its start on, expected {length}")
        return torch.cat(tensors)

    def first(self, name: str, kind: str) -> Tensor:
        """The tensor of the first piece."""
        _, file, key = min(self._where[name, kind], key=lambda piece: piece[0])
        tensor: Tensor = file.get_tensor(key)
        return tensor


def _load_parameter(engine: Any, place: Place, name: str, parameter: Any, pieces: _Pieces) -> None:
    length = getattr(parameter, "ds_numel", parameter.numel())
    weight = pieces.joined(name, WEIGHT, length)
    _set_used(parameter, weight, place)
    piece = _piece(engine, parameter, place)
    if piece is None:
        return
    piece.of(piece.owner).copy_(weight[piece.start :][: piece.length])
    if (name, STEP) not in pieces:  # it had no gradient yet
        return
    piece.state[STEP] = pieces.first(name, STEP).reshape(()).to(piece.owner.device)
    for key in MOMENTS:
        if key not in piece.state:
            piece.state[key] = torch.zeros_like(piece.owner)
        piece.of(piece.state[key]).copy_(pieces.joined(name, key, length)[piece.start :][: piece.length])


def _set_used(parameter: Any, weight: Tensor, place: Place) -> None:
    """The weights that forward passes use, rounded to their type; with ZeRO 3 this rank's part of them."""
    if not hasattr(parameter, "ds_id"):
        parameter.data.copy_(weight.view_as(parameter))
        return
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    size = parameter.ds_tensor.numel()
    padded = functional.pad(weight, (0, size * place.world - weight.numel()))
    parameter.ds_tensor.data.copy_(padded[size * place.rank : size * (place.rank + 1)])
    if parameter.ds_status == ZeroParamStatus.AVAILABLE:  # a small one, which is kept whole
        parameter.data.copy_(weight.view(parameter.ds_shape))


def _piece(engine: Any, parameter: Any, place: Place) -> Piece | None:
    """What lies on this rank of a trained parameter; None: nothing."""
    optimizer = engine.optimizer
    state = getattr(optimizer, "optimizer", optimizer).state
    if hasattr(parameter, "ds_id"):
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        owner, start = optimizer.fp32_partitioned_groups_flat[group], size * place.rank
        length = max(0, min(size, parameter.ds_numel - start))  # the last rank's is padded
        return Piece(min(start, parameter.ds_numel), length, owner, offset, state[owner])
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        flat = getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_groups_flat_partition
        owner, here = flat[mapping.param_group_index], mapping.hp_fragment_address
        return Piece(mapping.lp_fragment_address.start, here.numel, owner, here.start, state[owner])
    owner = unsharded_masters(engine).get(id(parameter), parameter)
    return Piece(0, owner.numel(), owner, 0, state[owner])


def _is_everywhere(engine: Any) -> bool:
    """Whether every rank holds everything."""
    return not engine.zero_optimization_stage() and not hasattr(engine.optimizer, "fp32_groups_flat_partition")


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _buffers(engine: Any) -> Iterator[tuple[str, Tensor]]:
    kept = set(engine.module.state_dict())
    for name, buffer in engine.module.named_buffers():
        if name in kept:
            yield name, buffer


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
