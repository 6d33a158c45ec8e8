"""How many tokens an encoder should read at once: found by a short trial on this device, with this data's lengths.

A CPU is fastest with what fits its caches, a GPU with what fills it; neither is known beforehand. Times differ from run to
run, so the same call may give another answer: whoever needs the same figures again keeps what was found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cluster.tables.tables import I64
from training.encoders.base import CPU_BUDGET_TOKENS, Encoder
from training.encoders.tokens.features import Features
from training.encoders.tokens.packing import pack

CPU_CANDIDATES = (512, 1024, 2048)
GPU_CANDIDATES = tuple(8192 * 2**power for power in range(7))
SMALLEST = 256
"""Below this a GPU that is full is not helped by smaller packs."""
GAIN = 0.03
"""By how much a larger budget must be faster per token to be worth its memory."""
MOST_TEXTS = 4096
GPU_SHARE = 0.5
"""Of the GPU's memory, most that one pack may take in training: gradients, the optimizer and other packs come on top."""


class Tried(NamedTuple):
    """One budget, measured."""

    budget: int
    seconds_per_token: float
    """Of real tokens; the best of all repeats."""


def probe_budget(
    encoder: Encoder,
    features: Features,
    *,
    candidates: Sequence[int] | None = None,
    repeats: int = 2,
    seed: int = 0,
    limit_s: float = 3.0,
    together: int | None = None,
    bfloat16: bool = False,
) -> int:
    """The tokens per micro-batch, padding included, that take the least time per token.

    A pack of middling length is encoded at each candidate (on a GPU: at ever larger ones, until they gain less than 3 %
    or memory runs out), and its time per padded token is multiplied by the padding that the candidate causes. Weights,
    gradients, random state and mode of the encoder are left as they were.

    Args:
        encoder: one that pads; on its device.
        features: real ones; up to 4,096 of them are drawn.
        candidates: ascending; None: 512 to 2,048 on a CPU, 8,192 to 524,288 on a GPU.
        repeats: timings of each candidate, in turns; the fastest counts, because nothing but disturbance makes one slower.
        limit_s: after this many seconds no further timing is begun.
        together: texts that are cut into packs together: those of a training step. The fewer, the more a large budget pads.
            None: as many as were drawn.
        bfloat16: under autocast.

    Returns:
        A candidate; the smaller of two that are within 3 %. 1,024 on a CPU so slow that `limit_s` is over before each
        candidate was timed once; less than the smallest on a GPU whose memory that one would exceed.

    Raises:
        torch.cuda.OutOfMemoryError: not even 256 tokens fit.
    """
    assert encoder.pads, "an encoder that does not pad has nothing to gain from a budget"
    device = next(encoder.parameters()).device
    sample = _sample(features, seed)
    mode, gradients = encoder.training, [parameter.grad for parameter in encoder.parameters()]
    encoder.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            trial = _Trial(encoder, sample, device, together or len(sample), bfloat16=bfloat16)
            if device.type == "cuda":
                return trial.climb(candidates or GPU_CANDIDATES, repeats)
            return trial.compare(candidates or CPU_CANDIDATES, repeats, time.perf_counter() + limit_s)
    finally:
        encoder.train(mode)
        for parameter, gradient in zip(encoder.parameters(), gradients, strict=True):
            parameter.grad = gradient


def fastest(tried: Sequence[Tried]) -> int:
    """The smallest budget than which no other is more than 3 % faster per token."""
    best = min(each.seconds_per_token for each in tried)
    return min(each.budget for each in tried if each.seconds_per_token * (1.0 - GAIN) <= best)


def padding(lengths: I64, budget_tokens: int, together: int) -> float:
    """Tokens with padding for each real one, where `together` texts at a time are cut into packs; mean of up to 8 times."""
    padded = real = 0
    for start in range(0, min(len(lengths), 8 * together), together):
        some = lengths[start : start + together]
        padded += sum(int(some[each].max()) * len(each) for each in pack(some, budget_tokens))
        real += int(some.sum())
    return padded / max(1, real)


