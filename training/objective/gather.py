"""Candidates across ranks: collect the rows of all ranks, with gradient.

The one exact form we use: every rank scores its *local* queries against the items of *all* ranks, and the gradient of
an item goes back to the rank that encoded it, summed over the ranks that used it.  Re-inserting only the local slice
gives a different gradient, not merely a scaled one.

Shape letters: R rows of this rank, M rows of the largest rank, C rows of all ranks (the gathered columns).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(x: Tensor, *, counts: Sequence[int] | None = None, group: dist.ProcessGroup | None = None) -> Tensor:
    """Concatenate the rows of all ranks along dim 0, in rank order.

    Ranks may hold different numbers of rows (also none); the other dimensions and the dtype must agree.  It is a
    collective call: every rank of the group makes it, and if one rank runs backward through the result, all do, in the
    same order.  Integer and bool tensors, and tensors that need no gradient, are gathered without one.

    Args:
        x: (R, ...) on the device of the group's backend.
        counts: rows of every rank, where they are known; None asks the ranks first.
        group: ranks to gather over; None is the default group.

    Returns:
        (C, ...) of the same dtype: the rows of rank 0, then rank 1, ...  Without torch.distributed, or with one rank,
        `x`.  In backward each rank receives the gradient of its own rows, *summed* over ranks; an average over ranks is
        then left to whoever averages parameter gradients (DDP, DeepSpeed).

    Raises:
        ValueError: `x` is a scalar, or this process is not in `group`.
    """
    if x.dim() == 0:
        raise ValueError("gather_rows expects a tensor with rows, found a scalar; pass x.reshape(1)")
    if not (dist.is_available() and dist.is_initialized()):
        return x
    if dist.get_rank(group) < 0:
        raise ValueError(f"gather_rows: rank {dist.get_rank()} is not in the group; call it only on the group's own ranks")
    if dist.get_world_size(group) == 1:
        return x
    counts = _exchange_counts(x, group) if counts is None else list(counts)
    if not x.is_floating_point():
        return _gather_padded(x, counts, group)
    # On its own line: torch leaves Function.apply untyped.
    return cast(Tensor, _GatherRows.apply(x, counts, group))  # type: ignore[no-untyped-call]


def mean_over_ranks(value: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Average a tensor over the ranks, without gradient: the `denominator` of `training.objective.losses`, or a figure to log.

    Args:
        value: any shape, floating point, the same on all ranks.
        group: ranks to average over; None is the default group.

    Returns:
        A new tensor, equal on all ranks.  Without torch.distributed, a detached copy.
    """
    mean = value.detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1:
        dist.all_reduce(mean, op=dist.ReduceOp.SUM, group=group)  # sum over ranks; gloo has no AVG ...
        mean /= dist.get_world_size(group)  # ... so the average over ranks is made here
    return mean


def _exchange_counts(x: Tensor, group: dist.ProcessGroup | None) -> list[int]:
    own = torch.tensor([x.shape[0]], dtype=torch.int64, device=x.device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    return [int(n) for n in torch.cat(parts).tolist()]


def _pad(x: Tensor, num_rows: int) -> Tensor:
    if x.shape[0] == num_rows:
        return x.contiguous()
    return torch.cat([x, x.new_zeros((num_rows - x.shape[0], *x.shape[1:]))])


def _gather_padded(x: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:
    # The list form, because torch 2.13 deprecates all_gather_into_tensor and older versions lack its successor.
    padded_M = _pad(x.detach(), max(counts))
    parts = [torch.empty_like(padded_M) for _ in counts]
    dist.all_gather(parts, padded_M, group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _sum_own_rows(grad_C: Tensor, counts: list[int], group: dist.ProcessGroup | None, *, scatter: bool) -> Tensor:
    """Sum the gradient of all columns over ranks and return the part of this rank's rows."""
    rank = dist.get_rank(group)
    if scatter:
        grads = [_pad(grad, max(counts)) for grad in torch.split(grad_C, counts)]
        own = torch.empty_like(grads[rank])
        dist.reduce_scatter(own, grads, op=dist.ReduceOp.SUM, group=group)  # sum over ranks, each receives its own rows
        return own[: counts[rank]]
    total_C = grad_C.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total_C, op=dist.ReduceOp.SUM, group=group)  # sum over ranks; own rows are cut out below
    start = sum(counts[:rank])
    return total_C[start : start + counts[rank]]


class _GatherRows(torch.autograd.Function):
    """all_gather forward, sum over ranks backward (torch's own functional all_gather is deprecated as of 2.13)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.counts, ctx.group, ctx.dtype = counts, group, x.dtype
        return _gather_padded(x, counts, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_C: Tensor) -> tuple[Tensor, None, None]:
        # Half precision would lose low bits with every rank that is added.
        wide_C = grad_C.float() if grad_C.dtype in (torch.float16, torch.bfloat16) else grad_C
        # gloo has had a reduce_scatter only since 2025-03 (pytorch#149869): CPU takes the all_reduce.
        scatter = dist.get_backend(ctx.group) == "nccl"
        return _sum_own_rows(wide_C, ctx.counts, ctx.group, scatter=scatter).to(ctx.dtype), None, None
