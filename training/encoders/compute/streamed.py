"""Packs of texts through an encoder on a device that is never waited for: the next packs are collated beside, vectors come
back later. Runs on the CPU as well, which is how it is tested without a GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cluster.tables.tables import F32, I64

AHEAD = 3
"""Packs that are collated ahead, and packs whose vectors are still on their way back."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class _Sent:
    rows: I64
    vectors: Tensor
    event: Any
    """Of CUDA: the copy is done. None on a CPU."""


def streamed(
    packs: Sequence[I64],
    collate: Callable[[I64], Inputs],
    encode: Callable[[Inputs], Tensor],
    device: torch.device,
    result_ND: F32,
) -> Iterator[int]:
    """Encode the rows of each pack into `result_ND`; yields how many rows are done each time.

    Args:
        collate: rows to tensors on the CPU; called in a thread of its own.
        encode: tensors on the device to vectors [rows, D]; a pack that does not fit the device's memory is halved.

    Raises:
        torch.OutOfMemoryError: a single row does not fit.
    """
    on_gpu = device.type == "cuda"
    waiting, sent = deque(packs), deque[_Sent]()

    def prepared(rows: I64) -> tuple[I64, Inputs]:
        inputs = collate(rows)
        return rows, {name: value.pin_memory() for name, value in inputs.items()} if on_gpu else inputs

    with ThreadPoolExecutor(1, "collate") as beside:
        ahead: deque[Future[tuple[I64, Inputs]]] = deque()
        while ahead or waiting:
            while waiting and len(ahead) < AHEAD:
                ahead.append(beside.submit(prepared, waiting.popleft()))
            rows, inputs = ahead.popleft().result()
            try:
                vectors = encode({name: value.to(device, non_blocking=True) for name, value in inputs.items()})
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                torch.cuda.empty_cache()
                half = len(rows) // 2
                ahead.extendleft(beside.submit(prepared, some) for some in (rows[half:], rows[:half]))
                continue
            sent.append(_send(rows, vectors, on_gpu=on_gpu))
            if len(sent) > AHEAD:
                yield _receive(sent.popleft(), result_ND)
    while sent:
        yield _receive(sent.popleft(), result_ND)


def _send(rows: I64, vectors: Tensor, *, on_gpu: bool) -> _Sent:
    if not on_gpu:
        return _Sent(rows, vectors, None)
    host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return _Sent(rows, host, event)


def _receive(sent: _Sent, result_ND: F32) -> int:
    if sent.event is not None:
        sent.event.synchronize()
    result_ND[sent.rows] = sent.vectors.numpy()
    return len(sent.rows)