def middle_pack(lengths: I64, budget_tokens: int) -> I64:
    """The pack in which half of all tokens, counted from the longest text, are reached: positions of its texts."""
    packs = pack(lengths, budget_tokens)
    tokens = np.cumsum([int(lengths[each].sum()) for each in packs])
    return packs[int(np.searchsorted(tokens, tokens[-1] / 2))]


class _Trial:
    """Times packs of one sample."""

    def __init__(self, encoder: Encoder, sample: Features, device: torch.device, together: int, *, bfloat16: bool) -> None:
        self._encoder, self._sample, self._device, self._together = encoder, sample, device, together
        self._bfloat16 = bfloat16

    def compare(self, candidates: Sequence[int], repeats: int, deadline: float) -> int:
        """Every candidate in turns, until the deadline."""
        packs: dict[int, I64] = {}
        for budget in candidates:
            chosen = middle_pack(self._sample.lengths, budget)
            if not any(np.array_equal(chosen, other) for other in packs.values()):  # few texts: both hold them all
                packs[budget] = chosen
        took: dict[int, list[float]] = {budget: [] for budget in packs}
        self._per_token(packs[candidates[0]])  # the first pass also allocates, and picks kernels
        for _ in range(repeats):
            for budget, chosen in packs.items():
                if time.perf_counter() < deadline:
                    took[budget].append(self._per_token(chosen))
        if not all(took.values()):
            return CPU_BUDGET_TOKENS
        return fastest([Tried(budget, min(seconds) * self._padding(budget)) for budget, seconds in took.items()])

    def climb(self, candidates: Sequence[int], repeats: int) -> int:
        """Ever larger ones, until they no longer gain or do not fit."""
        tried: list[Tried] = []
        total = int(self._sample.lengths.sum())
        for budget in candidates:
            seconds = self._if_it_fits(budget, repeats)
            if seconds is None:
                break
            tried.append(Tried(budget, seconds * self._padding(budget)))
            gains = len(tried) < 2 or tried[-1].seconds_per_token <= tried[-2].seconds_per_token * (1.0 - GAIN)
            if not gains or budget > total:
                break
        return fastest(tried) if tried else self._descend(candidates[0] // 2)

    def _descend(self, budget: int) -> int:
        while budget > SMALLEST and self._if_it_fits(budget, 1) is None:
            budget //= 2
        if budget <= SMALLEST:
            self._per_token(middle_pack(self._sample.lengths, SMALLEST))  # raises where not even this fits
        return max(budget, SMALLEST)

    def _if_it_fits(self, budget: int, repeats: int) -> float | None:
        torch.cuda.reset_peak_memory_stats(self._device)
        chosen = middle_pack(self._sample.lengths, budget)
        try:
            seconds = min(self._per_token(chosen) for _ in range(repeats + 1))  # one more: the first picks kernels
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        peak, memory = torch.cuda.max_memory_allocated(self._device), torch.cuda.get_device_properties(self._device)
        return None if peak > GPU_SHARE * memory.total_memory else seconds

    def _per_token(self, chosen: I64) -> float:
        """Seconds per token, padding counted, of one forward and backward pass."""
        inputs = {name: value.to(self._device) for name, value in self._encoder.collate(self._sample.take(chosen)).items()}
        self._encoder.zero_grad(set_to_none=True)
        self._wait()
        started = time.perf_counter()
        cast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)
        with cast:
            output = self._encoder(inputs)
        output.sum().backward()
        self._wait()
        seconds = time.perf_counter() - started
        return seconds / (int(self._sample.lengths[chosen].max()) * len(chosen))

    def _padding(self, budget: int) -> float:
        return padding(self._sample.lengths, budget, self._together)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _sample(features: Features, seed: int) -> Features:
    rows = np.random.default_rng(seed).permutation(len(features))[:MOST_TEXTS]
    return features.take(rows.astype(np.int64))
